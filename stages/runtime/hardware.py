"""Owns what computes here: the CPU, the BLAS libraries, versions, if there is a GPU. Not which one (select.py)."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path


def cpu_name() -> str:
    """The name of the processor's model, as the kernel has it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.machine()


def has_gpu() -> bool:
    """Whether this machine shows a GPU of NVIDIA's that is not hidden, told from /dev: nothing heavy is imported.

    TensorFlow may be one without CUDA all the same, and then runs on the CPU.
    """
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES", "0") in ("", "-1")
    return not hidden and any(any(Path("/dev").glob(pattern)) for pattern in ("nvidia[0-9]*", "dxg"))


def blas() -> list[str]:
    """The BLAS libraries this process has loaded, each with the kernels it chose: what may move a last bit."""
    from threadpoolctl import threadpool_info

    found = [library for library in threadpool_info() if library["user_api"] == "blas"]
    return sorted({f"{b['internal_api']} {b['version']} {b.get('architecture') or ''}".strip() for b in found})


def versions(packages: Iterable[str]) -> dict[str, str]:
    return {"python": platform.python_version(), **{package: version(package) for package in packages}}
