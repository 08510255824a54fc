"""Owns training the heads in pipeline.yaml: finding the cached one, fitting, evaluating and saving it.

Not the arithmetic (one module of stages/heads for each kind), nor finding a model by its name (registry.py).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from cache import records
from cache.errors import NotAvailable, Unusable, Unwritable
from pipeline.config.head_schema import HEAD_KINDS, HeadConfig
from pipeline.project.project import Project
from pipeline.results import predictions, unknown
from pipeline.runs import provenance
from stages.data.manifest import Manifest, Row
from stages.heads import fitted, labelled_rows, selection
from stages.heads.fitted import Head, OutOfFold
from stages.heads.matrix import FeatureMatrix
from stages.metrics import kfold
from stages.metrics.figures import Metrics
from stages.runtime.parallel import run_in_threads
from stages.runtime.silent_imports import without_banners
from stages.targets import evaluate
from stages.targets.target import Target
from stages.unknown.distance import Distance, Unknown

log = logging.getLogger(__name__)

MOST_FOLDED = 5_000
"""Images of train and val up to which `choose: auto` takes folds, where the user gave no val."""


@dataclass(frozen=True)
class HeadReport:
    """One head: whether it was cached, its folder and metrics, and the classes without an image in val or test."""

    key: str
    hit: bool
    path: Path
    metrics: Metrics
    lacking: dict[str, list[str]]

    def to_json(self) -> dict[str, Any]:
        return {**vars(self), "path": str(self.path)}

    @property
    def chosen(self) -> dict[str, Any]:
        """What val chose, as C, alpha, k or epoch; without what it was chosen among."""
        found = records.read(self.path / "head.json")["chosen"]
        return {name: value for name, value in found.items() if not isinstance(value, dict | list)}


@dataclass(frozen=True)
class Fitted:
    """A head in memory: rows whose predictions are kept, their predictions, and `metrics` as in metrics.json.

    folds: those of the rows, -1 outside of folds; None where val chose.
    """

    head: Head
    rows: tuple[Row, ...]
    predictions: np.ndarray
    metrics: Metrics
    folds: np.ndarray | None = None


def run_head(project: Project, name: str, spec: HeadConfig, manifest: Manifest, target: Target) -> HeadReport:
    """Train a head of that name and those settings on cached rows, unless it is cached.

    `target` is what `check_target` returned. Raises Unusable where such a head cannot be trained on the rows.
    """
    spec, manifest = choose_rows(project, spec, manifest)
    labelled_rows.check_splits(manifest, spec.choose, target)
    if cached := find_head(project, name, spec, manifest, target):
        places = _unknown_folders(project, spec, manifest, target, cached.metrics.unknown)
        if spec.unknown and unknown.find(places) is None:  # of an older head
            try:
                _find_or_fit(project, spec, manifest, target)
            except NotAvailable:
                pass  # it is not refused where its rows are not there
            except Unwritable as why:
                log.warning("head %s cannot tell unknown images yet: %s", name, why.message)
        return cached
    folder = head_folder(project, name, spec, manifest, target)
    key = folder.name
    started = time.perf_counter()
    log_dir = getattr(spec, "log_dir", None)
    logged = spec if log_dir is None else spec.model_copy(update={"log_dir": str(project.at(log_dir) / name / key)})
    done = fit_head(project, logged, manifest, target)
    metrics = replace(done.metrics, unknown=tell_unknown(project, spec, manifest, target))
    contents = {
        **done.head.to_files(),
        "metrics.json": records.dump(metrics.to_json()),
        **predictions.Predictions.of(done.rows, done.predictions, target, manifest, done.folds).to_files(),
        "manifest.jsonl": manifest.to_bytes(),
    }
    config = project.config.model_copy(update={"heads": {**project.config.heads, name: spec}})  # a sweep's point
    stores = {tap: project.store(tap) for tap in spec.taps}
    about = {
        "stage": "head",
        "name": name,
        "key": key,
        "classes": list(target),
        "seed": spec.settings.get("seed"),
        "seconds": round(time.perf_counter() - started, 3),
        "config": config.model_dump(),
        **head_environment(project, spec, [row.id for row in manifest.samples]),
    }
    records.publish_folder(folder, contents, provenance.make_record(project, about, stores, manifest))
    return HeadReport(key, False, folder, metrics, _lacking(manifest, target))


def find_head(project: Project, name: str, spec: HeadConfig, manifest: Manifest, target: Target) -> HeadReport | None:
    """The cached head of that name and those settings, if there is one. Nothing is trained."""
    spec, manifest = choose_rows(project, spec, manifest)
    folder = head_folder(project, name, spec, manifest, target)
    if records.load_folder(folder) is None:
        return None
    metrics = Metrics.from_json(records.read(folder / "metrics.json"))
    return HeadReport(folder.name, True, folder, metrics, _lacking(manifest, target))


def choose_rows(project: Project, spec: HeadConfig, manifest: Manifest) -> tuple[HeadConfig, Manifest]:
    """How the settings of such a head are chosen, `choose` being folds or val; for folds, train and val are one.

    auto: val where the user made one, where folds cannot judge (a class has one image), and above MOST_FOLDED images;
    else folds, which leave every image of train and val to the fit.
    """
    choose = spec.choose
    if choose == "auto":
        pooled = manifest.pooled
        rows = [row for row in pooled.samples if row.split == "train"]
        few = len(rows) <= MOST_FOLDED and _are_foldable(project, rows)
        choose = "folds" if HEAD_KINDS[spec.kind].folds and few and not project.has_own_val else "val"
    resolved = spec.model_copy(update={"choose": choose})
    return resolved, manifest.pooled if choose == "folds" else manifest


def _are_foldable(project: Project, rows: Sequence[Row]) -> bool:
    strata = project.strata(rows)
    return len(rows) * len(strata.members) <= selection.MOST_CELLS and not kfold.find_unfoldable(rows, strata)


def check_rows(project: Project, spec: HeadConfig, manifest: Manifest, target: Target) -> None:
    """Raises Unusable where splits don't allow a head of those settings."""
    resolved, rows = choose_rows(project, spec, manifest)
    labelled_rows.check_splits(rows, resolved.choose, target)


