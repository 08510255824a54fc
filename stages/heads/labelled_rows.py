"""Owns the labelled rows that heads are fitted on: what they have, rows of a split. Not the features (matrix.py)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from cache.errors import Unusable
from stages.data.manifest import SPLITS, Manifest, Row
from stages.metrics import kfold
from stages.targets.target import Target


def encode(rows: Sequence[Row], target: Target) -> np.ndarray:
    """What the rows have, as arrays (`Target.encode`); line i is rows[i]."""
    return target.encode([row.label or "" for row in rows])


def rows_in_split(rows: Sequence[Row], split: str) -> np.ndarray:
    """The numbers of the rows of a split, ascending."""
    return np.flatnonzero([row.split == split for row in rows])


def find_unfoldable(rows: Sequence[Row], target: Target) -> str | None:
    """A class of these rows that folds cannot judge; None for none."""
    return kfold.find_unfoldable(rows, target.strata([row.label or "" for row in rows]))


def check_splits(manifest: Manifest, choose: str, target: Target) -> None:
    """Raises Unusable where a head cannot be fitted on train and chosen on val; or by folds, on both together."""
    in_split = Counter(row.split for row in manifest.samples)
    needed = ("train", "val") if choose == "val" else ("train",)
    for split in needed:
        if not in_split[split]:
            sizes = ", ".join(f"{s} {in_split[s]}" for s in SPLITS)
            raise Unusable(
                f"no labelled image is in {split} ({sizes}); a head is fitted on train, chosen on val",
                "enlarge data.split.val, or add images",
            )
    strata = target.strata([row.label or "" for row in manifest.samples])
    for label, here in strata.members.items() if strata.needed else ():
        of_label = Counter(manifest.samples[i].split for i in here)
        if not of_label["train"]:
            raise Unusable(
                f"class {label!r} has no image in train ({of_label['val']} in val, {of_label['test']} in test)",
                "add images of it to train; where data.split draws the splits, another data.split.seed may do",
            )
    rows = [row for row in manifest.samples if row.split == "train"]
    if choose == "folds" and (alone := find_unfoldable(rows, target)):
        raise Unusable(
            f"class {alone!r} has one image or group in train and val; to choose by folds takes two of each class",
            "add images of it, or set choose: val",
        )
