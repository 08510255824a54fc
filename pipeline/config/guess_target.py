"""Owns which kind of target a table plainly has. Not reading it (data/tables.py), nor its cells (data/cells.py)."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from stages.data.cells import Cells

_SEPARATORS = (";", "|")
_OTHERS = frozenset(["id", "path", "split", "group"])


def guess_cells(records: Sequence[Mapping[str, Any]]) -> Cells | None:
    """How the rows have what is to be predicted; None: as classes, or not plainly as anything else.

    Decimals in the column `label` are numbers, integers are classes. Lists there, or a separator in several rows, are
    labels. Without a column `label`, two or more columns of 0, 1 and blanks are labels; and where all columns are of
    decimals, they are numbers, or shares if they sum to 1.
    """
    found = [record.get("label") for record in records]
    values = [value for value in found if value is not None and value == value and str(value).strip()]
    if values:
        if all(map(_is_list, values)):
            return Cells("labels", ["label"])
        numbers = [_number(value) for value in values]
        if all(number is not None for number in numbers):
            decimals = any(number != int(number or 0) for number in numbers)
            return Cells("number", ["label"]) if decimals else None
        for separator in _SEPARATORS:
            if sum(separator in str(value) for value in values) > 1:
                return Cells("labels", ["label"], separator)
        return None
    if any("label" in record for record in records):
        return None
    names = [name for name in dict.fromkeys(name for record in records for name in record) if name not in _OTHERS]
    marks = [name for name in names if _marked({str(record.get(name)).strip() for record in records})]
    rows = [[str(record.get(name)).strip().removesuffix(".0") for name in marks] for record in records]
    one_each = all(row.count("1") == 1 and row.count("0") == len(row) - 1 for row in rows)
    if len(marks) > 1 and not one_each:
        return Cells("labels", marks)
    if marks or not names or not all(_are_decimals([record.get(name) for record in records]) for name in names):
        return None
    shares = [[_number(record.get(name)) or 0 for name in names] for record in records]
    sums = len(names) > 1 and all(abs(sum(row) - 1) < 0.01 and min(row) >= 0 for row in shares)
    return Cells("soft" if sums else "number", names)


def _is_list(value: Any) -> bool:
    """Whether it is a list of names, also one that is text."""
    try:
        found = json.loads(value) if isinstance(value, str) else value
    except ValueError:
        return False
    return isinstance(found, list) and all(isinstance(name, str) for name in found)


def _are_decimals(values: Sequence[Any]) -> bool:
    """Whether they are numbers and blanks, some of them no integer."""
    found = [_number(value) for value in values if value is not None and value == value and str(value).strip()]
    return None not in found and any(number is not None and number != int(number) for number in found)


def _marked(values: set[str]) -> bool:
    plain = {value.removesuffix(".0") for value in values} - {"", "None", "nan"}
    return bool(plain) and plain <= {"0", "1"}


def _number(value: Any) -> float | None:
    try:
        found = float(value)
    except (TypeError, ValueError):
        return None
    return found if math.isfinite(found) and not isinstance(value, bool) else None
