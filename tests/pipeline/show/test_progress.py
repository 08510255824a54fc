"""progress.py: lines for a log, whose pace is that of now."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from pipeline.show import progress


def lines(monkeypatch: pytest.MonkeyPatch, total: int | None, done: int, steps: list[tuple[float, int]]) -> list[str]:
    """What is told of steps of (seconds since the start, how many) to a console that is no terminal."""
    clock = iter([0.0, *(second for second, _ in steps)])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    text = io.StringIO()
    with progress.make_progress(Console(file=text), quiet=False)("t", total, done) as advance:
        for _, n in steps:
            advance(n)
    return text.getvalue().splitlines()


def test_what_was_done_before_counts_for_the_total_and_not_for_the_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = [(18.0, 1), (26.0, 1), (32.0, 1)]
    assert lines(monkeypatch, 10, 0, steps) == ["t: 1 of 10", "t: 2 of 10, 8.0 s each", "t: 3 of 10, 7.0 s each"]
    assert lines(monkeypatch, 10, 7, steps) == ["t: 8 of 10", "t: 9 of 10, 8.0 s each", "t: 10 of 10, 7.0 s each"]


def test_a_fast_pace_is_told_by_the_second_and_none_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    assert lines(monkeypatch, None, 0, [(4.0, 100), (9.0, 100)]) == ["t: 200, 20/s"]
    assert lines(monkeypatch, None, 0, [(5.0, 0), (10.0, 0)]) == ["t: 0", "t: 0"]
