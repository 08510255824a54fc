"""Owns what computes here: CPUs, BLAS libraries, versions, whether there is a GPU. Not the choice of an engine."""

import os
import platform
from collections.abc import Iterable
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path


def cpu_name() -> str:
    """The name of the processor's model, from /proc/cpuinfo."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.machine()


def has_int8_dot_products() -> bool:
    """Whether the CPU multiplies and sums bytes in one instruction (VNNI, AMX; dot products of ARM), by /proc/cpuinfo.

    All of Apple's have it. Without, int8 is computed by wider steps, and may be slower than float32.
    """
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return (platform.system(), platform.machine()) == ("Darwin", "arm64")
    flags = {flag for line in lines if line.startswith(("flags", "Features")) for flag in line.split()}
    return bool(flags & {"avx512_vnni", "avx_vnni", "amx_int8", "asimddp"})


def cpu_count() -> int:
    """CPUs that this process may use, by its affinity and its container's limit."""
    from dask import system  # here, since it takes a tenth of a second

    return int(system.cpu_count())


def memory_bytes() -> int:
    """Memory that this process may use: the machine's, or its container's limit."""
    limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for file in ("memory.max", "memory/memory.limit_in_bytes"):  # of control groups, version 2 and 1
        with suppress(OSError, ValueError):  # `max` is no limit
            limits.append(int(Path("/sys/fs/cgroup", file).read_text()))
    return min(limits)


def has_gpu() -> bool:
    """Whether /dev has an NVIDIA GPU that CUDA_VISIBLE_DEVICES doesn't hide. Imports nothing.

    A TensorFlow without CUDA runs on the CPU all the same.
    """
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES", "0") in ("", "-1")
    return not hidden and any(any(Path("/dev").glob(pattern)) for pattern in ("nvidia[0-9]*", "dxg"))


def blas() -> list[str]:
    """The BLAS libraries this process has loaded, each with the kernels it chose: they decide the last bits."""
    from threadpoolctl import threadpool_info

    found = [library for library in threadpool_info() if library["user_api"] == "blas"]
    return sorted({f"{b['internal_api']} {b['version']} {b.get('architecture') or ''}".strip() for b in found})


def versions(packages: Iterable[str]) -> dict[str, str]:
    return {"python": platform.python_version(), **{package: version(package) for package in packages}}