def _lacking(manifest: Manifest, target: Target) -> dict[str, list[str]]:
    if not target.exclusive:
        return {}
    counts = manifest.counts(counted=target.counted)
    has_val = any(by_split["val"] for by_split in counts.values())
    splits = ("val", "test") if has_val else ("test",)
    return {split: [label for label in target if not counts.get(label, {}).get(split)] for split in splits}


def fit_head(project: Project, spec: HeadConfig, manifest: Manifest, target: Target) -> Fitted:
    """A head of those settings on cached rows. Writes nothing under models/.

    Predictions of train are out of fold where folds chose; of a choice among heads, those that are nested.
    """
    spec, manifest = choose_rows(project, spec, manifest)
    samples = manifest.samples
    kept = predictions.rows_to_keep(samples, target, spec.choose == "folds")
    features = feature_matrix(project, spec, [row.id for row in samples])
    head = fit_kind(spec, features, samples, target)
    found = predict_blocks(head.predict, features, kept, len(target))
    rows, own = tuple(samples[i] for i in kept), head.out_of_fold
    if own is None:
        return Fitted(head, rows, found, evaluate.evaluate_splits(rows, found, target, spec.seed))
    train, folds = labelled_rows.rows_in_split(rows, "train"), np.full(len(rows), -1)
    found[train], folds[train] = own.predictions, own.folds
    metrics = evaluate.evaluate_splits(rows, found, target, spec.seed, own.folds)
    if nested := nest_kind(spec, features, samples, target):
        found[train], folds[train] = nested.predictions, nested.folds
        judged = [rows[i] for i in train]
        metrics = evaluate.judge_choice(metrics, judged, nested.predictions, target, spec.seed, nested.folds, "nested")
    return Fitted(head, rows, found, metrics, folds)


def tell_unknown(project: Project, spec: HeadConfig, manifest: Manifest, target: Target) -> dict[str, Any]:
    """Find or fit what tells images that are unknown to such a head; its figures, as metrics.json has them."""
    if not spec.unknown:
        return {}
    distance, features = _find_or_fit(project, spec, manifest, target)
    found = None if distance is None else Unknown.at(distance, spec.unknown)
    return unknown.figures(found, features, manifest.samples)


