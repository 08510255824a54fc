"""Rows in many small shards, read before and after a compaction, beside one shard: python -m benchmarks.compact.

[--shards N] [--each N] [--dim N] [--rounds N] [--folder DIR]. Each reading is a process of its own, by turns; what is
timed is `read` of all rows in the order of their ids, the stat index open and the files in the page cache.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from cache import gc
from cache.hash_index import HashIndex
from cache.store import Cache, FeatureStore
from stages.extract.shard_task import SHARD_BYTES

COMPONENTS = {"base": "synthetic"}


def store_at(root: Path) -> FeatureStore:
    return Cache(root, HashIndex(root.parent / "stat.sqlite")).features(COMPONENTS)


def names(n: int) -> list[str]:
    return [f"{i:064x}" for i in range(n)]


def read(root: Path, n: int) -> None:
    """Print the seconds that it takes to read the rows, in a process that has done nothing else."""
    store = store_at(root)
    started = time.perf_counter()
    store.read(names(n))
    print(time.perf_counter() - started)


def race(roots: dict[str, Path], n: int, rounds: int) -> dict[str, list[float]]:
    """Seconds of each, by turns, after one round that does not count."""
    found: dict[str, list[float]] = {title: [] for title in roots}
    for counts in [False] + [True] * rounds:
        for title, root in roots.items():
            command = [sys.executable, "-m", "benchmarks.compact", "--read", str(root), "--each", str(n)]
            seconds = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            if counts:
                found[title].append(seconds)
    return found


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--shards", type=int, default=1000)
    options.add_argument("--each", type=int, default=10)
    options.add_argument("--dim", type=int, default=1280)
    options.add_argument("--rounds", type=int, default=7)
    options.add_argument("--folder", type=Path)
    options.add_argument("--read", type=Path, help=argparse.SUPPRESS)
    asked = options.parse_args()
    if asked.read is not None:
        read(asked.read, asked.each)
        return
    n = asked.shards * asked.each
    rows = np.random.default_rng(0).random((n, asked.dim), np.float32)
    with tempfile.TemporaryDirectory(dir=asked.folder) as name:
        small, one = Path(name) / "small" / "cache", Path(name) / "one" / "cache"
        store = store_at(small)
        for start in range(0, n, asked.each):
            store.put(names(n)[start : start + asked.each], rows[start : start + asked.each], {"engine": "none"})
        store_at(one).put(names(n), rows, {"engine": "none"})
        time.sleep(2.1)  # a file younger than 2 s is hashed every time
        found = {f"{asked.shards:,} shards of {asked.each}": race({"": small}, n, asked.rounds)[""]}
        merge = gc.plan_merge(store, SHARD_BYTES)
        assert merge is not None
        started = time.perf_counter()
        made = gc.merge_shards(merge)
        took = time.perf_counter() - started
        time.sleep(2.1)
        found |= race({f"the same, compacted to {len(made)}": small, f"one shard of {n:,}": one}, n, asked.rounds)
        assert np.array_equal(store_at(small).read(names(n)), rows)
    print("| rows in | median s to read | min to max |\n|---|---|---|")
    for title, seconds in found.items():
        print(f"| {title} | {statistics.median(seconds):.3f} | {min(seconds):.3f} to {max(seconds):.3f} |")
    print(f"\ncompacted in {took:.2f} s")


if __name__ == "__main__":
    main()
