"""limited_process.py: a function in a process of its own, with limits."""

from __future__ import annotations

import ctypes
import time
from typing import Any

import pytest

from cache.errors import NotAvailable, Unusable
from stages.runtime import limited_process
from stages.runtime.limited_process import Exceeded, Limits


def add(a: int, b: int) -> int:
    print("on standard output")  # noqa: T201 (as a library might)
    return a + b


def fill(size: int) -> int:
    return len(bytearray(size))


def crash() -> None:
    ctypes.string_at(0)


def sleep() -> None:
    time.sleep(60)


def refuse(kind: str) -> None:
    raise {"unusable": Unusable, "absent": NotAvailable}[kind]("what", "do")


def fail() -> None:
    raise RuntimeError("no such luck")


def call(function: str, limits: Limits | None = None, **arguments: Any) -> Any:
    return limited_process.call(f"{__name__}:{function}", arguments, limits or Limits(None, 60))


def test_a_result() -> None:
    assert call("add", a=1, b=2) == 3


@pytest.mark.parametrize(("kind", "error"), [("unusable", Unusable), ("absent", NotAvailable)])
def test_an_error_of_ours_is_the_same_here(kind: str, error: type[Unusable]) -> None:
    with pytest.raises(error, match="what") as found:
        call("refuse", kind=kind)
    assert found.value.hint == "do"


def test_limits_hold() -> None:
    assert call("fill", Limits(4_000_000_000, 60), size=10_000_000) == 10_000_000
    with pytest.raises(Exceeded, match="needed more than 4 GB of memory"):
        call("fill", Limits(4_000_000_000, 60), size=20_000_000_000)
    with pytest.raises(Exceeded, match="took more than 1 s"):
        call("sleep", Limits(None, 1))


def rest(seconds: float) -> str:
    time.sleep(seconds)
    return "rested"


def test_limits_that_are_only_told_stop_nothing() -> None:
    told: list[str] = []
    there = f"{__name__}:"
    limits = Limits(1_000_000, 1)
    assert limited_process.call(f"{there}rest", {"seconds": 2}, limits, told.append) == "rested"
    assert told == ["took more than 1 s", "needed more than 0 GB of memory"]
    told.clear()
    assert limited_process.call(f"{there}add", {"a": 1, "b": 2}, Limits(4_000_000_000, 60), told.append) == 3
    assert limited_process.call(f"{there}fill", {"size": 5_000_000_000}, Limits(4_000_000_000, 60), told.append)
    assert told == ["needed more than 4 GB of memory"]
    with pytest.raises(Exceeded, match=r"crashed \(SIGSEGV\)"):
        limited_process.call(f"{there}crash", {}, limits, told.append)


def test_a_crash_is_a_sentence() -> None:
    with pytest.raises(Exceeded, match=r"crashed \(SIGSEGV\)"):
        call("crash")
    with pytest.raises(Exceeded, match="failed: RuntimeError: no such luck"):
        call("fail")
