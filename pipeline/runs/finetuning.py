"""Owns results of fine-tuning: which are there, making the others, and what they gain over the frozen head.

Not the training (stages/finetune/training.py), nor where boundary rows come from (boundary_rows.py).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cache import atomic_files, keys, npz, records
from cache.errors import Unusable
from pipeline.config.finetune_schema import FineTune
from pipeline.config.head_schema import HeadConfig
from pipeline.project.project import Project
from pipeline.results import registry
from pipeline.results.model import read_head
from pipeline.results.predictions import Predictions
from pipeline.runs import boundary_rows, provenance, sweeps, train_heads
from pipeline.runs.boundary_rows import Plan
from pipeline.runs.finetune_report import FineTuneReport, TunedReport
from pipeline.runs.sweeps import SweepReport
from pipeline.runs.train_heads import HeadReport
from stages.bases import weights
from stages.data import augment
from stages.data.manifest import Manifest
from stages.extract import throughput
from stages.finetune.boundary_maps import Boundary
from stages.heads import labelled_rows
from stages.heads.fitted import Head
from stages.metrics import paired_tests
from stages.runtime.silent_imports import without_banners

if TYPE_CHECKING:
    from stages.finetune.network import Network

VERSION = 1
"""Of the arithmetic of fine-tuning. Raise it when the same settings give another model."""

CHECKPOINT = "checkpoint.npz"
"""In the folder of a model while it is trained; the record comes when it is done."""

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Start:
    """The head that training starts from, its key and its settings: of a sweep, those of the best point."""

    head: Head
    key: str
    spec: HeadConfig


@dataclass(frozen=True)
class Tuned:
    """A model in memory: the head, what was trained of the base, and what both say of each sample."""

    head: Head
    tail: Mapping[str, np.ndarray]
    probabilities: np.ndarray
    metrics: dict[str, Any]


def run_finetune(project: Project, name: str, manifest: Manifest, plan: Plan | None, tell: Tell) -> FineTuneReport:
    """Train the model of that name for each of its seeds, unless it is there; its head is trained first.

    `plan` None: they were thought to be there; it is made where they are not.

    Raises Unusable where the settings, labels or splits cannot carry it. Seeds that are done by then are kept.
    """
    tuning = Tuning(project, name, manifest, start_of(project, name, manifest))
    found = {seed: tuning.found(seed) for seed in tuning.spec.seeds}
    if all(found.values()):
        plan = None
    else:
        plan = plan or boundary_rows.plan_boundary(project, tuning.spec, manifest)
        tuning.estimate(tell)
        tuning.prepare(plan)
    done = FineTuneReport({seed: report or tuning.publish(seed, tell) for seed, report in found.items()}, plan)
    registry.record_latest(project.folder, f"finetune/{name}", done.winner.key)
    return done


def find_tuning(project: Project, name: str, manifest: Manifest) -> Tuning | None:
    """The fine-tuning of that name, from a head that is there; None where it is not, or cannot be.

    Nothing is trained.
    """
    of = project.config.finetune[name].head
    try:
        classes = labelled_rows.check_classes(manifest, project.config.data.classes)
        found = sweeps.find_points(project, of, manifest, classes)
        ready = found.points and not found.missing
        return Tuning(project, name, manifest, _start(project, of, found)) if ready else None
    except Unusable:  # which is for the head to say
        return None


def was_started(project: Project, name: str) -> bool:
    """Whether a fine-tuning of that name ever ended here, or left a checkpoint, whatever of."""
    folder = project.folder / "models" / "finetune" / name
    return any(any(folder.glob(f"*/{file}")) for file in (records.RECORD, CHECKPOINT))


def start_of(project: Project, name: str, manifest: Manifest) -> Start:
    """The head that the fine-tuning of that name starts from; it is trained where it is not there."""
    of = project.config.finetune[name].head
    return _start(project, of, sweeps.run_sweep(project, of, manifest))


def _start(project: Project, of: str, done: HeadReport | SweepReport) -> Start:
    point, report = done.ranked()[0] if isinstance(done, SweepReport) else ("", done)
    return Start(read_head(report.path), report.key, project.config.heads[of].points()[point])


class Tuning:
    """One fine-tuning of a project: where it starts, its boundary, its samples."""

    def __init__(self, project: Project, name: str, manifest: Manifest, start: Start) -> None:
        self.project, self.name, self.manifest, self.start = project, name, manifest, start
        self.spec: FineTune = project.config.finetune[name]
        self.block = boundary_rows.first_trained_block(project, self.spec)
        self.classes = start.head.classes
        self.samples = manifest.samples
        self.numbers = {split: labelled_rows.rows_in_split(self.samples, split) for split in ("train", "val", "test")}
        self._boundary: Boundary | None = None

    def folder(self, seed: int) -> Path:
        """The folder of the model of that seed."""
        views_version = (
            augment.VERSION if self.spec.views > 1 and augment.VERSION > 1 else None
        )  # so that old keys stay
        parts = {
            "version": VERSION,
            "views_version": views_version,
            "spec": self.spec.settings,
            "seed": seed,
            "boundary": boundary_rows.view_stores(self.project, self.spec)[0].key,
            "head": self.start.key,
            "samples": self.manifest.samples_digest,
        }
        return self.project.folder / "models" / "finetune" / self.name / keys.digest("finetune", parts)

    def found(self, seed: int) -> TunedReport | None:
        folder = self.folder(seed)
        record = records.load_folder(folder)
        if record is None:
            return None
        metrics, chosen = records.read(folder / "metrics.json"), records.read(folder / "head.json")["chosen"]
        return self._report(seed, True, metrics, chosen, record["seconds"])

    def unfinished(self, seed: int) -> bool:
        """Whether it has a checkpoint alone: its training was stopped, or goes on elsewhere."""
        folder = self.folder(seed)
        return (folder / CHECKPOINT).exists() and not (folder / records.RECORD).exists()

    def all_found(self) -> dict[int, TunedReport]:
        """The models that are there, by seed."""
        return {seed: report for seed in self.spec.seeds if (report := self.found(seed)) is not None}

    def estimate(self, tell: Tell) -> None:
        """Tell what is trained, and how long an epoch takes in either mode."""
        train, val = (len(self.numbers[split]) for split in ("train", "val"))
        with without_banners():
            from stages.finetune import training
        seconds = training.time_epoch(self.spec, self._network, train, val)
        pace = throughput.seconds_per_image(self.project.store(self.start.spec.taps[0]).shard_records()) or 0.0
        tell(f"{self.name}: {self.block.name} and what follows are trained on {train:,} images")
        tell(f"  an epoch: about {seconds:.1f} s from cached maps, {seconds + pace * (train + val):.1f} s in mode full")

    def prepare(self, plan: Plan) -> None:
        """Have the boundary maps at hand."""
        if plan.mode == "cached":
            boundary_rows.compute_missing(self.project, self.spec, self.manifest)
            self._boundary = boundary_rows.cached_maps(self.project, self.spec, self.samples, self.numbers["train"])
        else:
            self._boundary = boundary_rows.computed_maps(self.project, self.spec, self.samples, self.manifest)

    def publish(self, seed: int, tell: Tell) -> TunedReport:
        """Train and judge the model of that seed, and keep it."""
        started, folder = time.perf_counter(), self.folder(seed)
        tuned = self.train(seed, folder / CHECKPOINT, self._logs(folder), tell)
        contents = {
            **tuned.head.to_files(),
            "tail.npz": npz.dump(tuned.tail),
            "metrics.json": records.dump(tuned.metrics),
            **Predictions.of(self.samples, tuned.probabilities, self.classes, self.manifest).to_files(),
            "manifest.jsonl": self.manifest.to_bytes(),
        }
        seconds = round(time.perf_counter() - started, 3)
        records.publish_folder(folder, contents, self._record(seed, folder.name, seconds))
        atomic_files.remove(folder / CHECKPOINT)
        return self._report(seed, False, tuned.metrics, tuned.head.chosen, seconds)

    def train(
        self, seed: int, checkpoint: Path | None = None, logs: str | None = None, tell: Tell = lambda text: None
    ) -> Tuned:
        """The model of that seed, judged; training goes on from the file `checkpoint`, if there is one."""
        assert self._boundary is not None
        with without_banners():
            from stages.finetune import training
        network = self._network
        everything = np.arange(len(self.samples))
        data = training.Data(
            self._boundary,
            labelled_rows.target_columns(self.samples, self.classes),
            self.numbers["train"],
            self.numbers["val"],
        )
        frozen = self._frozen()
        network.reset()  # another seed has trained it
        start = np.abs(network.probabilities(self._boundary, data.val) - frozen[data.val]).max()
        spec = self.spec.model_copy(update={"log_dir": logs})
        history = training.train(spec, seed, network, data, checkpoint, partial(self._watch, seed, tell))
        head = network.head({"epoch": history.best, "history": history.to_json()})
        probabilities = head.probabilities(network.features(self._boundary, everything))
        metrics = {**self._judge(probabilities, frozen, seed), "start": {"difference": float(start)}}
        return Tuned(head, network.tail_arrays(), probabilities, metrics)

    @contextmanager
    def _watch(self, seed: int, tell: Tell, done: int) -> Iterator[Callable[[int], object]]:
        title, epochs = f"{self.name}, seed {seed}", self.spec.epochs
        if done:
            tell(f"{title}: goes on after epoch {done} of {epochs}, from its checkpoint")
        with self.project.progress(title, epochs, done) as advance:
            yield advance

    def _report(
        self, seed: int, hit: bool, metrics: Mapping[str, Any], chosen: Mapping[str, Any], seconds: float
    ) -> TunedReport:
        folder = self.folder(seed)
        return TunedReport(folder.name, seed, hit, folder, metrics, seconds, chosen, self.spec.lr)

    def circumstances(self) -> dict[str, Any]:
        """What is in no key but may move a last bit."""
        plain = boundary_rows.view_stores(self.project, self.spec)[0]
        found = provenance.environment([plain], [row.id for row in self.samples], ("tensorflow", "keras"))
        return {**found, "finetune_version": VERSION}

    @cached_property
    def _network(self) -> Network:
        """One for all seeds: each resets it."""
        with without_banners():
            from stages.finetune.network import Network
        project, tap = self.project, self.project.tap(self.start.spec.taps[0])
        file = weights.ensure_file(project.base, project.weights, project.options.offline)
        return Network(project.recipe, file, self.block, tap, self.start.head)

    def _frozen(self) -> np.ndarray:
        """What the frozen head says of each sample: (n, classes)."""
        features = train_heads.feature_matrix(self.project, self.start.spec, [row.id for row in self.samples])
        return train_heads.predict_blocks(
            self.start.head.probabilities, features, np.arange(len(features)), len(self.classes)
        )

    def _logs(self, folder: Path) -> str | None:
        """The folder of this model's logs."""
        return self.spec.log_dir and str(self.project.at(self.spec.log_dir) / self.name / folder.name)

    def _judge(self, probabilities: np.ndarray, frozen: np.ndarray, seed: int) -> dict[str, Any]:
        """metrics.json: figures of the model, those of the frozen head, and how far apart they are."""
        metrics = train_heads.evaluate(self.samples, probabilities, self.classes, seed)
        baseline, difference = {}, {}
        for split in ("val", "test"):
            here = self.numbers[split]
            rows = [self.samples[i] for i in here]
            labels, groups = [row.label or "" for row in rows], [row.group for row in rows]
            both = paired_tests.compare(labels, frozen[here], probabilities[here], self.classes, groups)
            baseline[split] = both["a"]
            difference[split] = {**both["difference"], "mcnemar": both["mcnemar"]}
        return {**metrics, "baseline": baseline, "difference": difference}

    def _record(self, seed: int, key: str, seconds: float) -> dict[str, Any]:
        """How the model came about; `head` is the one it started from, whose settings are those of a sweep's best."""
        project, spec = self.project, self.spec
        tuned = spec.model_copy(update={"seeds": [seed]})
        config = project.config.model_copy(
            update={
                "heads": {**project.config.heads, spec.head: self.start.spec},
                "finetune": {**project.config.finetune, self.name: tuned},
            }
        )
        plain, *views = boundary_rows.view_stores(project, spec)
        stores = {tap: project.store(tap) for tap in self.start.spec.taps}
        stores |= {"boundary": plain, **{f"view {number}": store for number, store in enumerate(views, start=1)}}
        about = {
            "stage": "finetune",
            "name": self.name,
            "key": key,
            "head": self.start.key,
            "classes": self.classes,
            "seed": seed,
            "seconds": seconds,
            "config": config.model_dump(),
            **self.circumstances(),
        }
        return provenance.make_record(project, about, stores, self.manifest)
