"""shortcuts.py: what tells the class is found by what tells it, and chance tells nothing."""

from __future__ import annotations

import numpy as np
import pytest

from cache.errors import Unusable
from stages.audit.picture_facts import FACTS
from stages.audit.shortcuts import clues, find_shortcuts, folders
from stages.data.manifest import Row

N = 200


def images(folder: str = "", groups: bool = False) -> tuple[np.ndarray, list[Row]]:
    """Facts at random, and rows of two classes, the first of 60 %."""
    rng = np.random.default_rng(0)
    facts = np.zeros(N, FACTS)
    facts["width"], facts["height"] = rng.integers(100, 200, (2, N))
    facts["bytes"], facts["format"], facts["mode"] = rng.integers(1000, 9000, N), "JPEG", "RGB"
    labels = np.where(rng.uniform(size=N) < 0.6, "cat", "dog")
    rows = [Row(f"{i}", f"{folder}{i}.jpg", label, "train", f"{i // 4}" if groups else None)
            for i, label in enumerate(labels.tolist())]  # fmt: skip
    return facts, rows


def test_chance_tells_nothing() -> None:
    for seed in range(10):
        facts, rows = images(groups=seed % 2 == 0)
        labels = np.random.default_rng(seed).permutation([row.label for row in rows]).tolist()
        mixed = [row._replace(label=label) for row, label in zip(rows, labels, strict=True)]
        assert find_shortcuts(clues(facts), mixed) == []


@pytest.mark.parametrize("by", ["size", "format", "bytes per pixel"])
def test_what_differs_is_named_with_its_accuracy(by: str) -> None:
    facts, rows = images()
    dogs = np.array([row.label == "dog" for row in rows])
    dogs[:20] = ~dogs[:20]  # one in ten is an exception
    facts["width"][dogs] = 300 if by == "size" else facts["width"][dogs]
    facts["format"][dogs] = "PNG" if by == "format" else "JPEG"
    facts["bytes"][dogs] *= 20 if by == "bytes per pixel" else 1
    best = find_shortcuts(clues(facts), rows)[0]
    assert best.by == by
    assert best.accuracy.value == pytest.approx(0.9, abs=0.06)
    assert best.majority.value == pytest.approx(0.6, abs=0.08)
    assert best.accuracy.ci is not None
    assert best.accuracy.ci[0] < best.accuracy.value < best.accuracy.ci[1] < 0.95


def test_folders_count_unless_they_have_the_names_of_classes() -> None:
    _, rows = images()
    named = [row._replace(path=f"a/{row.label}/{row.path}") for row in rows]
    assert folders(named) is None
    by_camera = [row._replace(path=f"{'left' if row.label == 'cat' else 'right'}/{row.path}") for row in rows]
    told = folders(by_camera)
    assert told is not None
    (found,) = find_shortcuts({"folder": told}, by_camera)
    assert (found.by, found.accuracy.value) == ("folder", 1.0)
    alone = folders([row._replace(path=f"{i}/{row.path}") for i, row in enumerate(rows)])
    assert alone is not None
    assert find_shortcuts({"folder": alone}, rows) == []


def test_groups_that_are_the_folders_leave_nothing_to_tell() -> None:
    _, rows = images()
    kept = [row._replace(path=f"{i // 4}/{i}", group=f"{i // 4}", label="cat" if i // 4 % 2 else "dog")
            for i, row in enumerate(rows)]  # fmt: skip
    told = folders(kept)
    assert told is not None
    assert find_shortcuts({"folder": told}, kept) == []
    assert find_shortcuts({"folder": told}, [row._replace(group=None) for row in kept])[0].by == "folder"


def test_too_few_images_are_refused() -> None:
    with pytest.raises(Unusable, match="too few"):
        find_shortcuts({}, [Row("1", "1", "cat"), Row("2", "2", "dog")])
