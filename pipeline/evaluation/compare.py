"""Owns the rows that two models can be compared on, and their predictions there. Not the tests (paired_tests.py)."""

import json
import shlex
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from cache.errors import Unusable
from cache.store import FeatureStore
from pipeline.config import yaml_file
from pipeline.project.project import Options, Progress, Project
from pipeline.results import predictions, registry
from pipeline.results.model import Model
from pipeline.serving import recorded_model
from pipeline.serving.recorded_model import Inference
from stages.data.manifest import Manifest, Row
from stages.metrics.figures import Difference, Figures
from stages.targets.target import Target

_UNLABELLED = "without a label"
_SEEN = "in train or val of A or B"
_GROUP = "of a group in train or val of A or B"
_OTHER = "of a class they don't know"
_ROWLESS = {"A": "without a row for A", "B": "without a row for B"}


@dataclass(frozen=True)
class Comparison:
    """Two models on the same rows. `dropped` counts the other images by reason; `hints` are commands for more rows.

    out_of_fold: the rows are in train and val of both, each predicted by heads that were not fitted on its fold.
    """

    a: Model
    b: Model
    images: int
    groups: int
    dropped: Mapping[str, int]
    hints: Mapping[str, str]
    figures: tuple[Figures, Figures]
    difference: Difference
    out_of_fold: bool = False

    def to_json(self) -> dict[str, Any]:
        """`a` and `b` are names, keys and figures."""
        models = zip("ab", (self.a, self.b), self.figures, strict=True)
        return {
            **{name: getattr(self, name) for name in ("images", "groups", "dropped", "hints", "out_of_fold")},
            **{side: {"name": model.name, "key": model.key, "metrics": found} for side, model, found in models},
            "difference": self.difference.figures,
            "mcnemar": self.difference.mcnemar,
        }


def compare(path: Path, options: Options, progress: Progress, a: str, b: str) -> Comparison:
    """The models that `a` and `b` name, on today's labelled images that are not in a train or val set of either.

    Nor may an image be of a group that is there. Each model predicts from cached rows of its own base and settings;
    nothing is extracted or written. Where no image is left, two heads that were judged on the same folds are compared
    out of fold. Raises Unusable where their classes differ, or they have no such folds either.
    """
    today = Project(path, options, progress)
    models = {"A": registry.find(today.folder, a), "B": registry.find(today.folder, b)}
    classes, others = (tuple(model.record["classes"]) for model in models.values())
    if sorted(classes) != sorted(others):
        raise Unusable(
            f"{models['A']} has the classes {_few(classes)}, but {models['B']} has {_few(others)}",
            "only models of the same classes can be compared",
        )
    target, kind = models["A"].head.target, today.config.data.target.kind
    if {kind} != {model.head.target.kind for model in models.values()}:
        own = " and ".join(f"{model} predicts {model.head.target.kind}" for model in models.values())
        raise Unusable(
            f"{own}, but data.target.kind is {kind}", "only models of one kind, on labels of it, are compared"
        )
    today.manifest.check_labels()
    inferences = {side: Inference(recorded_model.restore(today, model), model) for side, model in models.items()}
    stores = {side: inference.stores(today.cache) for side, inference in inferences.items()}
    rows, dropped = _fair(today.manifest, [model.manifest() for model in models.values()], target, stores)
    hints = {side: _extraction(today, model) for side, model in models.items() if dropped.get(_ROWLESS[side])}
    if not rows:
        if shared := _judged_on_the_same_folds(models["A"], models["B"]):
            return _compare_rows(models["A"], models["B"], *shared, out_of_fold=True)
        reasons = "; ".join(f"{n:,} {reason}" for reason, n in dropped.items())
        advice = "label images that are new to both, or train both with a test split (data.split.test)"
        if hints:
            advice = "compute the missing rows: " + "; ".join(dict.fromkeys(hints.values()))
        raise Unusable(f"no image is left to compare {models['A']} and {models['B']} on: {reasons}", advice)
    ids = [row.id for row in rows]
    predicted = {side: inference.predict(today.cache, ids) for side, inference in inferences.items()}
    done = _compare_rows(models["A"], models["B"], rows, predicted["A"], predicted["B"])
    return replace(done, dropped=dropped, hints=hints)


