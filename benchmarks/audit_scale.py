"""How long an audit's search for neighbours takes, and in which memory: python -m benchmarks.audit_scale.

[--sizes N...] [--rows N --queries N] [--folder DIR]

Synthetic rows of 1,280 float16 features in a file, normal about 1,000 centres. Of each size all rows are searched,
10 neighbours each, by us and, where it is installed, by faiss's exact search (IndexFlatIP) on the same rows; each in a
process of its own, whose memory is told without the pages of the file. Of --rows the first --queries are searched among
all, in both; what the whole would take is extrapolated: of ours by the pairs of blocks, of which the first ones take
longest, of faiss's by the queries. faiss holds all rows in float32.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import subprocess
import sys
import time
from pathlib import Path

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


def peak_mb() -> tuple[float, float]:
    """In MB, the peak of this process, and what is its own now, without the pages of mapped files."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return tuple(int(status[name].split()[0]) / 1024 for name in ("VmHWM", "RssAnon"))  # type: ignore[return-value]


def ours(x: np.ndarray, queries: int) -> dict[str, object]:
    from stages.audit import neighbour_search
    from stages.audit.neighbour_search import BLOCK, Search
    from stages.heads.matrix import FeatureMatrix

    neighbour_search.HELD = min(neighbour_search.HELD, -(-queries // BLOCK))  # no more rows than were asked for
    search = Search(FeatureMatrix([x]), K, np.zeros(len(x), np.int8), 5)
    most = [0.0]
    started, done = time.perf_counter(), [0]

    def advance(pairs: int) -> None:
        done[0] += pairs
        most[0] = max(most[0], peak_mb()[1])

    for start in range(0, queries, neighbour_search.HELD * BLOCK):
        search.compare(start, advance)
    seconds = time.perf_counter() - started
    found = search._all.ordered(np.arange(len(x)))  # the whole is not run to its end
    return {
        "seconds": seconds,
        "whole": seconds * search.pairs / done[0],
        "mb": max(most[0], peak_mb()[1]),
        "sample": found.cosines[: min(queries, 1000)].tolist(),
    }


def faiss(x: np.ndarray, queries: int) -> dict[str, object]:
    import faiss as library

    from stages.heads.neighbours import unit_rows

    index = library.IndexFlatIP(DIM)
    for start in range(0, len(x), STEP):
        index.add(unit_rows(x[start : start + STEP]))
    found, started = [], time.perf_counter()
    for start in range(0, queries, STEP):
        found.append(index.search(unit_rows(x[start : min(start + STEP, queries)]), K + 1)[0][:, 1:])
    seconds = time.perf_counter() - started
    cosines = np.concatenate(found)[:1000]
    return {"seconds": seconds, "whole": seconds * len(x) / queries, "mb": peak_mb()[1], "sample": cosines.tolist()}


def run(by: str, folder: Path, n: int, queries: int) -> dict[str, object]:
    """In a process of its own, so that each has its own peak."""
    words = [sys.executable, "-m", "benchmarks.audit_scale", "--by", by, "--folder", str(folder)]
    done = subprocess.run([*words, "--rows", str(n), "--queries", str(queries)], stdout=subprocess.PIPE, check=True)
    return dict(json.loads(done.stdout))


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--sizes", nargs="*", type=int, default=[10_000, 30_000, 100_000])
    options.add_argument("--rows", type=int, default=1_000_000)
    options.add_argument("--queries", type=int, default=0)
    options.add_argument("--folder", type=Path, default=Path("bench-out/audit-scale"))
    options.add_argument("--by", choices=["ours", "faiss"], help=argparse.SUPPRESS)
    asked = options.parse_args()
    if asked.by is not None:
        x = rows_of(asked.folder, asked.rows)
        print(json.dumps({"ours": ours, "faiss": faiss}[asked.by](x, asked.queries)))
        return
    sizes = [(n, n) for n in asked.sizes] + ([(asked.rows, asked.queries)] if asked.queries else [])
    print("| rows | of them searched | by | s | GFLOP/s of n x n | the whole, h | own memory, MB |")
    print("|---|---|---|---|---|---|---|")
    for n, queries in sizes:
        rows_of(asked.folder, n)
        samples = []
        for by in ("ours", "faiss") if importlib.util.find_spec("faiss") else ("ours",):
            found = run(by, asked.folder, n, queries)
            whole = float(str(found["whole"]))
            rate = 2 * n * n * DIM / whole / 1e9
            figures = f"{float(str(found['seconds'])):.1f} | {rate:.0f} | {whole / 3600:.2f} | {found['mb']:.0f}"
            print(f"| {n:,} | {queries:,} | {by} | {figures} |", flush=True)
            samples.append(np.array(found["sample"]))
        if len(samples) == 2:
            print(
                f"{samples[0].size:,} cosines: largest difference {np.abs(samples[0] - samples[1]).max():.1e}",
                file=sys.stderr,
            )


if __name__ == "__main__":
    main()
