"""Owns what no run can go below: decoding alone, and forward passes alone, in processor time. Not whole runs.

In one process and in turns, on all cores at once as in a run; so that other work on the machine moves them little.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import cycle, islice
from pathlib import Path

import numpy as np

from benchmarks.bare import opened
from stages.bases.recipe import Recipe
from stages.data import images
from stages.runtime import parallel

ROUNDS, IMAGES = 7, 256

DECODING = "decoding"


def measure(configs: Mapping[str, Sequence[str | Path]]) -> dict[str, float]:
    """CPU ms an image of decoding, and of forward passes of each base: medians.

    configs: name of a base -> its pipeline.yaml, and settings.
    """
    calls: dict[str, Callable[[], object]] = {}
    for name, (config, *settings) in configs.items():
        embed, recipe, paths = opened(Path(config), [str(one) for one in settings])
        data = [path.read_bytes() for path in islice(cycle(paths), IMAGES)]
        pixels = [images.decode(one, recipe.pixels) for one in data[: embed.batch]]
        batches = [np.stack(pixels)] * (IMAGES // embed.batch)
        calls.setdefault(DECODING, partial(parallel.run_in_threads, partial(_decode, recipe), data))
        calls[name] = partial(parallel.run_in_threads, embed, batches)
    found: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(ROUNDS):
        for name in list(calls) if number % 2 else list(calls)[::-1]:
            started = time.process_time()
            calls[name]()
            found[name].append(1000 * (time.process_time() - started) / IMAGES)
    return {name: statistics.median(times) for name, times in found.items()}


def _decode(recipe: Recipe, data: bytes) -> np.ndarray:
    return images.decode(data, recipe.pixels)


def report(floors: Mapping[str, float], runs: Mapping[str, float], count: int) -> None:
    """As Markdown; the first base is the one that others are compared with. runs: CPU ms an image of whole runs."""
    bases = [name for name in floors if name != DECODING]
    cores, decoding = os.cpu_count() or 1, floors[DECODING]
    print(f"\nAlone, in turns, processor time ({ROUNDS} rounds); decoding: {decoding:.2f} ms an image\n")
    titles = ["run", "forward passes, CPU ms an image", "images/s a core", "to the first"]
    titles += [f"decoding and they on {cores} cores, s", "a whole run, CPU ms an image", "of which decoding"]
    print(f"| {' | '.join(titles)} |\n|{'---|' * len(titles)}")
    for name in bases:
        least = count * (floors[name] + decoding) / 1000 / cores
        line = f"| {name} | {floors[name]:.2f} | {1000 / floors[name]:.0f} | {floors[bases[0]] / floors[name]:.2f} "
        print(f"{line}| {least:.2f} | {runs[name]:.2f} | {100 * decoding / runs[name]:.0f} % |", flush=True)
