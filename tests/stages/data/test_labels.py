"""labels.py: labels that may be one class are asked about, and others are not."""

from __future__ import annotations

import pytest

from stages.data.labels import find_doubtful


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ({"Bird": 1, "bird": 79}, "labels 'Bird' (1) and 'bird' (79) differ in case or spaces only"),
        ({"New York": 40, "new_york": 50}, "labels 'New York' (40) and 'new_york' (50) differ in case or spaces only"),
        ({"cat": 5, " cat": 5}, "labels ' cat' (5) and 'cat' (5) differ in case or spaces only"),
        ({"caf\u00e9": 3, "cafe\u0301": 3}, "differ in case or spaces only"),
        ({"defective": 100, "defectve": 2}, "labels 'defectve' (2) and 'defective' (100) differ in one letter only"),
        (
            {"functional": 90, "functionel": 9},
            "labels 'functionel' (9) and 'functional' (90) differ in one letter only",
        ),
        ({"A": 1, "a": 1, "B": 1, "\u00c4": 1}, "labels 'A' (1) and 'a' (1) differ in case or spaces only"),
    ],
)
def test_what_may_be_one_class_is_asked_about(counts: dict[str, int], message: str) -> None:
    (question,) = find_doubtful(counts)
    assert message in question
    assert question.endswith("if they are one class, give them one name")


@pytest.mark.parametrize(
    "counts",
    [
        {"cat": 50, "car": 1, "bat": 50},  # short words
        {f"class{i}": 5 for i in range(200)},
        {"defective": 100, "defectives": 90},  # neither is rare
        {"C": 3, "C++": 3, "C#": 3},
        {"+": 3, "-": 3, "_": 2},
        {"man": 20, "woman": 20, "": 3},
        {"\u732b": 3, "\u72ac": 4},
        {},
    ],
)
def test_other_labels_are_not(counts: dict[str, int]) -> None:
    assert find_doubtful(counts) == []
