"""labelled_rows.py: classes in order, and labels or splits that do not allow a head."""

from __future__ import annotations

import pytest

from cache.errors import Unusable
from stages.data.manifest import Manifest, Row
from stages.heads import labelled_rows
from tests.support.problems import rows


def manifest(*parts: tuple[str, str]) -> Manifest:
    return Manifest(tuple(rows([label for label, _ in parts], [split for _, split in parts])))


GOOD = (("a", "train"), ("b", "train"), ("a", "val"), ("b", "test"))


def test_classes_are_sorted_or_as_told() -> None:
    assert labelled_rows.check_classes(manifest(*GOOD), None) == ("a", "b")
    assert labelled_rows.check_classes(manifest(*GOOD), ["b", "a"]) == ("b", "a")


@pytest.mark.parametrize(
    ("table", "order", "message"),
    [
        (Manifest((Row("a" * 64, "1.png"),)), None, "no image has a label"),
        (manifest(("a", "train"), ("a", "val")), None, "there is one class only, 'a'"),
        (manifest(*GOOD), ["a", "c"], r"data\.classes is \['a', 'c'\], but the images have \['a', 'b'\]"),
    ],
)
def test_what_cannot_carry_a_head_is_said(table: Manifest, order: list[str] | None, message: str) -> None:
    with pytest.raises(Unusable, match=message):
        labelled_rows.check_classes(table, order)


@pytest.mark.parametrize(
    ("table", "choose", "message"),
    [
        (manifest(("a", "train"), ("b", "train")), "val", r"in val \(train 2, val 0, test 0\)"),
        (manifest(("a", "val"), ("b", "test")), "val", r"in train \(train 0, val 1, test 1\)"),
        (manifest(*GOOD, ("c", "test")), "val", r"class 'c' has no image in train \(0 in val, 1 in test\)"),
        (manifest(*GOOD, ("c", "test")).pooled, "folds", r"class 'c' has no image in train \(0 in val, 1 in test\)"),
        (manifest(*GOOD).pooled, "folds", "class 'b' has one image or group in train and val"),
    ],
)
def test_splits_that_do_not_allow_a_head(table: Manifest, choose: str, message: str) -> None:
    with pytest.raises(Unusable, match=message):
        labelled_rows.check_splits(table, choose)
    labelled_rows.check_splits(manifest(*GOOD), "val")
    labelled_rows.check_splits(manifest(("a", "train"), ("b", "val"), ("a", "val"), ("b", "train")).pooled, "folds")
