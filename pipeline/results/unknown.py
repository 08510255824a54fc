"""Owns the distances under models/ that tell unknown images: finding or fitting one, and its figures of a head's rows.

Not the arithmetic (stages/unknown). A distance depends on rows and labels alone, so heads on the same taps share one.
It has a folder of its own, models/unknown/<key>/, so that no head's key or file moves where an older head is given one.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
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


def folder_of(project: Path, extract_keys: Sequence[str], manifest: Manifest, target: Target) -> Path:
    """The folder of a distance: models/unknown/<key>, of rows of these keys, joined; `project` is the project's."""
    return project / "models" / "unknown" / distance.unknown_key(target, extract_keys, manifest)


def is_missing(folder: Path) -> bool:
    """Whether there is none, or a damaged one."""
    return records.load_folder(folder) is None


def read(folder: Path) -> Distance | None:
    """The distance in that folder; None where there is none. Raises Unusable for arrays that cannot be trusted."""
    if records.load_folder(folder) is None:
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

    Line i of features is rows[i]. None where the rows allow none.
    """
    with _ONE_AT_A_TIME:
        found = read(folder)
        if found is None:
            started = time.perf_counter()
            found = fitting.fit(features, rows, target)
            about = {"schema": 1, "version": distance.VERSION, "created": round(time.time(), 3)}
            about["seconds"] = round(time.perf_counter() - started, 3)
            if found is not None:
                records.publish_folder(folder, {"unknown.npz": found.to_bytes()}, about)
    return found


def figures(unknown: Unknown | None, features: FeatureMatrix, rows: Sequence[Row]) -> dict[str, Any]:
    """What metrics.json says of it: rate, threshold, and of val and test the share that is rejected, with its interval
    (over groups); {} without one. Rows of train have the rate itself, out of fold."""
    if unknown is None:
        return {}
    found: dict[str, Any] = {"rate": unknown.rate, "threshold": unknown.threshold}
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
