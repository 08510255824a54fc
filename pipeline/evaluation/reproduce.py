"""Owns training a recorded model again, and comparing it with the recorded one. Not its table (show/).

Settings, labels, splits and ids come from the record; only places are today's: images are found by the SHA-256 of
their bytes below today's data.root, whatever their names.
"""

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from cache import registrations
from cache.errors import NotAvailable, PipelineError, Unusable
from pipeline.config.head_schema import HeadConfig
from pipeline.project.project import Options, Progress, Project
from pipeline.results import registry, unknown
from pipeline.results.model import Model
from pipeline.results.record_diff import Pair, find_differences, format_changes, pair_fields
from pipeline.runs import boundary_rows, extraction, train_heads
from pipeline.runs.finetune_start import Start, start_rows
from pipeline.runs.finetuning import Tuning
from pipeline.serving import recorded_model
from stages.data.manifest import Manifest, Row
from stages.extract import schedule
from stages.heads import labelled_rows
from stages.metrics.figures import NAMES, Metrics
from stages.targets.target import Target
from stages.unknown import fitting
from stages.unknown.distance import Unknown

log = logging.getLogger(__name__)


class NotReproduced(PipelineError):
    """The model that was trained again is not bitwise the same."""

    code = "not_reproduced"


@dataclass(frozen=True)
class Absent:
    """An image of the model that is left out: its path then, and why it has no row now."""

    id: str
    path: str
    reason: str


@dataclass
class Reproduction:
    """A model and the same trained again. `images` counts different labelled ones; `absent` were left out.

    `weights_difference` is the largest of any weight, None where the shapes differ. `metrics` has the fields of each
    part of metrics.json, without intervals, which follow from the rest; `differences` may explain what differs.
    """

    model: Model
    images: int
    computed: int
    absent: list[Absent]
    arrays_same: bool = False
    weights_difference: float | None = None
    metrics: dict[str, dict[str, Pair]] = field(default_factory=dict)
    differences: dict[str, Pair] = field(default_factory=dict)

    @property
    def metrics_same(self) -> bool:
        return all(pair.same for figures in self.metrics.values() for pair in figures.values())

    @property
    def reproduced(self) -> bool:
        return self.arrays_same and self.metrics_same

    def to_json(self) -> dict[str, Any]:
        return {
            **{name: value for name, value in vars(self).items() if name != "model"},
            "name": self.model.name,
            "key": self.model.key,
            "reproduced": self.reproduced,
            "metrics_same": self.metrics_same,
            "metrics": {
                split: {name: {**pair._asdict(), "difference": pair.difference} for name, pair in figures.items()}
                for split, figures in self.metrics.items()
            },
            "differences": {name: pair._asdict() for name, pair in self.differences.items()},
        }

    def check(self) -> None:
        """Raises NotReproduced, with how much differs and what may explain it, unless it is bitwise the same."""
        if self.reproduced:
            return
        reasons = [format_changes(self.differences)] if self.differences else []
        if self.absent:
            where = "if they lie elsewhere: --set data.root=DIR"
            reasons.insert(0, f"{len(self.absent)} of {self.images} images are absent ({where})")
        raise NotReproduced(
            f"{self.model} does not come out bitwise the same: {self._size()}",
            "what differs: " + "; ".join(reasons) if reasons else "nothing recorded differs: it is not deterministic",
        )

    def _size(self) -> str:
        gaps = [
            (abs(pair.difference), f"{split} {name}")
            for split, figures in self.metrics.items()
            for name, pair in figures.items()
            if name in NAMES and pair.difference
        ]
        metrics = f"metrics differ by up to {max(gaps)[0]:.2g} ({max(gaps)[1]})" if gaps else "the details differ"
        return f"{'the metrics are the same' if self.metrics_same else metrics}, the head {self.weights}"

    @property
    def weights(self) -> str:
        """How its weights differ, in words."""
        if self.arrays_same:
            return "is bitwise the same"
        if self.weights_difference is None:
            return "has other shapes"
        return f"has weights that differ by up to {self.weights_difference:.2g}"


