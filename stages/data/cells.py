"""Owns what the cells of a table say of an image, as the label of a manifest. Not what heads make of it (targets/).

Of a class, that is its name. Else it is JSON: of labels, {name: 1, or null where it is unknown}; of soft labels, the
share of each class; of numbers, {name: number}.
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

_ROUNDED = 1e-12
"""By so much less they are left as they are, so that a saved manifest comes out the same."""

Named = Mapping[str, Any]
"""The cells of a row, by column."""


@dataclass(frozen=True)
class Cells:
    """Which columns of a table have what is to be predicted, and how it is written there."""

    kind: TargetKind
    columns: Sequence[str]
    separator: str = ";"
    classes: Sequence[str] = ("0", "1")
    """Of a column of probabilities: that it isn't, and that it is."""

    def label(self, record: Mapping[str, Any]) -> str | None:
        """The label of a row, None where it has none. Raises ValueError for a cell that is none of its kind."""
        cells = {name: _plain(record.get(name)) for name in self.columns}
        if all(cell is None for cell in cells.values()):
            return None
        only = _written(next(iter(cells.values()))) if len(cells) == 1 else None
        read = {"labels": self._labels, "number": self._numbers, "soft": self._shares}[self.kind]
        found = read(cells, only)
        return None if found is None else json.dumps(found, sort_keys=True)

    def _numbers(self, cells: Named, only: Any) -> dict[str, float] | None:
        """A row that lacks one of several numbers has no label."""
        found = {name: _number(name, cell) for name, cell in (only if isinstance(only, dict) else cells).items()}
        known = {name: number for name, number in found.items() if number is not None}
        return known if len(known) == len(found) else None

    def _labels(self, cells: Named, only: Any) -> dict[str, int | None]:
        if len(cells) == 1 and not isinstance(only, dict) and str(only).removesuffix(".0") not in ("0", "1"):
            names = only if isinstance(only, list) else _split(str(only), self.separator)
            if not isinstance(only, list) and _is_fraction(names):
                raise ValueError(
                    f"{self.columns[0]} is {only}, between 0 and 1: neither a name nor a mark; of probabilities the "
                    "kind is soft"
                )
            return {str(name): 1 for name in names}
        marks = {name: _mark(name, cell) for name, cell in (only if isinstance(only, dict) else cells).items()}
        return {name: mark for name, mark in marks.items() if mark != 0}

    def _shares(self, cells: Named, only: Any) -> dict[str, float]:
        cells = only if isinstance(only, dict) else cells
        found = {name: _number(name, cell) for name, cell in cells.items()}
        if lacking := [name for name, share in found.items() if share is None]:
            raise ValueError(f"{lacking[0]} is empty, though other shares are there")
        shares = {name: share or 0.0 for name, share in found.items()}
        what = "probability" if len(self.columns) == 1 and not isinstance(only, dict) else "share"
        if wrong := [name for name, share in shares.items() if not 0 <= share <= 1]:
            raise ValueError(f"{wrong[0]} is {shares[wrong[0]]:g}; a {what} is 0 to 1")
        if what == "probability":
            return dict(zip(self.classes, (1 - shares[self.columns[0]], shares[self.columns[0]]), strict=True))
        total = sum(shares.values())
        if abs(total - 1) > _SUM_ERROR:
            raise ValueError(f"{' + '.join(shares)} is {total:g}; shares of one image sum to 1")
        exact = abs(total - 1) < _ROUNDED
        return {name: share if exact else share / total for name, share in shares.items()}


def _plain(cell: Any) -> Any:
    """None for what is empty: a blank, a null, not-a-number."""
    if isinstance(cell, str):
        cell = cell.strip()
    return None if cell is None or cell == "" or cell != cell else cell


def _written(cell: Any) -> Any:
    """The list or object that a cell of JSON is, as saved manifests have it; any other cell as it is."""
    if not isinstance(cell, str) or cell[:1] not in "{[":
        return cell
    try:
        return json.loads(cell)
    except ValueError:
        return cell


def _is_fraction(names: Sequence[str]) -> bool:
    """Whether these are one name that is a number between 0 and 1, as no class is called."""
    try:
        return len(names) == 1 and 0 < float(names[0]) < 1
    except ValueError:
        return False


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
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{name} is {cell!r}, which is no number") from error
    if found is not None and math.isinf(found):
        raise ValueError(f"{name} is infinite")
    return None if found is None or math.isnan(found) else found
