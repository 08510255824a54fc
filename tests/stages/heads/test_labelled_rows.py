"""labelled_rows.py: splits that do not allow a head."""

from __future__ import annotations

import pytest

from cache.errors import Unusable
from stages.data.manifest import Manifest
from stages.heads import labelled_rows
from stages.targets.classes import Classes
from tests.support.problems import rows


def manifest(*parts: tuple[str, str]) -> Manifest:
    return Manifest(tuple(rows([label for label, _ in parts], [split for _, split in parts])))


GOOD = (("a", "train"), ("b", "train"), ("a", "val"), ("b", "test"))


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
        labelled_rows.check_splits(table, choose, Classes("abc"))
    labelled_rows.check_splits(manifest(*GOOD), "val", Classes("ab"))
    every = manifest(("a", "train"), ("b", "val"), ("a", "val"), ("b", "train"))
    labelled_rows.check_splits(every.pooled, "folds", Classes("ab"))
