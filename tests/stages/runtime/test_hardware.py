"""hardware.py: how many CPUs a process may use."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import dask.system
import pytest

from stages.runtime import hardware


def test_the_count_is_dask_s() -> None:
    assert hardware.cpu_count() == dask.system.cpu_count()


def test_one_cpu_of_the_affinity_is_one() -> None:
    one = min(os.sched_getaffinity(0))
    program = (
        f"import os; os.sched_setaffinity(0, [{one}]); from stages.runtime import hardware; print(hardware.cpu_count())"
    )
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout == "1\n"


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"cpu.max": "50000 100000\n"}, 1),
        ({"cpu.max": "250000 100000\n"}, 3),
        ({"cpu.max": "max 100000\n"}, 64),
        ({"cpu/cpu.cfs_quota_us": "150000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 2),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 64),
        ({"cpu.max": "damaged"}, 64),
        ({}, 64),
    ],
)
def test_a_container_s_limit_counts(
    files: dict[str, str], expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(hardware, "_CGROUPS", tmp_path)
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(64)))
    assert hardware.cpu_count() == expected


def test_nothing_else_counts_cpus() -> None:
    """os.cpu_count is what the machine has, and an estimate by it is wrong in a container."""
    root = Path(hardware.__file__).parents[2]
    paths = [path for package in ("cache", "stages", "pipeline") for path in (root / package).rglob("*.py")]
    assert len(paths) > 100
    words = ("os.cpu_count", "process_cpu_count", "CPU_COUNT", "multiprocessing")
    found = {path.name for path in paths if any(word in path.read_text() for word in words)}
    assert found == {"hardware.py"}
