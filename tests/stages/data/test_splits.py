"""splits.py: adding images moves no old one, and what belongs together stays together."""

from __future__ import annotations

import hashlib
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache.errors import Unusable
from stages.data import splits
from stages.data.manifest import Row


def rows(n: int, start: int = 0) -> list[Row]:
    return [Row(hashlib.sha256(str(i).encode()).hexdigest(), f"{i}.png", "x") for i in range(start, start + n)]


def test_shares_are_about_those_asked_for() -> None:
    counts = Counter(row.split for row in splits.assign_splits(rows(10_000), 0.15, 0.1, seed=0))
    assert abs(counts["val"] - 1500) < 150
    assert abs(counts["test"] - 1000) < 150


def test_literal_splits() -> None:
    """Frozen: a change would move images between train and test for everybody."""
    assigned = splits.assign_splits([*rows(7), rows(1)[0]._replace(group="panel1")], 0.3, 0.3, seed=1)
    assert [row.split for row in assigned] == ["train", "test", "train", "train", "val", "test", "test", "train"]


@given(st.integers(0, 50), st.integers(1, 50), st.integers(0, 5))
def test_adding_images_moves_no_old_one(n: int, more: int, seed: int) -> None:
    before = splits.assign_splits(rows(n), 0.2, 0.2, seed)
    after = splits.assign_splits([*rows(more, start=n), *rows(n)], 0.2, 0.2, seed)
    assert after[more:] == before


def test_seed_moves_some() -> None:
    assert splits.assign_splits(rows(50), 0.2, 0.2, 0) != splits.assign_splits(rows(50), 0.2, 0.2, 1)


def test_copies_never_straddle() -> None:
    for row in rows(100):
        copies = [row, row._replace(path="copy.png"), row._replace(path="again.png")]
        assert len({r.split for r in splits.assign_splits(copies, 0.3, 0.3, 0)}) == 1


@given(st.lists(st.tuples(st.integers(0, 9), st.sampled_from([None, "a", "b", "c"])), max_size=20), st.integers(0, 9))
def test_groups_never_straddle_and_merge_where_they_share_an_image(
    pairs: list[tuple[int, str | None]], seed: int
) -> None:
    names = rows(10)
    assigned = splits.assign_splits([names[i]._replace(group=group) for i, group in pairs], 0.3, 0.3, seed)
    for field in ("id", "group"):
        of: dict[str, set[str | None]] = {}
        for row in assigned:
            if getattr(row, field) is not None:
                of.setdefault(getattr(row, field), set()).add(row.split)
        assert all(len(found) == 1 for found in of.values())


def test_a_split_that_the_user_made_is_honoured() -> None:
    made = [row._replace(split=split) for row, split in zip(rows(3), ("train", "val", "test"), strict=True)]
    assert list(splits.assign_splits(made, 0.5, 0.3, 0)) == made


def test_without_val_it_is_taken_out_of_train_and_test_is_left_alone() -> None:
    made = [row._replace(split="test" if i % 5 == 0 else "train") for i, row in enumerate(rows(1000))]
    assigned = splits.assign_splits(made, 0.2, 0.2, 0)
    assert [r.split == "test" for r in assigned] == [r.split == "test" for r in made]
    assert abs(sum(r.split == "val" for r in assigned) - 200) < 50


def test_a_row_without_a_split_goes_where_its_group_or_copy_is() -> None:
    one, two, three, four = rows(4)
    table = [
        one._replace(split="test", group="g"),
        two._replace(split="val"),
        three._replace(split="train"),
        four._replace(group="g"),
        two._replace(path="copy.png"),
    ]
    assert [row.split for row in splits.assign_splits(table, 0.0, 0.0, 0)] == ["test", "val", "train", "test", "val"]


def test_group_from_the_path() -> None:
    found = splits.group_by(
        [Row("a", "panel7_3.png"), Row("b", "loose.png"), Row("c", "panel7_4.png", group="own")], r"(panel\d+)_"
    )
    assert [row.group for row in found] == ["panel7", None, "own"]


def test_an_expression_that_is_found_nowhere_is_no_silence() -> None:
    with pytest.raises(Unusable, match=r"'\(xyz\)' matches none of the 3 paths, such as 0\.png"):
        splits.group_by(rows(3), "(xyz)")


def test_a_bad_expression_is_named() -> None:
    with pytest.raises(Unusable, match=r"data\.group_from: '\(' is not a regular expression"):
        splits.group_by([], "(")
