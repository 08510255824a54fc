"""A logistic head on more rows than memory has room for: python -m benchmarks.large_heads [--rows N...] [--folder DIR].

[--dim N] [--C X] [--tolerance X]. Rows of ten classes, float16, written by the store's own writer in shards of 32 MB. A
head at one C is fitted in a process of its own, with the rows read from the disk in each step, and, where their float32
take less than 8 GB, with the rows in memory. Told are seconds, steps of lbfgs, the most memory (VmHWM), and the largest
difference of probabilities. What a run holds beside what is fitted (ids, paths, labels) is not there.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from cache.hash_index import HashIndex
from cache.lazy_rows import LazyRows
from cache.store import Cache, FeatureStore
from pipeline.config.head_schema import Logistic
from stages.data.manifest import Row
from stages.extract.shard_task import SHARD_BYTES
from stages.heads import logistic, logistic_solver
from stages.heads.matrix import FeatureMatrix
from stages.targets.classes import Classes

CLASSES = 10
MOST_IN_MEMORY = 8e9
JUDGED = 2000


def store_at(folder: Path) -> FeatureStore:
    return Cache(folder / "cache", HashIndex(folder / "stat.sqlite")).features({"base": "synthetic"})


def lay_out(folder: Path, n: int, dim: int) -> None:
    """n rows: noise that is drawn once and rolled along for each shard, about the centre of the class, after a ReLU."""
    rng, store, size = np.random.default_rng(0), store_at(folder), SHARD_BYTES // (2 * dim)
    noise = rng.standard_normal((size, dim), np.float32)
    centres = 0.1 * rng.standard_normal((CLASSES, dim), np.float32)
    order = []
    for number, start in enumerate(range(0, n, size)):
        rows = np.arange(start, min(start + size, n))
        x = np.roll(noise, 31 * number, axis=1)[: len(rows)] + centres[rows % CLASSES]
        ids = [hashlib.sha256(b"%d" % row).hexdigest() for row in rows]
        order.append(store.put(ids, np.maximum(x, 0).astype(np.float16), {"engine": "none"}))
    (folder / "order.json").write_text(json.dumps(order))


def matrix(folder: Path) -> FeatureMatrix:
    """All rows, in the order in which they were written."""
    store = store_at(folder)
    layouts = store.layouts()
    order = [layouts[name] for name in json.loads((folder / "order.json").read_text())]
    lengths = [layout.shape[0] for layout in order]
    which = np.repeat(np.arange(len(order), dtype=np.int32), lengths)
    positions = np.concatenate([np.arange(length, dtype=np.int32) for length in lengths])
    return FeatureMatrix([LazyRows(order, which, positions)])


def fit(folder: Path, streamed: bool, c: float, tolerance: float) -> None:
    """Print as JSON what a fit takes."""
    features, target = matrix(folder), Classes(f"c{i}" for i in range(CLASSES))
    of = [Row("", "", name, split) for split in ("val", *("train",) * 9) for name in target]  # one in ten is val
    rows = [of[i % len(of)] for i in range(len(features))]
    logistic_solver.MEMORY_SHARE, logistic.TOLERANCE = (0 if streamed else 1), tolerance
    Path("/proc/self/clear_refs").write_text("5")  # the most memory is that from here on
    started = time.perf_counter()
    head = logistic.fit(Logistic(C=c), features, rows, target)
    seconds = time.perf_counter() - started
    status = Path("/proc/self/status").read_text()
    peak = int(re.findall(r"VmHWM:\s*(\d+)", status)[0]) / 1024
    p = head.predict(features.take(np.linspace(0, len(features) - 1, JUDGED).astype(int)))
    print(json.dumps({"seconds": seconds, "peak": peak, "steps": head.chosen["iterations"], "p": p.tolist()}))


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rows", type=int, nargs="+", default=[250_000, 1_000_000, 4_000_000])
    options.add_argument("--dim", type=int, default=1280)
    options.add_argument("--C", type=float, default=1e-3)
    options.add_argument("--tolerance", type=float, default=logistic_solver.TOLERANCE, help="Of the gradient.")
    options.add_argument("--folder", type=Path)
    options.add_argument("--fit", nargs=2, help=argparse.SUPPRESS)
    asked = options.parse_args()
    if asked.fit:
        fit(Path(asked.fit[0]), asked.fit[1] == "disk", asked.C, asked.tolerance)
        return
    print("| rows | GB as float16, float32 | rows are | s | steps | most memory, MB | apart from memory |")
    print("|---|---|---|---|---|---|---|")
    for n in asked.rows:
        with tempfile.TemporaryDirectory(dir=asked.folder) as name:
            lay_out(Path(name), n, asked.dim)
            time.sleep(2.1)  # files younger than that are hashed each time
            found = {}
            for place in ("memory", "disk") if 4 * n * asked.dim < MOST_IN_MEMORY else ("disk",):
                settings = ["--C", str(asked.C), "--tolerance", str(asked.tolerance)]
                command = [sys.executable, "-m", "benchmarks.large_heads", "--fit", name, place, *settings]
                done = subprocess.run(command, check=True, capture_output=True, text=True)
                found[place] = json.loads(done.stdout)
            for place, one in found.items():
                apart = np.abs(np.subtract(one["p"], found["memory"]["p"])).max() if "memory" in found else np.nan
                size = f"{2 * n * asked.dim / 1e9:.2f}, {4 * n * asked.dim / 1e9:.2f}"
                figures = f"{one['seconds']:.0f} | {one['steps']} | {one['peak']:,.0f} | {apart:.0e}"
                print(f"| {n:,} | {size} | {'in' if place == 'memory' else 'on the'} {place} | {figures} |", flush=True)


if __name__ == "__main__":
    main()
