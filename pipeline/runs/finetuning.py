"""Owns fine-tuned models: which exist, training the others, and what they gain over the frozen head.

Not the training (stages/finetune/training.py), nor where boundary rows come from (boundary_rows.py).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cache import atomic_files, keys, npz, records
from cache.errors import Unusable
from pipeline.config.finetune_schema import FineTune
from pipeline.project.project import Project
from pipeline.results import registry
from pipeline.results.model import FIELDS, read_head, read_tail
from pipeline.results.predictions import Predictions
from pipeline.runs import boundary_rows, finetune_report, finetune_start, provenance, train_heads
from pipeline.runs.boundary_rows import Plan
from pipeline.runs.finetune_report import FineTuneReport, TunedReport
from pipeline.runs.finetune_start import Start
from stages.data import augment
from stages.data.manifest import Manifest
from stages.extract import throughput
from stages.finetune.boundary_maps import Boundary
from stages.heads import average, labelled_rows
from stages.heads.average import Member
from stages.heads.fitted import Head
from stages.metrics.figures import Difference, Figures, Metrics
from stages.runtime.silent_imports import without_banners
from stages.targets import evaluate

if TYPE_CHECKING:
    from stages.finetune.network import Network

VERSION = 1
"""Version of the arithmetic of fine-tuning. Raise it when the same settings give another model."""

CHECKPOINT = "checkpoint.npz"
"""File in the folder of a model during training; removed once its record is written."""

Notify = Callable[[str], None]
"""Shows a line of text to the user during a run."""

Seed = int | None
"""Of a model; None is the average of the models of all seeds."""


@dataclass(frozen=True)
class Tuned:
    """A model in memory: the head, the trained weights of the base, and the predictions of each sample."""

    head: Head
    tail: Mapping[str, np.ndarray]
    predictions: np.ndarray
    metrics: Metrics


def run_finetune(project: Project, name: str, manifest: Manifest, plan: Plan | None, notify: Notify) -> FineTuneReport:
    """Train the missing models of that name, one per seed; their head is trained first if it is missing.

    With `average`, their mean is one more. `plan` None: it is made here if a model is missing. Raises Unusable if
    settings, labels or splits do not allow it; the seeds finished by then are kept.
    """
    tuning = Tuning(project, name, manifest, finetune_start.train_start(project, name, manifest))
    found = tuning.all_found()
    missing = [seed for seed in tuning.models if seed not in found]
    if missing:
        plan = plan or boundary_rows.plan_boundary(project, tuning.spec, manifest)
        if missing != [None]:
            tuning.estimate(notify)
        tuning.prepare(plan)
    reports = {seed: found.get(seed) or tuning.publish(seed, notify) for seed in tuning.models}
    done = finetune_report.summarize(reports, plan if missing else None, tuning.start.pooled)
    trial = project.is_trial("finetune", name)
    registry.record_latest(project.folder, f"finetune/{name}", done.winner.key, trial=trial)
    return done


def find_tuning(project: Project, name: str, manifest: Manifest) -> Tuning | None:
    """The fine-tuning of that name if its head exists, else None. Trains nothing."""
    try:
        start = finetune_start.find_start(project, name, manifest)
    except Unusable:  # reported for the head
        return None
    return None if start is None else Tuning(project, name, manifest, start)


def was_started(project: Project, name: str) -> bool:
    """Whether models/ has a result or checkpoint of that name, with any settings."""
    folder = project.folder / "models" / "finetune" / name
    return any(any(folder.glob(f"*/{file}")) for file in (records.RECORD, CHECKPOINT))


class Tuning:
    """One fine-tuning of a project: the head it starts from, its boundary, its samples."""

    def __init__(self, project: Project, name: str, manifest: Manifest, start: Start) -> None:
        self.project, self.name, self.manifest, self.start = project, name, manifest, start
        self.spec: FineTune = project.config.finetune[name]
        self.block = boundary_rows.first_trained_block(project, self.spec)
        self.target = start.target
        self.samples = manifest.samples
        self.numbers = {split: labelled_rows.rows_in_split(self.samples, split) for split in ("train", "val", "test")}
        self.models: list[Seed] = [*self.spec.seeds, *([None] if self.spec.average else [])]
        self._boundary: Boundary | None = None
        self._averaged: Boundary | None = None

    def folder(self, seed: Seed) -> Path:
        """The folder of the model of that seed."""
        if seed is None:
            members = [self.folder(each).name for each in self.spec.seeds]
            views = [view.key for view in boundary_rows.averaged_specs(self.project, self.spec)]
            return self.folder(self.spec.seeds[0]).with_name(
                keys.digest("average", {"version": VERSION, "members": members, "views": views})
            )
        # left out where it was 1 or there are no views, so that keys of existing models stay
        views_version = augment.VERSION if self.spec.views > 1 and augment.VERSION > 1 else None
        parts = {
            "version": VERSION,
            "views_version": views_version,
            "spec": self.spec.settings,
            "seed": seed,
            "boundary": boundary_rows.boundary_spec(self.project, self.spec).key,
            "head": self.start.key,
            "samples": self.manifest.samples_digest,
        }
        return self.project.folder / "models" / "finetune" / self.name / keys.digest("finetune", parts)

    def found(self, seed: Seed) -> TunedReport | None:
        folder = self.folder(seed)
        record = records.load_folder(folder, fields=FIELDS)
        if record is None:
            return None
        metrics = Metrics.from_json(records.read(folder / "metrics.json"))
        chosen = records.read(folder / "head.json")["chosen"]
        return self._report(seed, True, metrics, chosen, record["seconds"])

    def unfinished(self, seed: Seed) -> bool:
        """Whether there is only a checkpoint: training was stopped, or runs in another process."""
        folder = self.folder(seed)
        return (folder / CHECKPOINT).exists() and not (folder / records.RECORD).exists()

    def all_found(self) -> dict[Seed, TunedReport]:
        """The existing models, by seed."""
        return {seed: report for seed in self.models if (report := self.found(seed)) is not None}

    def estimate(self, notify: Notify) -> None:
        """Notify the user of what is trained, and how long an epoch takes in either mode."""
        train, val = (len(self.numbers[split]) for split in ("train", "val"))
        with without_banners():
            from stages.finetune import training
        seconds = training.time_epoch(self.spec, self._network, train, val)
        pace = throughput.seconds_per_image(self.project.store(self.start.spec.taps[0]).shard_records()) or 0.0
        notify(f"{self.name}: trains {self.block.name} and all after it on {train:,} images")
        notify(
            f"  an epoch: about {seconds:.1f} s from cached maps, {seconds + pace * (train + val):.1f} s in mode full"
        )

    def prepare(self, plan: Plan) -> None:
        """Open the boundary maps, computing missing rows first."""
        how = self.project, self.spec, self.samples, self.manifest, plan.mode
        self._boundary, self._averaged = boundary_rows.open_maps(*how)

    def publish(self, seed: Seed, notify: Notify) -> TunedReport:
        """Train, evaluate and save the model of that seed."""
        started, folder, logs = time.perf_counter(), self.folder(seed), self.spec.log_dir
        logs = logs and str(self.project.at(logs) / self.name / folder.name)
        if seed is None:
            places = map(self.folder, self.spec.seeds)
            tuned = self.average([(read_head(place), read_tail(place)) for place in places])
        else:
            tuned = self.train(seed, folder / CHECKPOINT, logs, notify)
        contents = {
            **tuned.head.to_files(),
            "tail.npz": npz.dump(tuned.tail),
            "metrics.json": records.dump(tuned.metrics.to_json()),
            **Predictions.of(self.samples, tuned.predictions, self.target, self.manifest).to_files(),
            "manifest.jsonl": self.manifest.to_bytes(),
        }
        seconds = round(time.perf_counter() - started, 3)
        records.publish_folder(folder, contents, self._record(seed, folder.name, seconds))
        atomic_files.remove(folder / CHECKPOINT)
        return self._report(seed, False, tuned.metrics, tuned.head.chosen, seconds)

    def train(
        self, seed: int, checkpoint: Path | None = None, logs: str | None = None, notify: Notify = lambda text: None
    ) -> Tuned:
        """Train and evaluate the model of that seed; training resumes from the file `checkpoint` if it exists."""
        assert self._boundary is not None
        with without_banners():
            from stages.finetune import training
        network = self._network
        targets = labelled_rows.encode(self.samples, self.target)
        data = training.Data(self._boundary, targets, self.numbers["train"], self.numbers["val"])
        frozen = self._frozen()
        network.reset()  # it has the weights of the seed before
        start = np.abs(network.predict(self._boundary, data.val) - frozen[data.val]).max()
        spec = self.spec.model_copy(update={"log_dir": logs})
        history = training.train(spec, seed, network, data, checkpoint, partial(self._watch, seed, notify))
        head = network.head({"epoch": history.best, "history": asdict(history)})
        predictions = head.predict(network.features(self._boundary, np.arange(len(self.samples))))
        metrics = replace(self._evaluate(predictions, frozen, seed), start=float(start))
        return Tuned(head, network.tail_arrays(), predictions, metrics)

    def average(self, members: Sequence[Member]) -> Tuned:
        """The mean of what the models of all seeds say of all averaged views, and its figures."""
        assert self._averaged is not None
        views, every = 1 + len(self.spec.averaged_views), np.arange(len(self.samples))
        predictions = self._network.mean_predictions(members, self._averaged, every, views)
        by_seed = zip(self.spec.seeds, members, strict=True)
        chosen = {"views": views, "members": [{"seed": seed, **head.chosen} for seed, (head, _) in by_seed]}
        head, tail = average.join(members, chosen)
        return Tuned(head, tail, predictions, self._evaluate(predictions, self._frozen(), self.spec.seeds[0]))

    @contextmanager
    def _watch(self, seed: int, notify: Notify, done: int) -> Iterator[Callable[[int], object]]:
        title, epochs = f"{self.name}, seed {seed}", self.spec.epochs
        if done:
            notify(f"{title}: resumes after epoch {done} of {epochs}, from its checkpoint")
        with self.project.progress(title, epochs, done) as advance:
            yield advance

    def _report(
        self, seed: Seed, hit: bool, metrics: Metrics, chosen: Mapping[str, Any], seconds: float
    ) -> TunedReport:
        folder = self.folder(seed)
        return TunedReport(folder.name, seed, hit, folder, metrics, seconds, chosen, self.spec.lr)

    def provenance(self) -> dict[str, Any]:
        """What is in no key but may change the last bits of a model."""
        plain = self.project.rows_of(boundary_rows.boundary_spec(self.project, self.spec))
        found = provenance.environment([plain], [row.id for row in self.samples], ("tensorflow", "keras"))
        return {**found, "finetune_version": VERSION}

    @cached_property
    def _network(self) -> Network:
        """One network for all seeds, each of which resets it."""
        with without_banners():
            from stages.finetune.network import Network
        spec = self.project.spec(self.start.spec.taps[0])
        file = self.project.weight_file(spec.recipe, self.project.options.offline)
        assert self.start.head is not None
        return Network(spec.recipe, file, self.block, spec.tap, self.start.head)

    def _frozen(self) -> np.ndarray:
        """The frozen head's predictions of each sample: (n, columns)."""
        assert self.start.head is not None
        features = train_heads.feature_matrix(self.project, self.start.spec, [row.id for row in self.samples])
        return train_heads.predict_blocks(self.start.head.predict, features, np.arange(len(features)), len(self.target))

    def _evaluate(self, predictions: np.ndarray, frozen: np.ndarray, seed: int) -> Metrics:
        """Metrics of the model and of the frozen head, and their paired difference."""
        metrics = evaluate.evaluate_splits(self.samples, predictions, self.target, seed)
        baseline: dict[str, Figures] = {}
        difference: dict[str, Difference] = {}
        for split in ("val", "test"):
            here = self.numbers[split]
            rows = [self.samples[i] for i in here]
            labels, groups = [row.label or "" for row in rows], [row.group for row in rows]
            baseline[split], _, difference[split] = self.target.compare(labels, frozen[here], predictions[here], groups)
        return replace(metrics, baseline=baseline, difference=difference)

    def _record(self, seed: Seed, key: str, seconds: float) -> dict[str, Any]:
        """record.json; `head` is the key of the head it started from, and config has that head's settings."""
        project, spec = self.project, self.spec
        tuned = spec if seed is None else spec.model_copy(update={"seeds": [seed], "average": False})
        config = project.config.model_copy(
            update={
                "heads": {**project.config.heads, spec.head: self.start.spec},
                "finetune": {**project.config.finetune, self.name: tuned},
            }
        )
        plain, *views = map(project.rows_of, boundary_rows.all_specs(project, tuned))
        stores = {tap: project.store(tap) for tap in self.start.spec.taps}
        stores |= {"boundary": plain, **{f"view {number}": store for number, store in enumerate(views, start=1)}}
        about = {
            "stage": "finetune",
            "name": self.name,
            "key": key,
            "head": self.start.key,
            "classes": list(self.target),
            "seed": seed,
            "seconds": seconds,
            "config": config.model_dump(),
            **self.provenance(),
        }
        return provenance.make_record(project, about, stores, self.manifest)
