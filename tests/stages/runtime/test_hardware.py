"""hardware.py: how many CPUs a process may use."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from stages.runtime import hardware


def test_one_cpu_of_the_affinity_is_one() -> None:
    one = min(os.sched_getaffinity(0))
    program = (
        f"import os; os.sched_setaffinity(0, [{one}]); from stages.runtime import hardware; print(hardware.cpu_count())"
    )
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout == "1\n"


def test_nothing_else_counts_cpus() -> None:
    """os.cpu_count is what the machine has, and an estimate by it is wrong in a container."""
    root = Path(hardware.__file__).parents[2]
    paths = [path for package in ("cache", "stages", "pipeline") for path in (root / package).rglob("*.py")]
    assert len(paths) > 100
    words = ("os.cpu_count", "process_cpu_count", "CPU_COUNT", "multiprocessing")
    found = {path.name for path in paths if any(word in path.read_text() for word in words)}
    assert found == set()
