"""Whether more workers extract more, with a base that sleeps: python -m benchmarks.workers [--workers N...] [--each N].

[--delay S] [--folder DIR]. `pipeline run extract --workers N` on a real cluster of processes on this machine (one
worker: threads of one process). The base sleeps S seconds an image instead of computing, so that 16 workers can be
tried on 2 cores; reading, decoding, scheduling and storing are real. Each thread has as many images to do (`--each`),
so with no loss all take as long. The last column is what the threads' sleep is of their time.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.scale import png
from stages.bases.recipe import Tap
from stages.extract import opened_bases
from stages.runtime.hardware import cpu_count

DIM = 1280


class Sleeping:
    """A base that takes its time, and says of a picture its first pixel."""

    provenance: dict[str, Any] = {"engine": "sleeping", "device": "none", "versions": {}}  # noqa: RUF012

    def __init__(self, job: Any, taps: Mapping[str, Tap]) -> None:
        self.taps, self.batch, self.delay = taps, job.batch or 8, float(os.environ["BENCH_DELAY"])

    def __call__(self, pixels: np.ndarray) -> dict[str, np.ndarray]:
        time.sleep(self.delay * len(pixels))
        rows = np.resize(pixels[:, :1, :1].reshape(len(pixels), -1).astype(np.float32), (len(pixels), DIM))
        return dict.fromkeys(self.taps, rows)


def dask_setup(worker: Any) -> None:
    """In a worker process, which preloads this module."""
    opened_bases.open_embed = Sleeping  # type: ignore[assignment]


def run(words: list[str]) -> None:
    """The command, whose base sleeps."""
    from pipeline.cli.main import main as command

    dask_setup(None)
    command(words, prog_name="pipeline")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4, 8, 16])
    options.add_argument("--each", type=int, default=400)
    options.add_argument("--delay", type=float, default=0.05)
    options.add_argument("--folder", type=Path)
    options.add_argument("--run", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    asked = options.parse_args()
    if asked.run:
        run(asked.run)
        return
    print("| workers | threads | images | s, whole process | images/s | ms of processors an image | asleep, % |")
    print("|---|---|---|---|---|---|---|")
    preload = json.dumps(["benchmarks.workers"])
    environment = {**os.environ, "BENCH_DELAY": str(asked.delay), "DASK_DISTRIBUTED__WORKER__PRELOAD": preload}
    for workers in asked.workers:
        threads = max(workers, cpu_count())
        images = asked.each * threads
        with tempfile.TemporaryDirectory(dir=asked.folder) as name:
            (Path(name) / "images").mkdir()
            for i in range(images):
                (Path(name) / "images" / f"{i:06d}.png").write_bytes(png(i))
            config = Path(name) / "pipeline.yaml"
            config.write_text("extract: {size: 32}\n")
            words = ["run", "extract", "--workers", str(workers), "--json", "-c", str(config)]
            before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
            command = [sys.executable, "-m", "benchmarks.workers", "--run", *words]
            done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
            seconds, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
            assert json.loads(done.stdout)["extract"]["computed"] == images
            cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            asleep = 100 * asked.each * asked.delay / seconds
            figures = f"{seconds:.1f} | {images / seconds:.0f} | {1000 * cpu / images:.1f} | {asleep:.0f}"
            print(f"| {workers} | {threads} | {images:,} | {figures} |", flush=True)


if __name__ == "__main__":
    main()
