"""Owns the differences of nested records, field by field. Not what they mean."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

_DIGEST = re.compile(r"\b[0-9a-f]{64}\b")
_LONGEST = 40


class Pair(NamedTuple):
    """A field as it was recorded, and as it is now; None where one side lacks it."""

    recorded: Any
    now: Any

    @property
    def same(self) -> bool:
        return bool(self.recorded == self.now)

    @property
    def difference(self) -> float | None:
        """None unless both are numbers."""
        numbers = isinstance(self.recorded, int | float) and isinstance(self.now, int | float)
        return self.now - self.recorded if numbers else None


Differences = Mapping[str, Pair]
"""Dotted name -> pair."""


def pair_fields(recorded: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Pair]:
    """All fields of either record, sorted by name."""
    before, after = flatten(recorded), flatten(now)
    return {name: Pair(before.get(name), after.get(name)) for name in sorted({**before, **after})}


def find_differences(recorded: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Pair]:
    """The fields that are not the same."""
    return {name: pair for name, pair in pair_fields(recorded, now).items() if not pair.same}


def distinguishing_fields(records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """For each record the fields that are not the same in all, by dotted name in its order; None where it lacks one."""
    flat = [flatten(record) for record in records]
    names = dict.fromkeys(name for record in flat for name in record)
    differing = [name for name in names if any(record.get(name) != flat[0].get(name) for record in flat)]
    return [{name: record.get(name) for name in differing} for record in flat]


def flatten(record: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted name -> value, a tuple as the list that JSON gives back."""
    found: dict[str, Any] = {}
    for name, value in record.items():
        if isinstance(value, Mapping):
            found |= flatten(value, f"{prefix}{name}.")
        else:
            found[prefix + name] = list(value) if isinstance(value, tuple) else value
    return found


def shorten(value: Any) -> Any:
    """A value for a column: the first digits of numbers and digests, the start of a text."""
    if isinstance(value, list):
        return [shorten(part) for part in value]
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if not isinstance(value, str):
        return value
    text = _DIGEST.sub(lambda digest: f"{digest[0][:4]}...", value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."


def format_value(value: Any) -> str:
    """Lists without brackets."""
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def format_changes(differences: Differences) -> str:
    """`name before -> now; ...`."""
    return "; ".join(f"{name} {format_value(then)} -> {format_value(now)}" for name, (then, now) in differences.items())
