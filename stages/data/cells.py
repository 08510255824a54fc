"""Owns what the cells of a table say of an image, as the label of a manifest. Not what heads make of it (targets/).

Of a class, that is its name. Else it is JSON: of labels, {name: 1, or null where it is unknown}; of soft labels, the
share of each class; of numbers, a list.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

TargetKind = Literal["classes", "labels", "number", "soft"]

_YES, _NO = frozenset(["1", "true", "yes"]), frozenset(["0", "false", "no"])
_SUM_ERROR = 0.01
"""By so much shares may miss 1, as 0.33 and 0.67 or three times 0.333 do; they are divided by their sum."""


@dataclass(frozen=True)
class Cells:
    """Which columns of a table have what is to be predicted, and how it is written there."""

    kind: TargetKind
    columns: Sequence[str]
    separator: str = ";"

    def label(self, record: Mapping[str, Any]) -> str | None:
        """The label of a row, None where it has none. Raises ValueError for a cell that is none of its kind."""
        cells = [_plain(record.get(name)) for name in self.columns]
        if all(cell is None for cell in cells):
            return None
        read = {"labels": self._labels, "number": self._numbers, "soft": self._shares}[self.kind]
        found = _saved(cells[0]) if len(cells) == 1 else None
        return _json(found if found is not None else read(cells))

    def _numbers(self, cells: Sequence[Any]) -> list[float] | None:
        """A row that lacks one of several numbers has no label."""
        found = [_number(name, cell) for name, cell in zip(self.columns, cells, strict=True)]
        return None if any(number is None for number in found) else [number or 0.0 for number in found]

    def _labels(self, cells: Sequence[Any]) -> dict[str, int | None] | None:
        if len(self.columns) == 1:
            names = cells[0] if isinstance(cells[0], list) else _split(str(cells[0]), self.separator)
            return {str(name): 1 for name in names}
        marks = {name: _mark(name, cell) for name, cell in zip(self.columns, cells, strict=True)}
        return {name: mark for name, mark in marks.items() if mark != 0}

    def _shares(self, cells: Sequence[Any]) -> dict[str, float]:
        found = [_number(name, cell) for name, cell in zip(self.columns, cells, strict=True)]
        if any(share is None for share in found):
            raise ValueError(f"{self.columns[found.index(None)]} is empty, though other shares are there")
        shares = [share or 0.0 for share in found]
        if wrong := next((i for i, share in enumerate(shares) if not 0 <= share <= 1), None):
            raise ValueError(f"{self.columns[wrong]} is {shares[wrong]:g}; a share is 0 to 1")
        if len(shares) == 1:
            if not 0 <= shares[0] <= 1:
                raise ValueError(f"{self.columns[0]} is {shares[0]:g}; a probability is 0 to 1")
            return {"0": 1 - shares[0], "1": shares[0]}
        if abs(sum(shares) - 1) > _SUM_ERROR:
            raise ValueError(f"{' + '.join(self.columns)} is {sum(shares):g}; shares of one image sum to 1")
        return {name: share / sum(shares) for name, share in zip(self.columns, shares, strict=True)}


def _plain(cell: Any) -> Any:
    """None for what is empty: a blank, a null, not-a-number."""
    if isinstance(cell, str):
        cell = cell.strip()
    return None if cell is None or cell == "" or cell != cell else cell


def _saved(cell: Any) -> Any:
    """What a saved manifest has, which is JSON already; None of anything else."""
    if not isinstance(cell, str) or cell[:1] not in "{[":
        return None
    try:
        found = json.loads(cell)
    except ValueError:
        return None
    return dict.fromkeys(found, 1) if isinstance(found, list) and found and isinstance(found[0], str) else found


def _split(text: str, separator: str) -> list[str]:
    return sorted({name.strip() for name in text.split(separator)} - {""})


def _mark(name: str, cell: Any) -> int | None:
    """1, 0, or None where it is unknown."""
    text = str(cell).lower().removesuffix(".0")
    if cell is None:
        return None
    if text in _YES or text in _NO:
        return int(text in _YES)
    raise ValueError(f"{name} is {cell!r}; a label is 1, 0, or empty where it is unknown")


def _number(name: str, cell: Any) -> float | None:
    try:
        found = None if cell is None else float(cell)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} is {cell!r}, which is no number") from error
    if found is not None and math.isinf(found):
        raise ValueError(f"{name} is infinite")
    return None if found is None or math.isnan(found) else found


def _json(found: Any) -> str | None:
    return None if found is None else json.dumps(found, sort_keys=True)
