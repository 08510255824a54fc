"""Owns comparing nested records, field by field. Not what a difference means."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple


class Pair(NamedTuple):
    """Something as it was recorded, and as it is now; None where one side lacks it."""

    recorded: Any
    now: Any

    @property
    def same(self) -> bool:
        return bool(self.recorded == self.now)

    @property
    def difference(self) -> float | None:
        """Of two numbers."""
        numbers = isinstance(self.recorded, int | float) and isinstance(self.now, int | float)
        return self.now - self.recorded if numbers else None


Differences = Mapping[str, Pair]
"""Dotted name -> what it was and is."""


def pair_fields(recorded: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Pair]]:
    """(dotted name, what it was and is) for everything in either, sorted."""
    for name in sorted({**recorded, **now}):
        one, two = recorded.get(name), now.get(name)
        if isinstance(one, Mapping) or isinstance(two, Mapping):
            yield from pair_fields(one or {}, two or {}, f"{prefix}{name}.")
        else:
            yield prefix + name, Pair(_plain(one), _plain(two))


def find_differences(recorded: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Pair]:
    """What is not the same, by dotted name."""
    return {name: pair for name, pair in pair_fields(recorded, now) if not pair.same}


def distinguishing(records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Of each record what is not the same in all of them, by dotted name in its own order; None where it lacks it."""
    flat = [dict(_leaves(record)) for record in records]
    names = dict.fromkeys(name for record in flat for name in record)
    differing = [name for name in names if any(record.get(name) != flat[0].get(name) for record in flat)]
    return [{name: record.get(name) for name in differing} for record in flat]


def _leaves(record: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in record.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield prefix + name, _plain(value)


def _plain(value: Any) -> Any:
    """As JSON gives it back, so that what was recorded and what is here compare."""
    return list(value) if isinstance(value, tuple) else value


def format_value(value: Any) -> str:
    """A recorded value in words: lists without brackets."""
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
