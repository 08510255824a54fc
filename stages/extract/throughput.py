"""Owns timing a few images, to say beforehand how long an extraction takes. Keeps no row (that is schedule.py)."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from stages.data.images import ImageRejected
from stages.engines.embed import Taps
from stages.extract import prefetch, shard_task
from stages.extract.shard_task import Job

IMAGES = 16


@dataclass(frozen=True)
class Trial:
    """`startup` seconds to build the base, `seconds` an image with all cores at work, `bytes` a row by extract key."""

    startup: float
    seconds: float
    bytes: dict[str, int]


def seconds_per_image(made: Sequence[Mapping[str, Any]]) -> float | None:
    """Seconds an image with all cores at work, as records of shards tell; None where there is none.

    The median of shards: a thread's first one took the start-up of the base with it.
    """
    each = [record["seconds"] / record["rows"] for record in made if record["rows"] and record.get("seconds")]
    return statistics.median(each) / (os.cpu_count() or 1) if each else None  # tasks go side by side, one a core


def time_images(job: Job, taps: Taps, images: Sequence[tuple[str, Sequence[str]]]) -> Trial | None:
    """Take `images` (id, absolute paths) through the base as a run would; None where none of them can be decoded.

    Raises what a run would raise: PipelineError where weights or taps do not fit the base.
    """
    first = next((pixels for image in images if (pixels := _pixels(job, [image])) is not None), None)
    if first is None:
        return None
    started = time.perf_counter()
    embed = shard_task.open_embed(job, taps)
    rows = embed(first)  # the first call compiles
    startup = time.perf_counter() - started

    def forward(part: Sequence[tuple[str, Sequence[str]]]) -> int:
        pixels = _pixels(job, part)
        if pixels is None:
            return 0
        embed(pixels)
        return len(pixels)

    parts = [images[i : i + embed.batch] for i in range(0, len(images), embed.batch)]
    started = time.perf_counter()
    with ThreadPoolExecutor(os.cpu_count() or 1) as threads:
        done = sum(threads.map(forward, parts))
    spent = time.perf_counter() - started
    sizes = {key: int(row[0].size) * np.dtype(job.recipe.stored(taps[key])).itemsize for key, row in rows.items()}
    return Trial(startup, spent / done, sizes)


def _pixels(job: Job, images: Sequence[tuple[str, Sequence[str]]]) -> np.ndarray | None:
    """uint8 (n, h, w, 3) of those that can be decoded, None where none can."""
    decoded = []
    for image, paths in images:
        try:
            decoded.append(prefetch.read_image(image, paths, job.recipe, []))
        except ImageRejected:
            continue
    return np.stack(decoded) if decoded else None
