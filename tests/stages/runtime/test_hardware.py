"""hardware.py: how many CPUs a process may use, and how much memory."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

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


def test_memory_is_that_of_the_machine_or_less_where_a_container_has_less(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = psutil.virtual_memory().total
    assert 0 < hardware.memory_bytes() <= whole
    monkeypatch.setattr(hardware, "Path", lambda root, file: tmp_path / Path(file).name)
    for limit, expected in (("max\n", whole), (f"{whole // 3}\n", whole // 3), (f"{3 * whole}\n", whole)):
        (tmp_path / "memory.max").write_text(limit)
        assert hardware.memory_bytes() == expected
