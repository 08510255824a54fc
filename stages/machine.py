"""Owns what computes here: the CPU, the BLAS libraries, versions of packages. Not the GPU (engines.py)."""

from __future__ import annotations

import platform
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path


def cpu() -> str:
    """The name of the processor's model, as the kernel has it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.machine()


def blas() -> list[str]:
    """The BLAS libraries this process has loaded, each with the kernels it chose: what may move a last bit."""
    from threadpoolctl import threadpool_info

    found = [library for library in threadpool_info() if library["user_api"] == "blas"]
    return sorted({f"{b['internal_api']} {b['version']} {b.get('architecture') or ''}".strip() for b in found})


def versions(packages: Iterable[str]) -> dict[str, str]:
    return {"python": platform.python_version(), **{package: version(package) for package in packages}}
