"""Owns making a recorded model again, beside itself. Not judging it (reproduction.py); writes nothing under models/.

What counts is in the record: settings, labels, splits, ids. Only where things lie is today's: the images are found by
the SHA-256 of their bytes wherever pipeline.yaml has its images now, whatever they are called.
"""

from __future__ import annotations

import contextlib
import logging
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cache import roots
from cache.errors import NotAvailable, PipelineError, Unusable
from cache.store import Cache
from pipeline import config as configuration
from pipeline import graph, models, registry
from pipeline.differences import Pair, beside, differ
from pipeline.graph import Options, Progress, Project
from pipeline.head_config import HeadConfig
from pipeline.registry import Model
from pipeline.reproduction import Absent, Reproduction, said
from stages import bases, extract, heads, weights
from stages.bases import Base
from stages.heads import Head
from stages.manifest import Manifest, Row
from stages.weights import Weights

_PLACES = ("data.root", "data.table", "data.columns", "base.weights", "cluster", "cache")

log = logging.getLogger(__name__)


def reproduce(path: Path, options: Options, progress: Progress, text: str, recompute: bool = False) -> Reproduction:
    """Make the model that `text` names again, on its own settings, labels and splits, and compare.

    Rows come from the cache, and are computed into it where they are missing; with `recompute`, all are computed into
    a temporary one. Raises Unusable where today's code cannot make it, NotAvailable where too little of it is left.
    """
    for override in options.overrides:
        if not override.startswith(_PLACES):
            raise Unusable(
                f"--set {override}: a model is made again on its own settings",
                f"only where things lie can be set here: {', '.join(_PLACES)}",
            )
    today = Project(path, options, progress)
    model = registry.find(today.folder, text)
    then = _as_recorded(today, model)
    name, classes, full = model.record["name"], tuple(model.record["classes"]), model.manifest()
    spec = _unwatched(then.config.heads[name])
    labelled = Manifest(tuple(row for row in full.rows if row.label is not None))
    with _temporary(then) if recompute else roots.job(then.cache.root, [then.store(tap).key for tap in spec.taps]):
        computed, absent = _rows(then, today, labelled, spec.taps)
        left = labelled.without(row.id for row in absent)
        done = Reproduction(model, len(labelled.ids), computed, absent)
        if absent:
            _check_enough(left, classes, done)
        fitted = models.fit(then, spec, left, classes)
        now = models.circumstances(then, spec, left.ids)
    _compare_arrays(done, registry.read_head(model.folder), fitted.head)
    done.metrics = {part: _figures(then, fitted.metrics[part]) for part, then in model.read("metrics.json").items()}
    known = {name: value for name, value in model.record.items() if name in now}  # an older record knows less
    done.differences = {name: pair for name, pair in differ(known, now).items() if pair.recorded is not None}
    key = models.folder_of(then, name, spec, full, classes).name
    if key != model.key:
        done.differences["head key"] = Pair(model.key, key)
    return done


def _as_recorded(today: Project, model: Model) -> Project:
    """The project as it was for this head, on today's images, cache and cluster.

    Raises Unusable where today's code no longer takes the settings, or would make other rows of them.
    """
    record = model.record
    by = f"{model} was made by frozenbase {record['versions']['frozenbase']}"
    advice = f"with that version it can be made again: pip install frozenbase=={record['versions']['frozenbase']}"
    try:
        config = configuration.validate(record["config"], f"the settings in {model.folder / 'record.json'}")
        base = bases.get(config.base.name)
    except Unusable as error:
        raise Unusable(f"{error.message}; {by}", advice) from error
    spec = config.heads[record["name"]]
    recorded = record["extract"]
    settings = config.model_copy(
        update={
            "data": config.data.model_copy(update={"root": today.config.data.root, "table": None}),
            "cluster": today.config.cluster,
            "cache": today.config.cache,
        }
    )
    then = Project(today.path, today.options, today.progress, settings)
    then.weights = _weights(today, base, config.base.weights, recorded[spec.taps[0]]["base"]["weights"])
    for tap in spec.taps:
        store, wanted = then.store(tap), recorded[tap]
        if store.key != wanted["key"]:
            changed = differ({name: part for name, part in wanted.items() if name != "key"}, store.components)
            parts = "; ".join(f"{name} {said(a)} -> {said(b)}" for name, (a, b) in changed.items())
            raise Unusable(f"today's code makes other rows of the same settings ({parts}); {by}", advice)
    return then


