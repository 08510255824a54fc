"""Memory of an extraction at 10,000 and at 100,000 images, and the time to the first row: python -m benchmarks.memory.

PSS, summed over the process and all it started, looked at ten times a second; its most is told. EfficientNet-Lite0 at
32 pixels, one tap. [--engine tensorflow|openvino]
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import psutil

from benchmarks.contest import ENVIRONMENT, HOST_CACHE, pipeline
from benchmarks.warm import lay_out

ROUNDS = 3


def pss(process: psutil.Process) -> int:
    """Bytes; of a process that has just ended, 0."""
    try:
        tree = [process, *process.children(recursive=True)]
        return sum(member.memory_full_info().pss for member in tree)
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return 0


def watched(command: list[str]) -> tuple[float, int]:
    """Seconds it took, and its most PSS in MB."""
    started, most = time.perf_counter(), 0
    process = subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.DEVNULL)
    seen = psutil.Process(process.pid)
    while process.poll() is None:
        most = max(most, pss(seen))
        time.sleep(0.1)
    assert process.returncode == 0
    return time.perf_counter() - started, most // 1_000_000


def fresh(folder: Path, converted: bool = False) -> None:
    """Nothing cached, and no file hashed; `converted` leaves the compiled model."""
    host = (HOST_CACHE / "frozenbase").glob("stat-*") if converted else (HOST_CACHE,)
    for place in (folder / ".features", *host):
        shutil.rmtree(place) if place.is_dir() else place.unlink(missing_ok=True)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--engine", choices=("tensorflow", "openvino"), default="tensorflow")
    engine = options.parse_args().engine
    print("| images | engine | s | images/s | most PSS, MB |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        for count in (10_000, 100_000):
            folder = Path(name) / str(count)
            config = lay_out(folder, count)
            seconds, most = watched(pipeline("run", "extract", "-c", config, "--set", f"extract.engine={engine}"))
            print(f"| {count:,} | {engine} | {seconds:.0f} | {count / seconds:.0f} | {most:,} |", flush=True)
        folder = Path(name) / "one"
        config = lay_out(folder, 1)
        words = pipeline(
            "run", "extract", "-c", config, "--set", "extract.size=224", "--set", f"extract.engine={engine}"
        )
        for title, converted in (("from nothing", False), ("again", True)):
            runs = []
            for _ in range(ROUNDS):
                fresh(folder, converted)
                runs.append(watched(words)[0])
            print(
                f"one image at 224, whole process, {title}: {statistics.median(runs):.2f} s of {ROUNDS} runs",
                flush=True,
            )


if __name__ == "__main__":
    main()
