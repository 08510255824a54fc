"""labels.py: a question where two labels may be one, and none where they are not."""

from __future__ import annotations

import pytest

from stages.data.labels import find_odd_labels
from stages.data.manifest import Row


def asked(**counts: int) -> list[str]:
    rows = [Row("", f"{label}/{n}", label.replace("__", " ")) for label, many in counts.items() for n in range(many)]
    return find_odd_labels(rows)


@pytest.mark.parametrize(
    ("counts", "question"),
    [
        ({"Bird": 1, "bird": 79}, "'Bird' (1), 'bird' (79)"),
        ({"sea_gull": 30, "sea__gull": 30}, "'sea gull' (30), 'sea_gull' (30)"),
        ({"brid": 1, "bird": 79, "cat": 9}, None),  # two letters
        ({"birds": 1, "bird": 79}, "'birds' (1), 'bird' (79)"),
        ({"bord": 2, "bird": 79}, "'bord' (2), 'bird' (79)"),
        ({"ird": 2, "bird": 79}, "'ird' (2), 'bird' (79)"),
        ({"bord": 3, "bird": 79}, None),
        ({"class1": 1, "class2": 79}, None),
        ({"b": 1, "a": 79}, None),
        ({"cat": 1, "dog": 79}, None),
    ],
)
def test_labels_that_may_be_one_class(counts: dict[str, int], question: str | None) -> None:
    assert asked(**counts) == ([] if question is None else [f"are these one class? {question}"])