def _compare_rows(
    a: Model, b: Model, rows: Sequence[Row], of_a: np.ndarray, of_b: np.ndarray, out_of_fold: bool = False
) -> Comparison:
    """Both on these rows, from predictions (n, columns), each in the order of its own target."""
    target, others = a.head.target, list(b.head.target)
    labels, groups = [row.label or "" for row in rows], [row.group for row in rows]
    of_b = of_b[:, [others.index(name) for name in target]]
    one, two, difference = target.compare(labels, of_a, of_b, groups)
    named = len({group for group in groups if group is not None})
    return Comparison(a, b, len(rows), named, {}, {}, (one, two), difference, out_of_fold)


def _judged_on_the_same_folds(a: Model, b: Model) -> tuple[list[Row], np.ndarray, np.ndarray] | None:
    """The rows of train and val with the probabilities of both, out of fold; None where rows or folds differ."""
    one, two = predictions.read_predictions(a), predictions.read_predictions(b)
    if one.folds is None or two.folds is None:
        return None
    mine, theirs = np.flatnonzero(one.folds >= 0), np.flatnonzero(two.folds >= 0)
    rows, others = [one.rows[int(i)] for i in mine], [two.rows[int(i)] for i in theirs]
    same = [(row.id, row.label) for row in rows] == [(row.id, row.label) for row in others]
    if not same or (one.folds[mine] != two.folds[theirs]).any():
        return None
    return rows, one.probabilities[mine], two.probabilities[theirs]


def _fair(
    today: Manifest, then: list[Manifest], target: Target, stores: Mapping[str, Sequence[FeatureStore]]
) -> tuple[list[Row], dict[str, int]]:
    """One row for each image that is new to both models and has a row for both; the others counted by reason."""
    ids, groups = _seen(today, then)
    groups_of: dict[str, set[str | None]] = defaultdict(set)
    samples: dict[str, Row] = {}
    for each in today.rows:
        groups_of[each.id].add(each.group)
    for each in today.samples:
        samples.setdefault(each.id, each)
    absent = {side: {i for store in taps for i in store.missing(today.ids)} for side, taps in stores.items()}
    rows, dropped = [], Counter[str]()
    for image in sorted(today.ids):  # as in samples, so that a test set has the interval it had when it was judged
        row = samples.get(image)
        rowless = [_ROWLESS[side] for side in absent if image in absent[side]]
        if row is None:
            dropped[_UNLABELLED] += 1
        elif image in ids:
            dropped[_SEEN] += 1
        elif groups_of[image] & groups:
            dropped[_GROUP] += 1
        elif not target.knows(row.label or ""):
            dropped[_OTHER] += 1
        elif rowless:
            dropped.update(rowless[:1])
        else:
            rows.append(row)
    return rows, dict(dropped)


def _seen(today: Manifest, then: list[Manifest]) -> tuple[set[str], set[str]]:
    """Ids in a train or val set of the models, and their groups, as named then and today."""
    fitted = [row for manifest in then for row in manifest.samples if row.split in ("train", "val")]
    ids = {row.id for row in fitted}
    named = [row.group for manifest in (today, *then) for row in manifest.rows if row.id in ids]
    return ids, {group for group in named if group is not None}


def _extraction(today: Project, model: Model) -> str:
    """The command that computes a model's missing rows of today's images."""
    then, now = model.record["config"], today.config.model_dump()
    fields = ("size", "fit", "resize", "decode", "numerics", "dtype")
    changed = {f"base.{n}": value for n, value in then["base"].items() if value != now["base"].get(n)}
    changed |= {
        f"extract.{n}": then["extract"][n]
        for n in fields
        if then["extract"].get(n, now["extract"][n]) != now["extract"][n]
    }
    todays, theirs = (_set_fields(settings["extract"]["taps"]) for settings in (now, then))
    if todays != {**todays, **theirs}:
        changed["extract.taps"] = {**todays, **theirs}
    sets = [f"{name}={yaml_file.format_value(value)}" for name, value in changed.items()]
    purpose: list[str] = []
    if recorded_model.is_finetuned(model):
        purpose = ["--for", model.name]
        if (tuned := {model.record["name"]: then["finetune"][model.record["name"]]}) != now["finetune"]:
            sets.append(f"finetune={json.dumps(tuned)}")
    return shlex.join(["pipeline", "run", "extract", *purpose, *(part for word in sets for part in ("--set", word))])


def _set_fields(taps: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """The fields of taps without those that are the project's."""
    return {tap: {name: value for name, value in fields.items() if value is not None} for tap, fields in taps.items()}


def _few(classes: tuple[str, ...]) -> str:
    return ", ".join(classes[:5]) + (f" and {len(classes) - 5} more" if len(classes) > 5 else "")