def _unwatched(spec: HeadConfig) -> HeadConfig:
    """The same head, whose training is logged nowhere."""
    return spec.model_copy(update={"log_dir": None}) if "log_dir" in type(spec).model_fields else spec


def _weights(today: Project, base: Base, recorded: str, sha256: str) -> Weights:
    """The weights of that digest: where the recorded setting, or today's, has them; else known by their digest alone.

    Nothing is fetched here: no weights are needed as long as no row is missing.
    """
    for setting in (recorded, today.config.base.weights, f"sha256:{sha256}"):
        with contextlib.suppress(PipelineError):
            found = weights.resolve(base, setting, today.at(setting), today.cache, offline=True)
            if found.sha256 == sha256 and found.path is not None:
                return found
    return Weights(recorded, sha256, None)


@contextlib.contextmanager
def _temporary(project: Project) -> Iterator[None]:
    """Give the project an empty cache for a while: no row of another day is taken, and none is left."""
    with tempfile.TemporaryDirectory(prefix="frozenbase-") as folder:
        project.cache = Cache(Path(folder), project.cache.index)
        yield


def _rows(then: Project, today: Project, manifest: Manifest, names: Sequence[str]) -> tuple[int, list[Absent]]:
    """Compute the rows that are missing, from today's files. How many were, and the images that have none."""
    taps = {then.store(name).key: then.tap(name) for name in names}
    lacking = extract.missing(then.cache, then.recipe, taps, manifest.ids)
    if not lacking:
        return 0, []
    files = _files(today, lacking)
    there = {row.id for row in files}
    receipt = graph.compute(
        then, Manifest(tuple(files)), taps, {i: lacking[i] for i in lacking if i in there}, then.recipe
    )
    reasons = {**dict.fromkeys(lacking.keys() - there, "no image of today has its bytes"), **dict(receipt.rejected)}
    paths = {row.id: row.path for row in manifest.rows}
    return receipt.rows, [Absent(image, paths[image], reasons[image]) for image in lacking if image in reasons]


def _files(today: Project, ids: Mapping[str, Any]) -> Sequence[Row]:
    """Today's images that are among `ids`, wherever they lie and whatever they are called."""
    try:
        found = today.found.rows
    except Unusable as error:
        log.warning("%d images have no row, and there is no looking for their files: %s", len(ids), error.message)
        return []
    return [row for row in found if row.id in ids and (today.root / row.path).exists()]


def _check_enough(left: Manifest, classes: Sequence[str], done: Reproduction) -> None:
    try:
        heads.classes_of(left, classes)
    except Unusable as error:
        raise NotAvailable(
            f"{len(done.absent)} of the {done.images} images of {done.model} cannot be found "
            f"(the first: {done.absent[0].path}), and without them: {error.message}",
            "name the folder where they are: --set data.root=DIR, or bring the cache that holds their rows",
        ) from error


def _compare_arrays(done: Reproduction, then: Head, now: Head) -> None:
    before, after = then.arrays(), now.arrays()
    if {name: array.shape for name, array in before.items()} == {name: array.shape for name, array in after.items()}:
        pairs = [(array, after[name]) for name, array in before.items()]
        done.weights_difference = max(float(np.abs(a - b).max()) for a, b in pairs)
        done.arrays_same = all(a.dtype == b.dtype and a.tobytes() == b.tobytes() for a, b in pairs)


def _figures(then: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Pair]:
    """Those that were recorded: a figure that was not reckoned then tells nothing."""
    return dict(beside(then, {name: now.get(name) for name in then}))
