"""Owns the reports of fine-tuned models: figures, seeds, notes on training. Not training (finetuning.py)."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cache import npz
from pipeline.results.model import read_head
from pipeline.runs.boundary_rows import Plan
from stages.data.manifest import Manifest
from stages.metrics.figures import Difference, Figures, Metrics

_SHOWN = 12
"""Epochs of a curve in a note."""


@dataclass(frozen=True)
class TunedReport:
    """One seed's model: whether it was there already, its folder, its figures, and the learning rate `lr` that was set.

    `chosen`, from head.json, has the epoch whose weights it has, 0 those before training, and the curves. seed: None of
    the average of all seeds; its `chosen` has that of each.
    """

    key: str
    seed: int | None
    hit: bool
    path: Path
    metrics: Metrics
    seconds: float
    chosen: Mapping[str, Any]
    lr: float

    @property
    def epoch(self) -> int | None:
        """The epoch whose weights it has; 0 is the frozen head. None of an average."""
        return None if self.seed is None else int(self.chosen["epoch"])

    @property
    def views(self) -> int:
        """In how many views it sees an image to predict it."""
        return int(self.chosen.get("views", 1))

    @property
    def note(self) -> str | None:
        """A warning about its training, with advice; None where there is none."""
        if self.seed is None:
            return None
        losses, val = (self.chosen["history"][curve] for curve in ("loss", "val_log_loss"))
        lower = f"try a lower lr (it was {self.lr:g})"
        if None in losses:
            kept = f"epoch {self.epoch} were" if self.epoch else "the frozen head were"
            return (
                f"training diverged, the loss of epoch {len(losses)} was no number; the weights of {kept} kept; {lower}"
            )
        if self.epoch == 0:
            best = "no epoch was better on val than the frozen head, whose weights were kept"
            curve = ", ".join(f"{loss:.3f}" for loss in val[:_SHOWN]) + (", ..." if len(val) > _SHOWN else "")
            curve = f"val loss from epoch 0 on: {curve}"
            return f"training gained nothing: {best} ({curve}); {lower}, or unfreeze fewer blocks"
        return None

    def to_json(self) -> dict[str, Any]:
        own = self.metrics.to_json()
        frozen = {name: own.pop(name) for name in ("baseline", "difference")}
        about = {name: value for name, value in vars(self).items() if name not in ("chosen", "lr")}
        return {**about, "path": str(self.path), "epoch": self.epoch, "note": self.note, "metrics": own, **frozen}


@dataclass(frozen=True)
class Beside:
    """Another head's key, its figures of test, and by how much the model's are above them."""

    key: str
    test: Figures
    difference: Difference


@dataclass(frozen=True)
class FineTuneReport:
    """The models of all seeds, and their average if it was asked for; `plan` is None where all existed.

    pooled: the winner beside the head of train and val.
    """

    seeds: Mapping[int, TunedReport]
    plan: Plan | None
    average: TunedReport | None = None
    pooled: Beside | None = None

    @property
    def winner(self) -> TunedReport:
        """What the name means: the average, or else the seed that is the best on val."""
        return self.average or min(self.seeds.values(), key=lambda report: report.metrics.rank)

    def to_json(self) -> dict[str, Any]:
        """The winner, and all seeds."""
        models = [*self.seeds.values(), self.winner]
        own = {**self.winner.to_json(), "hit": all(report.hit for report in models), "pooled": self.pooled}
        return {**own, "plan": self.plan and vars(self.plan), "seeds": [r.to_json() for r in self.seeds.values()]}


def summarize(reports: Mapping[int | None, TunedReport], plan: Plan | None, pooled: Path | None) -> FineTuneReport:
    """The report of models by seed, None being their average; `pooled` is the folder of the head of train and val."""
    seeds = {seed: report for seed, report in reports.items() if seed is not None}
    done = FineTuneReport(seeds, plan, reports.get(None))
    return replace(done, pooled=_beside(pooled, done.winner.path))


def _beside(pooled: Path | None, tuned: Path) -> Beside | None:
    """The model in the folder `tuned` beside the head in `pooled`, by what both say of test.

    That head was fitted on val too, so it can be compared on test alone; None where there is no image.
    """
    if pooled is None:
        return None
    rows = Manifest.from_bytes((tuned / "manifest.jsonl").read_bytes()).samples
    test = {row.id: row for row in rows if row.split == "test"}
    if not test:
        return None
    said = []
    for folder in (pooled, tuned):
        arrays = npz.load(folder / "predictions.npz")
        line = {image: number for number, image in enumerate(arrays["ids"].tolist())}
        said.append(arrays["probabilities"][[line[image] for image in test]])
    target = read_head(tuned).target
    labels, groups = [row.label or "" for row in test.values()], [row.group for row in test.values()]
    figures, _, difference = target.compare(labels, said[0], said[1], groups)
    return Beside(pooled.name, figures, difference)
