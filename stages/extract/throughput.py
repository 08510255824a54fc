"""Owns timing a few images, to estimate how long an extraction takes. Stores no row (schedule.py)."""

import statistics
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from stages.data.images import ImageRejected
from stages.engines.embed import Taps
from stages.extract import opened_bases, prefetch
from stages.extract.opened_bases import Job
from stages.runtime.hardware import cpu_count

IMAGES = 16


@dataclass(frozen=True)
class Trial:
    """Seconds to build the base, seconds per image with all cores busy, and bytes per row by extract key."""

    startup: float
    seconds: float
    bytes: dict[str, int]


def seconds_per_image(shard_records: Sequence[Mapping[str, Any]]) -> float | None:
    """Seconds per image with all cores busy, from the records of shards; None if there are none.

    The median, because a thread's first shard includes building the base.
    """
    each = [r["seconds"] / r["rows"] for r in shard_records if r["rows"] and r.get("seconds")]
    return statistics.median(each) / cpu_count() if each else None  # one task per core at a time


def time_images(job: Job, taps: Taps, images: Sequence[tuple[str, Sequence[str]]]) -> Trial | None:
    """Run the base on `images` (id, absolute paths) as a run would; None if none of them can be decoded.

    Raises PipelineError if weights or taps do not fit the base, as a run would.
    """
    first = next((pixels for image in images if (pixels := _pixels(job, [image])) is not None), None)
    if first is None:
        return None
    started = time.perf_counter()
    embed = opened_bases.open_embed(job, taps)
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
    with ThreadPoolExecutor(cpu_count()) as threads:
        done = sum(threads.map(forward, parts))
    spent = time.perf_counter() - started
    sizes = {key: int(row[0].size) * np.dtype(job.recipe.stored(taps[key])).itemsize for key, row in rows.items()}
    return Trial(startup, spent / done, sizes)


def _pixels(job: Job, images: Sequence[tuple[str, Sequence[str]]]) -> np.ndarray | None:
    """uint8 (n, h, w, 3) of those that can be decoded; None if none can."""
    decoded = []
    for image, paths in images:
        try:
            decoded += prefetch.read_image(image, paths, [job.recipe], [])
        except ImageRejected:
            continue
    return np.stack(decoded) if decoded else None
