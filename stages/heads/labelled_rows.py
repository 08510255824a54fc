"""Owns the labelled rows that heads are fitted on: classes, targets, rows of a split. Not the features (matrix.py)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cache.errors import Unusable
from stages.data.manifest import SPLITS, Manifest, Row
from stages.metrics import kfold


def target_columns(rows: Sequence[Row], classes: Sequence[str]) -> np.ndarray:
    """The column of the label of each row: (n,) int."""
    column = {name: i for i, name in enumerate(classes)}
    return np.array([column[row.label or ""] for row in rows])


def rows_in_split(rows: Sequence[Row], split: str) -> np.ndarray:
    """The numbers of the rows of a split, ascending."""
    return np.flatnonzero([row.split == split for row in rows])


def check_classes(manifest: Manifest, order: Sequence[str] | None) -> tuple[str, ...]:
    """The classes, sorted or in the order given.

    Raises Unusable where no head can be trained on these rows: no labels, one class, an image with two labels.
    """
    manifest.check_labels()
    counts = manifest.counts()
    if not counts:
        raise Unusable(
            "no image has a label, and a head needs them",
            "put them in one folder per class, or name a table (data.table); features alone: pipeline run extract",
        )
    if len(counts) == 1:
        raise Unusable(
            f"there is one class only, {next(iter(counts))!r}; a head needs two or more",
            "check data.root: it should hold one folder per class",
        )
    if order is None:
        return tuple(counts)
    if sorted(order) != sorted(counts):
        raise Unusable(f"data.classes is {sorted(order)}, but the images have {sorted(counts)}", "list each class once")
    return tuple(order)


def check_splits(manifest: Manifest, choose: str) -> None:
    """Raises Unusable where a head cannot be fitted on train and chosen on val; or by folds, on both together."""
    counts = manifest.counts()
    needed = ("train", "val") if choose == "val" else ("train",)
    for split in needed:
        if not any(by_split[split] for by_split in counts.values()):
            sizes = ", ".join(f"{s} {sum(by_split[s] for by_split in counts.values())}" for s in SPLITS)
            raise Unusable(
                f"no labelled image is in {split} ({sizes}); a head is fitted on train, chosen on val",
                "enlarge data.split.val, or add images",
            )
    for label, by_split in counts.items():
        if not by_split["train"]:
            raise Unusable(
                f"class {label!r} has no image in train ({by_split['val']} in val, {by_split['test']} in test)",
                "add images of it to train; where data.split draws the splits, another data.split.seed may do",
            )
    rows = [row for row in manifest.samples if row.split == "train"]
    if choose == "folds" and (alone := kfold.find_unfoldable(rows)):
        raise Unusable(
            f"class {alone!r} has one image or group in train and val; to choose by folds takes two of each class",
            "add images of it, or set choose: val",
        )
