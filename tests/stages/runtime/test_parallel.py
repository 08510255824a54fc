"""parallel.py: results in order, the first error at once, and no call after it."""

from __future__ import annotations

import gc
import os
import signal
import threading
import time

import pytest

from stages.runtime.parallel import run_in_threads


def test_results_come_in_the_order_of_the_items() -> None:
    def slow_first(n: int) -> int:
        time.sleep(0.05 if n == 0 else 0)
        return n * n

    assert run_in_threads(slow_first, iter(range(20)), 4) == [n * n for n in range(20)]
    assert run_in_threads(slow_first, []) == []


def test_no_more_than_so_many_at_once() -> None:
    lock, now, most = threading.Lock(), 0, 0

    def count(_: int) -> None:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        time.sleep(0.01)
        with lock:
            now -= 1

    run_in_threads(count, range(20), 3)
    assert most == 3


def test_the_first_error_in_time_is_raised_and_no_other_call_begins() -> None:
    begun = []

    def fail(n: int) -> None:
        begun.append(n)
        if n == 1:
            raise ValueError("one")
        time.sleep(0.2)
        raise KeyError(n)

    with pytest.raises(ValueError, match="one"):
        run_in_threads(fail, range(50), 2)
    assert len(begun) <= 4


def test_ctrl_c_ends_it_after_the_calls_under_way() -> None:
    begun = []

    def interrupt(n: int) -> None:
        begun.append(n)
        if n == 0:
            os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.1)

    gc.disable()  # an interrupt within hypothesis's callback of the collector would be lost
    try:
        with pytest.raises(KeyboardInterrupt):
            run_in_threads(interrupt, range(100), 2)
    finally:
        gc.enable()
    assert len(begun) < 50