def _find_or_fit(
    project: Project, spec: HeadConfig, manifest: Manifest, target: Target
) -> tuple[Distance | None, FeatureMatrix]:
    """With the rows that it was fitted to."""
    features = feature_matrix(project, spec, [row.id for row in manifest.samples])
    *_, today = _unknown_folders(project, spec, manifest, target, {})
    return unknown.find_or_fit(today, features, manifest.samples, target), features


def _unknown_folders(
    project: Project, spec: HeadConfig, manifest: Manifest, target: Target, figures: Mapping[str, Any]
) -> list[Path]:
    keys = [project.store(tap).key for tap in spec.taps]
    return unknown.folders(project.folder, keys, manifest, target, figures)


def predict_blocks(
    predict: Callable[[np.ndarray], np.ndarray], features: FeatureMatrix, where: np.ndarray, columns: int
) -> np.ndarray:
    """`predict` on the rows of those numbers, block by block: (len(where), columns)."""
    from threadpoolctl import threadpool_limits

    out = np.empty((len(where), columns))

    def fill(block: np.ndarray) -> None:
        out[block] = predict(features.take(where[block]))

    with threadpool_limits(1, "blas"):  # the same to the last bit on any number of cores
        run_in_threads(fill, features.blocks(np.arange(len(where)), columns))
    return out


def fit_kind(spec: HeadConfig, features: FeatureMatrix, rows: Sequence[Row], target: Target) -> Head:
    """A head of that kind, fitted on train and chosen on val; line i of features is rows[i]."""
    with without_banners():
        module = import_module(HEAD_KINDS[spec.kind].module)  # only here: some import TensorFlow
    head: Head = module.fit(spec, features, rows, target)
    return head


def nest_kind(spec: HeadConfig, features: FeatureMatrix, rows: Sequence[Row], target: Target) -> OutOfFold | None:
    """Of a head that folds chose: out of fold by its whole choice among heads; None where that is not nested."""
    if not HEAD_KINDS[spec.kind].nests:
        return None
    with without_banners():
        found: OutOfFold | None = import_module(HEAD_KINDS[spec.kind].module).nest(spec, features, rows, target)
    return found


def feature_matrix(project: Project, spec: HeadConfig, ids: Sequence[str]) -> FeatureMatrix:
    """The features that such a head takes, of the images `ids`. Raises NotAvailable where a row is missing."""
    return FeatureMatrix([project.store(tap).rows(ids) for tap in spec.taps])


def head_folder(project: Project, name: str, spec: HeadConfig, manifest: Manifest, target: Target) -> Path:
    """The folder of a head: models/head/<name>/<key>."""
    spec, manifest = choose_rows(project, spec, manifest)
    taps, choosing = [project.store(tap).key for tap in spec.taps], HEAD_KINDS[spec.kind].choosing
    key = fitted.head_key(spec.settings, target, taps, manifest, choosing)
    return project.folder / "models" / "head" / name / key


def check_target(project: Project, manifest: Manifest) -> Target:
    """What heads predict. Raises Unusable where labels or splits do not allow a head."""
    check_leaks(project, manifest)
    target = project.find_target(manifest)
    if without := sum(row.label is None for row in manifest.rows):
        log.warning("%d of %d images have no label; heads leave them out", without, len(manifest.rows))
    return target


def check_leaks(project: Project, manifest: Manifest) -> None:
    """Raises Unusable where the same bytes or a group are in several splits; with `data.on_leak: warn`, warns."""
    leaks = manifest.leaks
    if leaks and project.config.data.on_leak == "fail":
        raise Unusable(
            f"the same bytes or groups are in more than one split, which makes figures too good: {leaks}",
            "keep each in one split, or accept it with data.on_leak: warn",
        )
    if leaks:
        log.warning("the same bytes or groups are in more than one split: %s", leaks)


def head_environment(project: Project, spec: HeadConfig, ids: Sequence[str]) -> dict[str, Any]:
    """What is in no key but may change a last bit of a head."""
    stores = [project.store(tap) for tap in spec.taps]
    return {**provenance.environment(stores, ids, spec.packages), "head_version": fitted.VERSION}
