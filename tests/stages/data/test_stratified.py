"""stratified.py, by way of splits.py: shares hold within each class, whatever comes when, and nothing drawn moves."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.data import splits
from stages.data.manifest import SPLITS, Row

SHARES = st.sampled_from([0.01, 0.05, 0.1, 0.15, 0.2, 0.3, 0.45])
BATCHES = st.lists(st.lists(st.sampled_from("aaaaaabbbc"), min_size=1, max_size=25), min_size=1, max_size=8)


def image(number: int, label: str | None, group: str | None = None, split: str | None = None) -> Row:
    return Row(hashlib.sha256(str(number).encode()).hexdigest(), f"{number}.png", label, split, group)


def draw(
    rows: Sequence[Row], before: dict[str, str], val: float = 0.15, test: float = 0.15, seed: int = 0
) -> dict[str, str]:
    """id -> split, and the same remembered in `before`, as splits.csv does."""
    assigned = splits.assign_splits(rows, val, test, seed, before)
    found = {row.id: str(row.split) for row in assigned}
    before |= {row.id: found[row.id] for row in rows if row.label is not None and row.split is None}
    return found


def counted(rows: Sequence[Row], found: dict[str, str]) -> dict[str, Counter[str]]:
    return {label: Counter(found[row.id] for row in rows if row.label == label) for label in {r.label for r in rows}}


@given(BATCHES, SHARES, SHARES, st.integers(0, 3))
def test_shares_hold_in_each_class_whatever_the_batches(
    batches: list[list[str]], val: float, test: float, seed: int
) -> None:
    rows: list[Row] = []
    before: dict[str, str] = {}
    for batch in batches:
        rows += [image(len(rows) + i, label) for i, label in enumerate(batch)]
        earlier = dict(before)
        found = draw(rows, before, val, test, seed)
        assert earlier.items() <= found.items()
        for by_split in counted(rows, found).values():
            n = by_split.total()
            assert abs(by_split["val"] - val * n) < 1
            assert abs(by_split["test"] - test * n) < 1
            assert all(by_split[split] for split in SPLITS) or n < 3
            assert by_split["train"] > 0


def test_a_class_of_one_is_trained_on_and_of_two_is_in_val_too() -> None:
    for n, expected in ((1, ["train"]), (2, ["train", "val"]), (3, ["test", "train", "val"])):
        rows = [image(i, "rare") for i in range(n)]
        assert sorted(draw(rows, {}).values()) == expected
        before: dict[str, str] = {}
        for i in range(1, n + 1):
            found = draw(rows[:i], before)
        assert sorted(found.values()) == expected


def test_the_whole_keeps_its_shares_too_however_many_classes() -> None:
    """Each class of ten is 1.5 images over in val or in test, and one of them must give way."""
    rows = [image(i, f"class {i % 200}") for i in range(2000)]
    total = Counter(draw(rows, {}).values())
    assert {split: abs(total[split] - share) < 5 for split, share in (("val", 300), ("test", 300))} == {
        "val": True,
        "test": True,
    }


GROUPS = st.lists(st.tuples(st.integers(0, 12), st.sampled_from("ab")), min_size=1, max_size=20)


@given(st.lists(GROUPS, min_size=1, max_size=4), st.integers(0, 3))
def test_groups_and_copies_stay_whole_and_where_they_are(batches: list[list[tuple[int, str]]], seed: int) -> None:
    rows: list[Row] = []
    before: dict[str, str] = {}
    for batch in batches:
        new = [image(len(rows) + i, label, f"g{group}") for i, (group, label) in enumerate(batch)]
        rows += new + [row._replace(path=f"copy of {row.path}") for row in new[::3]]
        earlier = dict(before)
        found = draw(rows, before, 0.2, 0.2, seed)
        assert earlier.items() <= found.items()
        for group in {row.group for row in rows}:
            assert len({found[row.id] for row in rows if row.group == group}) == 1


def test_groups_of_all_sizes_come_near_the_shares() -> None:
    sizes = [50, 20, 20, 5, 5, 5, 2, 2, *[1] * 20]
    rows = [
        image(1000 * c + 100 * g + i, "ab"[c], f"{c}/{g}")
        for c in (0, 1)
        for g, size in enumerate(sizes)
        for i in range(size)
    ]
    for by_split in counted(rows, draw(rows, {})).values():
        assert abs(by_split["val"] - 0.15 * sum(sizes)) <= 3
        assert abs(by_split["test"] - 0.15 * sum(sizes)) <= 3


def test_a_class_of_three_groups_is_in_all_splits_beside_a_large_one() -> None:
    rows = [image(i, "common", f"g{i // 10}") for i in range(200)]
    rows += [image(1000 + i, "rare", f"r{i // 4}") for i in range(12)]
    assert counted(rows, draw(rows, {}))["rare"] == {"train": 4, "val": 4, "test": 4}


def test_the_order_of_arrival_counts_and_the_order_of_rows_does_not() -> None:
    rows = [image(i, "ab"[i % 2]) for i in range(40)]
    assert draw(rows, {}) == draw(rows[::-1], {})
    before: dict[str, str] = {}
    draw(rows[:3], before)
    assert draw(rows, before) != draw(rows, {})


def test_seed_moves_some() -> None:
    rows = [image(i, "ab"[i % 2]) for i in range(40)]
    assert draw(rows, {}) != draw(rows, {}, seed=1)


def test_literal_splits() -> None:
    """Frozen: a change would draw others for those who share pipeline.yaml and not splits.csv."""
    rows = [*(image(i, "ab"[i % 3 == 0]) for i in range(12)), image(12, "a", "g"), image(13, "b", "g")]
    letters = {"train": "t", "val": "v", "test": "x"}
    assert "".join(letters[str(row.split)] for row in splits.assign_splits(rows, 0.2, 0.2, 3, {})) == "tttxxtvvttxvtt"


def test_what_was_drawn_stays_whatever_its_label_becomes() -> None:
    rows = [image(i, "ab"[i % 2]) for i in range(20)]
    before: dict[str, str] = {}
    first = draw(rows, before)
    assert draw([row._replace(label="other") for row in rows], before) == first
    assert draw([row._replace(label=None) for row in rows], before) == first


def test_without_a_label_an_image_is_drawn_by_its_bytes() -> None:
    rows = [image(i, None) for i in range(30)]
    by_hash = splits.assign_splits(rows, 0.2, 0.2, 0)
    assert splits.assign_splits(rows, 0.2, 0.2, 0, {}) == by_hash
    labelled = [image(100 + i, "a") for i in range(5)]
    assert splits.assign_splits([*rows, *labelled], 0.2, 0.2, 0, {})[:30] == by_hash


def test_the_user_s_own_splits_win_and_count() -> None:
    rows = [image(0, "a", split="val"), *(image(i, "a", split="train") for i in range(1, 8)), image(8, "a")]
    before = {row.id: "test" for row in rows[:8]}
    found = draw(rows, before)
    assert [found[row.id] for row in rows] == ["val", *["train"] * 7, "test"]


def test_without_val_it_is_taken_out_of_train_and_what_the_user_has_in_train_is_never_in_test() -> None:
    rows = [image(i, "ab"[i % 2], split="test" if i < 20 else "train") for i in range(100)]
    found = draw(rows, {}, 0.2, 0.2)
    assert all(found[row.id] == "test" for row in rows[:20])
    assert Counter(found[row.id] for row in rows[20:]) == {"train": 60, "val": 20}
    earlier = {rows[20].id: "test", rows[21].id: "val"}
    found = draw(rows, earlier, 0.2, 0.2)
    assert (found[rows[20].id], found[rows[21].id]) == ("train", "val")


@pytest.mark.parametrize(
    ("lines", "expected", "told"),
    [
        (["train", "val", "test"], "test", "g (train, val, test)"),
        (["train", "val", "val"], "val", "g (train, val)"),
        (["test", "test", "test"], "test", ""),
    ],
)
def test_of_groups_that_were_merged_the_strictest_split_wins(lines: list[str], expected: str, told: str) -> None:
    rows = [image(i, "a", "g") for i in range(4)]
    before = {row.id: split for row, split in zip(rows, lines, strict=False)}
    assert splits.describe_disagreement(rows, before) == told
    assert set(draw(rows, before).values()) == {expected}
    own = [*rows, image(9, "a", "g", "val")]
    assert splits.describe_disagreement(own, before) == ""
    assert set(draw(own, before).values()) == {"val"}


def test_too_few_for_a_figure() -> None:
    enough = {"train": 50, "val": 5, "test": 5}
    assert splits.describe_few({"a": enough}) == ""
    told = splits.describe_few({"a": enough, **{f"c{i}": {**enough, "test": i} for i in range(7)}})
    assert told.startswith("fewer than 5 images, too few to trust a figure: c0 test 0, c1 test 1, c2 test 2, c3 test 3")
    assert "c4 test 4; label more of them, enlarge data.split.val" in told
    assert splits.describe_few({"a": {**enough, "test": 0}, "b": {**enough, "test": 0}}) == ""
