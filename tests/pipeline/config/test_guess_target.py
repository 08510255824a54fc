"""guess_target.py: only what a table plainly has is guessed; everything else is classes, or nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from pipeline.config.guess_target import guess_cells
from stages.data.cells import Cells


def column(*cells: Any) -> list[dict[str, Any]]:
    return [{"path": f"{i}.png", "label": cell} for i, cell in enumerate(cells)]


@pytest.mark.parametrize(
    ("records", "expected"),
    [
        (column("0.5", "1", "2"), Cells("number", ["label"])),
        (column("1e3", "2.5", None, ""), Cells("number", ["label"])),
        (column(-1.25, 3), Cells("number", ["label"])),
        (column("a;b", "b;c", "a"), Cells("labels", ["label"], ";")),
        (column("a|b", "b|c", "a"), Cells("labels", ["label"], "|")),
        (column('["a", "b"]', "[]"), Cells("labels", ["label"])),
        (column(["a"], ["a", "b"]), Cells("labels", ["label"])),
    ],
)
def test_a_column_of_labels_or_numbers(records: Sequence[dict[str, Any]], expected: Cells) -> None:
    assert guess_cells(records) == expected


@pytest.mark.parametrize(
    "records",
    [
        column("1", "2", "10"),
        column("007", "008"),
        column("a", "b"),
        column("a;b", "c", "d"),
        column("0.5", "b"),
        column("inf", "0.5"),
        column("nan", "x"),
        column(True, False),
        column("[1, 2]", "[3]"),
        column(None, ""),
        [],
        [{"path": "a.png"}, {"path": "b.png"}],
    ],
)
def test_integers_and_names_are_classes(records: Sequence[dict[str, Any]]) -> None:
    assert guess_cells(records) is None


def marks(*rows: Sequence[Any], **more: Any) -> list[dict[str, Any]]:
    return [{"path": f"{i}.png", "split": "train", "a": a, "b": b, **more} for i, (a, b) in enumerate(rows)]


def test_two_columns_of_marks_are_labels() -> None:
    expected = Cells("labels", ["a", "b"])
    assert guess_cells(marks(("1", "1"), ("0", "1"))) == expected
    assert guess_cells(marks(("1", ""), ("0", "1"))) == expected
    assert guess_cells(marks((1.0, 0.0), (1.0, float("nan")))) == expected
    assert guess_cells(marks(("1", "1"), ("0", "1"), width="2.5")) == expected, "other columns may be anything"


def test_marks_of_one_class_each_one_column_and_those_beside_a_label_are_none() -> None:
    assert guess_cells(marks(("1", "0"), ("0", "1"))) is None
    assert guess_cells([{"a": "1"}, {"a": "0"}]) is None
    assert guess_cells(marks(("1", "1"), ("0", "1"), label="x")) is None
    assert guess_cells(marks(("1", "1"), ("0", "1"), label="")) is None
    assert guess_cells(marks(("1", "yes"), ("0", "no"))) is None


def decimals(*rows: Sequence[Any], **more: Any) -> list[dict[str, Any]]:
    return [{"path": f"{i}.png", "a": a, "b": b, **more} for i, (a, b) in enumerate(rows)]


@pytest.mark.parametrize(
    ("records", "expected"),
    [
        (decimals(("0.25", "0.75"), ("1", "0")), Cells("soft", ["a", "b"])),
        (decimals(("2.5", "0.75"), ("1", "0.5")), Cells("number", ["a", "b"])),
        (decimals(("2.5", ""), ("", "0.5")), Cells("number", ["a", "b"])),
        ([{"path": "a.png", "p": 0.25}, {"path": "b.png", "p": 1}], Cells("number", ["p"])),
        (decimals(("2.5", "3"), ("1", "4")), None),
        (decimals(("2.5", "x"), ("1", "0.5")), None),
        (decimals(("2.5", "0.1"), ("1", "0.5"), note="seen"), None),
        (decimals(("2.5", "0.1"), ("1", "0.5"), label="cat"), None),
    ],
)
def test_decimals_alone_are_numbers_or_shares(records: Sequence[dict[str, Any]], expected: Cells | None) -> None:
    assert guess_cells(records) == expected
