"""Owns the distances under models/ that tell unknown images: finding or fitting one, and its figures of a head's rows.

Not the arithmetic (stages/unknown). A distance depends on rows and labels alone, so heads on the same taps share one.
It has a folder of its own, models/unknown/<key>/, so that no head's key or file moves where an older head is given one.
A head keeps the version of it that its figures were made by.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cache import records
from cache.errors import Unusable
from stages.data.manifest import Manifest, Row
from stages.heads import labelled_rows
from stages.heads.matrix import FeatureMatrix
from stages.metrics import intervals
from stages.targets.target import Target
from stages.unknown import distance, fitting
from stages.unknown.distance import Distance, Unknown

_ONE_AT_A_TIME = threading.Lock()
"""Points of a sweep run side by side, and most have the same taps."""


def folders(
    project: Path, extract_keys: Sequence[str], manifest: Manifest, target: Target, figures: Mapping[str, Any]
) -> list[Path]:
    """Where a head's distance may be, the one it takes first: models/unknown/<key>, of rows of these keys, joined.

    figures: `unknown` in its metrics.json, which are of one version; {} of heads that are older than all of them. Where
    that version is gone, as where none was ever made, a run makes today's, the last. `project` is the project's folder.
    """
    first = figures.get("version", 1)
    every = range(first, distance.VERSION + 1) if first <= distance.VERSION else [first]
    return [project / "models" / "unknown" / distance.unknown_key(target, extract_keys, manifest, v) for v in every]


def find(places: Sequence[Path]) -> Path | None:
    """The first of these that has one, or says that the rows allow none; a damaged one counts as absent."""
    return next((folder for folder in places if records.load_folder(folder) is not None), None)


def read(folder: Path | None) -> Distance | None:
    """The distance in that folder; None where there is none. Raises Unusable for arrays that cannot be trusted."""
    record = None if folder is None else records.load_folder(folder)
    if folder is None or record is None or "unknown.npz" not in record["files"]:
        return None
    try:
        return Distance.from_bytes((folder / "unknown.npz").read_bytes())
    except (ValueError, KeyError, TypeError) as error:
        raise Unusable(
            f"{folder / 'unknown.npz'} is not as this package writes it, and is not trusted: {error}",
            "delete that folder; the next pipeline run makes it again",
        ) from error


def find_or_fit(folder: Path, features: FeatureMatrix, rows: Sequence[Row], target: Target) -> Distance | None:
    """The distance of that folder; fitted to labelled rows and published where there is none.

    Line i of features is rows[i]. None where the rows allow none: that is published too, so that no run tries again.
    """
    with _ONE_AT_A_TIME:
        if find([folder]):
            return read(folder)
        started = time.perf_counter()
        found = fitting.fit(features, rows, target)
        about = {"schema": 1, "version": distance.VERSION, "created": round(time.time(), 3)}
        about["seconds"] = round(time.perf_counter() - started, 3)
        records.publish_folder(folder, {} if found is None else {"unknown.npz": found.to_bytes()}, about)
    return found


def figures(unknown: Unknown | None, features: FeatureMatrix, rows: Sequence[Row]) -> dict[str, Any]:
    """What metrics.json says of it: version, rate, threshold, and of val and test the share that is rejected, with its
    interval (over groups); {} without one. Rows of train have the rate itself, out of fold."""
    if unknown is None:
        return {}
    found: dict[str, Any] = {"version": unknown.distance.version, "rate": unknown.rate, "threshold": unknown.threshold}
    for split in ("val", "test"):
        here = labelled_rows.rows_in_split(rows, split)
        if len(here):
            above, groups = scores(unknown, features, here) > 1, [rows[i].group for i in here]
            share = intervals.share_with_interval(above, groups)
            found[split] = {"n": len(here), "rejected": share.value, "ci": share.ci}
    return found


def scores(unknown: Unknown, features: FeatureMatrix, where: np.ndarray) -> np.ndarray:
    """Of the rows of those numbers, block by block: (n,) float64."""
    return np.concatenate([unknown.scores(features.take(block)) for block in features.blocks(where)])
