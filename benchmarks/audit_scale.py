"""How long an audit's search for neighbours takes, and in which memory: python -m benchmarks.audit_scale.

[--sizes N...] [--memory N] [--folder DIR]

Synthetic rows of 1,280 float16 features in a file, normal about 1,000 centres. Of each size all rows are searched,
10 neighbours each, by us and, where it is installed, by faiss's exact search (IndexFlatIP) on the same rows; each in a
process of its own, whose memory is told without the pages of the file. With --memory a search of N rows is set up, its
last blocks are compared, and the answer put in order, which takes as much memory as the whole: that is the peak, with
the pages of the file that were read. faiss holds all rows in float32, 5,120 bytes each. Seconds of processors hardly
depend on what else the machine does.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

DIM, CENTRES, K, STEP = 1280, 1000, 10, 10_000


def rows_of(folder: Path, n: int) -> np.ndarray:
    """n rows as they are in the file, which is written where it isn't there."""
    path = folder / f"rows-{n}.f16"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(0)
        centres = rng.normal(size=(CENTRES, DIM)).astype(np.float32)
        with path.with_suffix(".part").open("wb") as file:
            for start in range(0, n, STEP):
                noise = rng.standard_normal((min(STEP, n - start), DIM), np.float32)
                file.write((centres[rng.integers(0, CENTRES, len(noise))] + noise).astype(np.float16).tobytes())
        path.with_suffix(".part").rename(path)
    return np.memmap(path, np.float16, "r", shape=(n, DIM))


def clocks() -> np.ndarray:
    """Seconds, and those of processors that this process used."""
    return np.array([time.perf_counter(), time.process_time()])


def memory_mb(name: str = "RssAnon") -> float:
    """In MB: what is this process's own now, without the pages of mapped files; or `VmHWM`, its peak with them."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status[name].split()[0]) / 1024


def ours(x: np.ndarray, whole: bool) -> dict[str, object]:
    from stages.audit.neighbour_search import BLOCK, HELD, Search
    from stages.heads.matrix import FeatureMatrix

    kinds = np.arange(len(x)) % 2
    search = Search(FeatureMatrix([x]), K, kinds if not whole else np.zeros(len(x), np.int8), 5)
    most = 0.0

    def advance(pairs: int) -> None:
        nonlocal most
        most = max(most, memory_mb())

    started, step = clocks(), HELD * BLOCK
    if whole:
        found = search.run(advance)[0]
    else:
        search.compare((len(x) - 1) // step * step, advance)
        found = search.answer()[0]
    seconds = clocks() - started
    most = max(most, memory_mb()) if whole else memory_mb("VmHWM")
    return {"seconds": seconds.tolist(), "mb": most, "sample": found.cosines[:1000].tolist()}


def faiss(x: np.ndarray) -> dict[str, object]:
    import faiss as library

    from stages.heads.neighbours import unit_rows

    index = library.IndexFlatIP(DIM)
    started = clocks()
    for start in range(0, len(x), STEP):
        index.add(unit_rows(x[start : start + STEP]))
    found = [index.search(unit_rows(x[at : at + STEP]), K + 1)[0][:, 1:] for at in range(0, len(x), STEP)]
    seconds = clocks() - started
    return {"seconds": seconds.tolist(), "mb": memory_mb(), "sample": np.concatenate(found)[:1000].tolist()}


def run(by: str, folder: Path, n: int) -> dict[str, Any]:
    """In a process of its own."""
    words = [sys.executable, "-m", "benchmarks.audit_scale", "--by", by, "--folder", str(folder), "--rows", str(n)]
    waits = {**os.environ, "OMP_WAIT_POLICY": "passive"}  # threads that wait must not count as work
    return dict(json.loads(subprocess.run(words, stdout=subprocess.PIPE, check=True, env=waits).stdout))


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--sizes", nargs="*", type=int, default=[10_000, 30_000, 100_000])
    options.add_argument("--memory", type=int)
    options.add_argument("--folder", type=Path, default=Path("bench-out/audit-scale"))
    options.add_argument("--by", choices=["ours", "ours-memory", "faiss"], help=argparse.SUPPRESS)
    options.add_argument("--rows", type=int, help=argparse.SUPPRESS)
    asked = options.parse_args()
    if asked.by is not None:
        x = rows_of(asked.folder, asked.rows)
        print(json.dumps(faiss(x) if asked.by == "faiss" else ours(x, asked.by == "ours")))
        return
    print("| rows | by | s | CPU s | GFLOP of n x n by CPU s | own memory, MB |")
    print("|---|---|---|---|---|---|")
    for n in asked.sizes:
        rows_of(asked.folder, n)
        samples = []
        for by in ("ours", "faiss") if importlib.util.find_spec("faiss") else ("ours",):
            found = run(by, asked.folder, n)
            seconds, cpu = found["seconds"]
            rate = 2 * n * n * DIM / cpu / 1e9
            print(f"| {n:,} | {by} | {seconds:.1f} | {cpu:.1f} | {rate:.0f} | {found['mb']:.0f} |", flush=True)
            samples.append(np.array(found["sample"]))
        if len(samples) == 2:
            apart = np.abs(samples[0] - samples[1]).max()
            print(f"{samples[0].size:,} cosines: largest difference {apart:.1e}", file=sys.stderr)
    if asked.memory:
        rows_of(asked.folder, asked.memory)
        found = run("ours-memory", asked.folder, asked.memory)
        print(f"| {asked.memory:,} | ours, memory alone | - | - | - | {found['mb']:.0f} |")


if __name__ == "__main__":
    main()
