"""Owns results: which head is already there, making the others, and the record that tells how.

Not the fitting (a module of stages/ for each kind), nor finding what was made before (registry.py).
"""

from __future__ import annotations

import logging
import subprocess
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from cache import records
from cache.errors import Unusable
from cache.store import FeatureStore
from pipeline.config.head_schema import HeadConfig
from pipeline.project.project import Project
from pipeline.results import predictions
from stages.data.manifest import Manifest, Row
from stages.heads import fitted
from stages.heads.fitted import Head
from stages.heads.matrix import FeatureMatrix
from stages.runtime import hardware
from stages.runtime.parallel import run_in_threads
from stages.runtime.silent_imports import without_banners

log = logging.getLogger(__name__)

_PACKAGES = ("frozenbase", "scikit-learn", "scipy", "numpy", "h5py")
KERAS = ("tensorflow", "keras")
PACKAGES = (*_PACKAGES, *KERAS)


@dataclass(frozen=True)
class HeadReport:
    """One head: whether it was there already, where it lies, its figures, and the classes that val or test lacks."""

    key: str
    hit: bool
    path: Path
    metrics: dict[str, Any]
    lacking: dict[str, list[str]]

    def to_json(self) -> dict[str, Any]:
        return {**vars(self), "path": str(self.path)}


@dataclass(frozen=True)
class Fitted:
    """A head in memory: the rows that are told of, and what it says of each; `metrics` as metrics.json has them."""

    head: Head
    rows: tuple[Row, ...]
    probabilities: np.ndarray
    metrics: dict[str, Any]


def run_head(project: Project, name: str, spec: HeadConfig, manifest: Manifest, classes: tuple[str, ...]) -> HeadReport:
    """Train a head of that name and those settings on cached rows, unless the very same one is there.

    `classes` is what `classes_for` returned. Raises Unusable where a head of that kind cannot be trained on the rows.
    """
    if there := find_head(project, name, spec, manifest, classes):
        return there
    folder = head_folder(project, name, spec, manifest, classes)
    key = folder.name
    started = time.perf_counter()
    log_dir = getattr(spec, "log_dir", None)
    watched = spec if log_dir is None else spec.model_copy(update={"log_dir": str(project.at(log_dir) / name / key)})
    fitted = fit_head(project, watched, manifest, classes)
    contents = {
        **fitted.head.to_files(),
        "metrics.json": records.dump(fitted.metrics),
        **predictions.Predictions.of(fitted.rows, fitted.probabilities, classes, manifest).to_files(),
        "manifest.jsonl": manifest.to_bytes(),
    }
    config = project.config.model_copy(update={"heads": {**project.config.heads, name: spec}})  # of a sweep, the point
    stores = {tap: project.store(tap) for tap in spec.taps}
    about = {
        "stage": "head",
        "name": name,
        "key": key,
        "classes": classes,
        "seed": spec.settings.get("seed"),
        "seconds": round(time.perf_counter() - started, 3),
        "config": config.model_dump(),
        **head_provenance(project, spec, [row.id for row in manifest.samples]),
    }
    records.publish_folder(folder, contents, make_record(project, about, stores, manifest))
    return HeadReport(key, False, folder, fitted.metrics, _lacking(manifest, classes))


def find_head(
    project: Project, name: str, spec: HeadConfig, manifest: Manifest, classes: tuple[str, ...]
) -> HeadReport | None:
    """The head of that name and those settings, if it is there. Nothing is trained."""
    folder = head_folder(project, name, spec, manifest, classes)
    if records.load_folder(folder) is None:
        return None
    metrics = records.read(folder / "metrics.json")
    return HeadReport(folder.name, True, folder, metrics, _lacking(manifest, classes))


def _lacking(manifest: Manifest, classes: Sequence[str]) -> dict[str, list[str]]:
    counts = manifest.counts()
    return {split: [label for label in classes if not counts[label][split]] for split in ("val", "test")}


def fit_head(project: Project, spec: HeadConfig, manifest: Manifest, classes: tuple[str, ...]) -> Fitted:
    """A head of those settings on cached rows. Writes nothing under models/."""
    samples = manifest.samples
    told = predictions.rows_to_keep(samples, classes)
    features = feature_matrix(project, spec, [row.id for row in samples])
    head = fit_kind(spec, features, samples, classes)
    probabilities = predict_blocks(head.probabilities, features, told, len(classes))
    rows = tuple(samples[i] for i in told)
    return Fitted(head, rows, probabilities, evaluate(rows, probabilities, classes, spec.seed))


def predict_blocks(
    head: Callable[[np.ndarray], np.ndarray], features: FeatureMatrix, where: np.ndarray, classes: int
) -> np.ndarray:
    """What `head` makes of the rows of those numbers, block by block: probabilities (len(where), classes)."""
    from threadpoolctl import threadpool_limits

    probabilities = np.empty((len(where), classes))

    def tell(some: np.ndarray) -> None:
        probabilities[some] = head(features.take(where[some]))

    with threadpool_limits(1, "blas"):  # the same to the last bit on any number of cores
        run_in_threads(tell, features.blocks(np.arange(len(where)), classes))
    return probabilities


