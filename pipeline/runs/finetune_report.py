"""Owns the reports of fine-tuned models: figures, seeds, notes on training. Not training (finetuning.py)."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.runs.boundary_rows import Plan
from stages.metrics.figures import Metrics

_SHOWN = 12
"""Epochs of a curve in a note."""


@dataclass(frozen=True)
class TunedReport:
    """One seed's model: whether it was there already, its folder, its figures, and the learning rate `lr` that was set.

    `chosen`, from head.json, has the epoch whose weights it has, 0 those before training, and the curves.
    """

    key: str
    seed: int
    hit: bool
    path: Path
    metrics: Metrics
    seconds: float
    chosen: Mapping[str, Any]
    lr: float

    @property
    def epoch(self) -> int:
        """The epoch whose weights it has; 0 is the frozen head."""
        return int(self.chosen["epoch"])

    @property
    def note(self) -> str | None:
        """A warning about its training, with advice; None where there is none."""
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
            curve = f"val log-loss from epoch 0 on: {curve}"
            return f"training gained nothing: {best} ({curve}); {lower}, or unfreeze fewer blocks"
        return None

    def to_json(self) -> dict[str, Any]:
        own = self.metrics.to_json()
        frozen = {name: own.pop(name) for name in ("baseline", "difference")}
        about = {name: value for name, value in vars(self).items() if name not in ("chosen", "lr")}
        return {**about, "path": str(self.path), "epoch": self.epoch, "note": self.note, "metrics": own, **frozen}


@dataclass(frozen=True)
class FineTuneReport:
    """The models of all seeds; `plan` is None where all existed."""

    seeds: Mapping[int, TunedReport]
    plan: Plan | None

    @property
    def winner(self) -> TunedReport:
        """The best on val."""
        return min(self.seeds.values(), key=lambda report: report.metrics.rank)

    def to_json(self) -> dict[str, Any]:
        """The best on val, and all seeds."""
        own = {**self.winner.to_json(), "hit": all(report.hit for report in self.seeds.values())}
        return {**own, "plan": self.plan and vars(self.plan), "seeds": [r.to_json() for r in self.seeds.values()]}
