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
from collections.abc import Callable, Mapping
from pathlib import Path

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


def pipeline(*words: str | Path) -> list[str]:
    return [str(BIN / "pipeline"), *map(str, words), "-q"]


def race(contenders: Mapping[str, Command], rounds: int) -> dict[str, list[float]]:
    """Wall seconds of every run: one warm-up round that does not count, then `rounds` in alternating order."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(rounds + 1):
        order = list(contenders) if number % 2 else list(reversed(contenders))
        for name in order:
            command = contenders[name]()
            started = time.perf_counter()
            subprocess.run(command, check=True, env=ENVIRONMENT, stdout=subprocess.DEVNULL)
            if number:
                seconds[name].append(time.perf_counter() - started)
    return seconds


def peaks(contenders: Mapping[str, Command]) -> dict[str, int]:
    """Most resident memory of one run of each, in MB; what this process holds counts too, since it is forked."""
    found = {}
    for name, prepare in contenders.items():
        process = subprocess.Popen(prepare(), env=ENVIRONMENT, stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        assert status == 0, name
        found[name] = usage.ru_maxrss // 1024
    return found


def report(title: str, seconds: Mapping[str, list[float]], images: int | None = None) -> None:
    """Median, spread, and the ratio to the first contender, as a table in Markdown."""
    print(f"\n{title} ({platform.machine()}, {os.cpu_count()} cores, {len(next(iter(seconds.values())))} rounds)\n")
    print("| whole process | median s | min to max |" + (" images/s |" if images else "") + " times the first |")
    print("|---|---|---|" + ("---|" if images else "") + "---|")
    first = statistics.median(next(iter(seconds.values())))
    for name, runs in seconds.items():
        middle = statistics.median(runs)
        rate = f" {images / middle:.0f} |" if images else ""
        print(f"| {name} | {middle:.2f} | {min(runs):.2f} to {max(runs):.2f} |{rate} {middle / first:.2f} |")