def fit_kind(spec: HeadConfig, features: FeatureMatrix, rows: Sequence[Row], classes: Sequence[str]) -> Head:
    """A head of that kind, fitted on train and chosen on val; features and rows agree line by line."""
    with without_banners():
        kind = import_module(f"stages.heads.{spec.kind}")  # only here: that of `dense` is a TensorFlow room
    head: Head = kind.fit(spec, features, rows, classes)
    return head


def feature_matrix(project: Project, spec: HeadConfig, ids: Sequence[str]) -> FeatureMatrix:
    """What a head of those settings sees of the images `ids`. Raises NotAvailable where a row is absent."""
    return FeatureMatrix([project.store(tap).rows(ids) for tap in spec.taps])


def head_folder(project: Project, name: str, spec: HeadConfig, manifest: Manifest, classes: Sequence[str]) -> Path:
    """Where a head lies: models/head/<name>/<key>."""
    key = fitted.head_key(spec.settings, classes, [project.store(tap).key for tap in spec.taps], manifest)
    return project.folder / "models" / "head" / name / key


def check_classes(project: Project, manifest: Manifest) -> tuple[str, ...]:
    """The classes, in order, after checking that labels and splits can carry a head; else Unusable is raised."""
    check_leaks(project, manifest)
    classes = fitted.check_classes(manifest, project.config.data.classes)
    if without := sum(row.label is None for row in manifest.rows):
        log.warning("%d of %d images have no label; heads go without them", without, len(manifest.rows))
    return classes


def check_leaks(project: Project, manifest: Manifest) -> None:
    """Raises Unusable where the same bytes or a group stand in several splits, unless `data.on_leak` says to warn."""
    leaks = manifest.leaks()
    if leaks and project.config.data.on_leak == "fail":
        raise Unusable(
            f"the same bytes or groups stand in more than one split, which would flatter the figures: {leaks}",
            "keep each in one split, or accept it with data.on_leak: warn",
        )
    if leaks:
        log.warning("the same bytes or groups stand in more than one split: %s", leaks)


def evaluate(rows: Sequence[Row], probabilities: np.ndarray, classes: tuple[str, ...], seed: int) -> dict[str, Any]:
    """What metrics.json says: figures, intervals and details of val and test, and what is calibrated on val."""
    from stages.metrics import bootstrap, calibration, classification

    out: dict[str, Any] = {}
    splits = {}
    for split in ("val", "test"):
        here = [i for i, row in enumerate(rows) if row.split == split]
        labels, groups = [rows[i].label or "" for i in here], [rows[i].group for i in here]
        splits[split] = labels, probabilities[here]
        figures = bootstrap.metrics_with_intervals(*splits[split], classes, groups, seed)
        out[split] = {**figures, **classification.details(*splits[split], classes, groups)}
    return {**out, "calibration": calibration.fit_calibration(splits, classes)}


def make_record(
    project: Project, about: Mapping[str, Any], stores: Mapping[str, FeatureStore], manifest: Manifest
) -> dict[str, Any]:
    """How a result came about: `about` it, the rows behind it by what they are called, its images, and the code."""
    return {
        "schema": 1,
        **about,
        "extract": {name: {"key": store.key, **store.components} for name, store in stores.items()},
        "manifest": manifest.digest,
        "images": len(manifest.rows),
        "created": round(time.time(), 3),
        "git": _git(project.folder),
    }


def head_provenance(project: Project, spec: HeadConfig, ids: Sequence[str]) -> dict[str, Any]:
    """What is in no key but may move a last bit of a head."""
    packages = (*_PACKAGES, *(KERAS if spec.kind == "dense" else ()))
    return {**provenance_of([project.store(tap) for tap in spec.taps], ids, packages), "head_version": fitted.VERSION}


def provenance_of(
    stores: Sequence[FeatureStore], ids: Sequence[str], packages: Sequence[str] = PACKAGES
) -> dict[str, Any]:
    """Machines, libraries and code behind the rows of `ids`, and at work now."""
    made = [record for store in stores for record in store.shard_records(store.serving(ids))]
    made_with: dict[str, set[str]] = defaultdict(set)
    for record in made:
        for package, version in record.get("versions", {}).items():
            made_with[package].add(version)
    return {
        "rows_made_by": sorted({f"{r.get('engine')} on {r.get('device')}" for r in made}),
        "rows_versions": {package: sorted(found) for package, found in made_with.items()},
        "machine": hardware.cpu_name(),
        "blas": hardware.blas(),
        "versions": hardware.versions(packages),
    }


def _git(folder: Path) -> dict[str, Any] | None:
    """Commit of the repository that pipeline.yaml lies in, and whether it had changes; None outside of one."""

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", "-C", str(folder), *words], capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()

    try:
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain", "-uno"))}
    except (OSError, subprocess.SubprocessError):
        return None
