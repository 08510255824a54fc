"""Owns timing contenders as whole processes, alternating, and printing medians and ratios. Not what they do."""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from stages.bases import catalogue, weights

Command = Callable[[], list[str]]
"""Prepares a run (unmeasured) and returns the command to time."""

BIN = Path(sys.executable).parent
HOST_CACHE = Path(tempfile.gettempdir()) / f"frozenbase-bench-{os.getpid()}"
ENVIRONMENT = {**os.environ, "XDG_CACHE_HOME": str(HOST_CACHE), "TF_CPP_MIN_LOG_LEVEL": "3"}


def asked_rounds(about: str | None) -> int:
    """The option every benchmark has."""
    arguments = argparse.ArgumentParser(description=about)
    arguments.add_argument("--rounds", type=int, default=5)
    return int(arguments.parse_args().rounds)


def demo(folder: Path) -> Path:
    """The demo dataset as a project in `folder`; returns its pipeline.yaml."""
    subprocess.run([BIN / "pipeline", "init", folder, "--demo"], check=True, env=ENVIRONMENT, stdout=subprocess.DEVNULL)
    return folder / "pipeline.yaml"


def weights_of(folder: Path, name: str) -> Path:
    """The ImageNet weights of a base where a package ships them; else random ones, made once in `folder`."""
    base = catalogue.get_base(name)
    if base.package is not None:
        return weights.published_path(base)
    path = folder / f"{name}.weights.h5"
    program = f"""
import keras; from stages.bases import catalogue; from stages.keras_models import build
keras.utils.set_random_seed(0); b = catalogue.get_base({name!r})
build.build_base(b, None, b.size, b.size).save_weights({str(path)!r})"""
    if not path.exists():
        subprocess.run([sys.executable, "-c", program], check=True, env=ENVIRONMENT, capture_output=True)
    return path


def pipeline(*words: str | Path) -> list[str]:
    return [str(BIN / "pipeline"), *map(str, words), "-q"]


class Run(NamedTuple):
    """One whole process: wall seconds, CPU seconds of it and of the processes it waited for, most memory of one, MB."""

    seconds: float
    cpu: float
    peak: int


def measure(command: Sequence[str | Path]) -> Run:
    """Run it once. What this process holds when it starts it counts in `peak`."""
    started = time.perf_counter()
    process = subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    if status:
        raise SystemExit(f"failed: {' '.join(map(str, command))}")
    return Run(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss // 1024)


def race(contenders: Mapping[str, Command], rounds: int) -> dict[str, list[Run]]:
    """Every run: one warm-up round that does not count, then `rounds` in alternating order."""
    runs: dict[str, list[Run]] = {name: [] for name in contenders}
    for number in range(rounds + 1):
        order = list(contenders) if number % 2 else list(reversed(contenders))
        for name in order:
            run = measure(contenders[name]())
            if number:
                runs[name].append(run)
    return runs


def report(title: str, runs: Mapping[str, list[Run]], images: int | None = None) -> None:
    """Median, spread, and the ratio to the first contender, as Markdown; of images, CPU time and memory too."""
    print(f"\n{title} ({platform.machine()}, {os.cpu_count()} cores, {len(next(iter(runs.values())))} rounds)\n")
    print("| whole process | median s | min to max | times the first |" + (_IMAGES if images else ""))
    print("|---|---|---|---|" + ("---|" * 4 if images else ""))
    first = statistics.median(run.seconds for run in next(iter(runs.values())))
    for name, of in runs.items():
        seconds = [run.seconds for run in of]
        middle = statistics.median(seconds)
        line = f"| {name} | {middle:.2f} | {min(seconds):.2f} to {max(seconds):.2f} | {middle / first:.2f} |"
        if images:
            cpu, peak = statistics.median(run.cpu for run in of), max(run.peak for run in of)
            line += f" {first / middle:.1f} | {images / middle:.0f} | {1000 * cpu / images:.1f} | {peak:,} |"
        print(line, flush=True)


_IMAGES = " times as fast | images/s | CPU ms an image | peak MB |"