def reproduce(path: Path, options: Options, progress: Progress, text: str, recompute: bool = False) -> Reproduction:
    """Train the model that `text` names again, on its own settings, labels and splits, and compare.

    Missing rows are computed into the cache; with `recompute`, all rows into a temporary one. Raises Unusable where
    today's code cannot make it, NotAvailable where too few of its images are left.
    """
    recorded_model.check_places(options.overrides)
    today = Project(path, options, progress)
    model = registry.find(today.folder, text)
    then = recorded_model.restore(today, model)
    name, target, full = model.record["name"], model.head.target, model.manifest()
    tuned = then.config.finetune[name] if recorded_model.is_finetuned(model) else None
    name = name if tuned is None else tuned.head
    spec = then.config.heads[name]
    if "log_dir" in type(spec).model_fields:
        spec = spec.model_copy(update={"log_dir": None})
    spec, _ = train_heads.choose_rows(then, spec, full)
    labelled = Manifest(tuple(row for row in full.rows if row.label is not None))
    keys = [part["key"] for part in model.record["extract"].values()]
    with recorded_model.temporary_cache(then) if recompute else registrations.running_job(then.cache.root, keys):
        computed, absent = _rows(then, today, labelled, spec.taps)
        left = labelled.without(row.id for row in absent)
        done = Reproduction(model, len(labelled.ids), computed, absent)
        try:
            if absent:
                if tuple(found := then.find_target(left)) != tuple(target):
                    raise Unusable(f"there are {', '.join(found)} where the model has {', '.join(target)}")
                labelled_rows.check_splits(left, spec.choose, target)
        except Unusable as error:
            raise NotAvailable(
                f"{len(absent)} of the {done.images} images of {model} cannot be found "
                f"(the first: {absent[0].path}), and without them: {error.message}",
                "name the folder where they are: --set data.root=DIR, or bring the cache that holds their rows",
            ) from error
        rows, every = (left, full) if tuned is None else (start_rows(spec, left), start_rows(spec, full))
        fitted = train_heads.fit_head(then, spec, rows, target)
        now, metrics, arrays = train_heads.head_environment(then, spec, rows.ids), fitted.metrics, fitted.head.arrays()
        arrays, metrics = _with_unknown(then, model, spec, rows, target, arrays, metrics)
        key = train_heads.head_folder(then, name, spec, every, target).name
        if tuned is not None:
            start = Start(fitted.head, key, spec, target)
            key, now, metrics, arrays = _tuned_again(then, today, model, full, left, start)
    distance = {} if model.unknown is None else model.unknown.distance.arrays()
    _compare_arrays(done, {**model.head.arrays(), **model.tail, **distance}, arrays)
    again = metrics.to_json()
    recorded = dict(model.metrics)
    if model.calibration.notes is None:  # fitted by an older rule, on however few images
        recorded.pop("calibration", None)
    figures = {part: then for part, then in recorded.items() if isinstance(then, Mapping)}
    done.metrics = {part: _pair_figures(then, again.get(part, {})) for part, then in figures.items()}
    known = {name: value for name, value in model.record.items() if name in now}  # older records have fewer fields
    done.differences = {name: pair for name, pair in find_differences(known, now).items() if pair.recorded is not None}
    if key != model.key:
        done.differences["head key" if tuned is None else "model key"] = Pair(model.key, key)
    return done


