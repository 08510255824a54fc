"""Owns results: which head is already there, making the others, and the record that tells how.

Not the fitting (stages/heads.py), nor finding what was made before (registry.py).
"""

from __future__ import annotations

import csv
import io
import json
import logging
import subprocess
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cache import records
from cache.errors import Unusable
from cache.store import FeatureStore
from pipeline.graph import Project
from stages import heads, machine
from stages.heads import Head
from stages.manifest import Manifest, Row
from stages.scan import Reject

log = logging.getLogger(__name__)

_PACKAGES = ("frozenbase", "scikit-learn", "scipy", "numpy", "h5py")


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
    """A head in memory: the samples it saw, and for each of them what it says; `metrics` as metrics.json has them."""

    head: Head
    rows: tuple[Row, ...]
    probabilities: np.ndarray
    metrics: dict[str, Any]


def run_head(project: Project, name: str, manifest: Manifest) -> HeadReport:
    """Train the head of that name on cached rows, unless the very same one is there.

    Raises Unusable where the labels or splits cannot carry a head.
    """
    check_leaks(project, manifest)
    classes = heads.classes_of(manifest, project.config.data.classes)
    folder = folder_of(project, name, manifest, classes)
    key, counts = folder.name, manifest.counts()
    lacking = {split: [label for label in classes if not counts[label][split]] for split in ("val", "test")}
    if without := sum(row.label is None for row in manifest.rows):
        log.warning("%d of %d images have no label; heads go without them", without, len(manifest.rows))
    if records.load_folder(folder) is not None:
        return HeadReport(key, True, folder, json.loads((folder / "metrics.json").read_bytes()), lacking)
    started = time.perf_counter()
    fitted = fit(project, name, manifest, classes)
    contents = {
        **fitted.head.to_files(),
        "metrics.json": records.dump(fitted.metrics),
        "predictions.npz": _predictions(fitted),
        "manifest.jsonl": manifest.to_bytes(),
    }
    seconds = round(time.perf_counter() - started, 3)
    records.publish_folder(folder, contents, _record(project, name, key, manifest, classes, seconds))
    return HeadReport(key, False, folder, fitted.metrics, lacking)


def fit(project: Project, name: str, manifest: Manifest, classes: tuple[str, ...]) -> Fitted:
    """The head of that name on cached rows. Writes nothing."""
    from threadpoolctl import threadpool_limits

    spec, rows = project.config.heads[name], manifest.samples
    features = project.store(spec.tap).read([row.id for row in rows])
    head = heads.fit_logistic(features, rows, classes, spec.seed)
    with threadpool_limits(1, "blas"):  # the same to the last bit on any number of cores
        probabilities = head.probabilities(features)
    return Fitted(head, rows, probabilities, judge(rows, probabilities, classes, spec.seed))


def folder_of(project: Project, name: str, manifest: Manifest, classes: Sequence[str]) -> Path:
    """Where a head lies: models/head/<name>/<key>."""
    spec = project.config.heads[name]
    key = heads.key(spec.model_dump(exclude={"tap"}), classes, [project.store(spec.tap).key], manifest)
    return project.folder / "models" / "head" / name / key


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


def judge(rows: Sequence[Row], probabilities: np.ndarray, classes: tuple[str, ...], seed: int) -> dict[str, Any]:
    """What metrics.json says: figures, intervals and details of val and test, and what is calibrated on val."""
    from stages import calibrate, evaluate, intervals

    out: dict[str, Any] = {}
    splits = {}
    for split in ("val", "test"):
        here = [i for i, row in enumerate(rows) if row.split == split]
        labels, groups = [rows[i].label or "" for i in here], [rows[i].group for i in here]
        splits[split] = labels, probabilities[here]
        figures = intervals.judge(*splits[split], classes, groups, seed)
        out[split] = {**figures, **evaluate.details(*splits[split], classes, groups)}
    return {**out, "calibration": calibrate.calibration(splits, classes)}


def _predictions(fitted: Fitted) -> bytes:
    """ids and probabilities; paths are joined when they are written out, since files move."""
    buffer = io.BytesIO()
    np.savez(buffer, ids=np.array([row.id for row in fitted.rows]), probabilities=fitted.probabilities)
    return buffer.getvalue()


def _record(
    project: Project, name: str, key: str, manifest: Manifest, classes: tuple[str, ...], seconds: float
) -> dict[str, Any]:
    """How the result came about."""
    spec = project.config.heads[name]
    store = project.store(spec.tap)
    return {
        "schema": 1,
        "stage": "head",
        "name": name,
        "key": key,
        "classes": classes,
        "config": project.config.model_dump(),
        "extract": {spec.tap: {"key": store.key, **store.components}},
        **circumstances(store, [row.id for row in manifest.samples]),
        "manifest": manifest.digest,
        "images": len(manifest.rows),
        "seed": spec.seed,
        "seconds": seconds,
        "created": round(time.time(), 3),
        "git": _git(project.folder),
    }


def circumstances(store: FeatureStore, ids: Sequence[str]) -> dict[str, Any]:
    """What is in no key but may move a last bit: machines, libraries and code behind the rows and behind a fit now."""
    behind = store.provenance(ids)
    made_with: dict[str, set[str]] = defaultdict(set)
    for record in behind:
        for package, version in record.get("versions", {}).items():
            made_with[package].add(version)
    return {
        "rows_made_by": sorted({f"{r.get('engine')} on {r.get('device')}" for r in behind}),
        "rows_versions": {package: sorted(found) for package, found in made_with.items()},
        "machine": machine.cpu(),
        "blas": machine.blas(),
        "versions": machine.versions(_PACKAGES),
        "head_version": heads.VERSION,
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


def write_rejects(project: Project, rejected: Sequence[Reject]) -> None:
    """List rejects in rejects.csv beside pipeline.yaml; where there are none, an old list goes."""
    path = project.folder / "rejects.csv"
    try:
        if rejected:
            with open(path, "w", newline="", encoding="utf-8", errors="surrogateescape") as file:
                csv.writer(file).writerows([Reject._fields, *rejected])
        elif path.exists():
            path.unlink()
    except OSError as error:
        log.warning("the list of rejects is not up to date: %s: %s", path, error.strerror)