def _with_unknown(
    then: Project,
    model: Model,
    spec: HeadConfig,
    rows: Manifest,
    target: Target,
    arrays: dict[str, np.ndarray],
    metrics: Metrics,
) -> tuple[dict[str, np.ndarray], Metrics]:
    """Also what tells unknown images, fitted again, where the model has it; its figures alone, where it was deleted."""
    there, told = model.unknown, model.figures.unknown
    versions = {told.get("version", 1)} if told else set()
    versions |= set() if there is None else {there.distance.version}
    if not versions:
        return arrays, metrics
    features = train_heads.feature_matrix(then, spec, [row.id for row in rows.samples])
    fits = {version: fitting.fit(features, rows.samples, target, version) for version in versions}
    if None in fits.values():  # with the images that are left
        return arrays, metrics
    if there is not None and (again := fits[there.distance.version]) is not None:
        arrays = {**arrays, **again.arrays()}
    if told and (again := fits[told.get("version", 1)]) is not None:
        metrics = replace(metrics, unknown=unknown.figures(Unknown.at(again, spec.unknown), features, rows.samples))
    return arrays, metrics


def _tuned_again(
    then: Project, today: Project, model: Model, full: Manifest, left: Manifest, start: Start
) -> tuple[str, dict[str, Any], Metrics, dict[str, np.ndarray]]:
    """The fine-tuned model trained again from its head `start`: key, provenance, metrics and arrays."""
    name, seed = model.record["name"], model.record["seed"]
    spec = then.config.finetune[name]
    plan = boundary_rows.plan_boundary(then, spec, left)
    if plan.missing:
        places = {row.id: row.path for row in _files(today, set(left.ids))}
        left = Manifest(tuple(row._replace(path=places.get(row.id, row.path)) for row in left.rows))
    tuning = Tuning(then, name, left, start)
    tuning.prepare(plan)
    if seed is None:
        members = [tuning.train(each) for each in spec.seeds]
        again = tuning.average([(member.head, member.tail) for member in members])
    else:
        again = tuning.train(seed)
    key = Tuning(then, name, full, start).folder(seed).name
    return key, tuning.provenance(), again.metrics, {**again.head.arrays(), **again.tail}


def _rows(then: Project, today: Project, manifest: Manifest, names: Sequence[str]) -> tuple[int, list[Absent]]:
    """Compute the missing rows from today's files: how many were computed, and the images that have none."""
    specs = {spec.key: spec for spec in map(then.spec, names)}
    lacking = schedule.find_missing(then.cache, specs, manifest.ids)
    if not lacking:
        return 0, []
    files = _files(today, lacking)
    there = {row.id for row in files}
    receipt = extraction.compute_rows(
        then, Manifest(tuple(files)), specs, {i: lacking[i] for i in lacking if i in there}
    )
    reasons = {
        **dict.fromkeys(lacking.keys() - there, "no image below data.root has its bytes"),
        **dict(receipt.rejected),
    }
    paths = {row.id: row.path for row in manifest.rows}
    return receipt.rows, [Absent(image, paths[image], reasons[image]) for image in lacking if image in reasons]


def _files(today: Project, ids: Collection[str]) -> Sequence[Row]:
    """Today's images with those ids; none, with a warning, where they cannot be searched."""
    try:
        return today.rows_with_files(ids)
    except Unusable as error:
        log.warning("%d images have no row, and their files cannot be searched: %s", len(ids), error.message)
        return []


def _compare_arrays(done: Reproduction, before: dict[str, np.ndarray], after: dict[str, np.ndarray]) -> None:
    if {name: array.shape for name, array in before.items()} == {name: array.shape for name, array in after.items()}:
        pairs = [(array, after[name]) for name, array in before.items()]
        done.weights_difference = max(float(np.abs(a - b).max(initial=0)) for a, b in pairs)
        done.arrays_same = all(a.dtype == b.dtype and a.tobytes() == b.tobytes() for a, b in pairs)


def _pair_figures(then: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Pair]:
    """Those that were recorded, without intervals."""
    pairs = pair_fields(then, {name: now.get(name) for name in then})
    details = ("per_class.", "per_group.")
    return {name: pair for name, pair in pairs.items() if name.startswith(details) or "ci" not in name.split(".")}
