"""subsets.py: subsets hold each other, keep classes and groups, and no head sees what it is judged on."""

from __future__ import annotations

from collections import Counter

import numpy as np

from stages.data.manifest import Row
from stages.labelling import subsets
from stages.metrics.kfold import Strata, by_label

ROWS = [Row(f"{i:064x}", "", "abc"[(i % 10 > 5) + (i % 10 > 8)], "train") for i in range(200)]


def test_every_beginning_of_the_order_is_stratified() -> None:
    order, ends = subsets.nested_order(ROWS, by_label(ROWS), np.random.default_rng(0))
    assert sorted(order) == list(range(200))
    assert ends.tolist() == list(range(1, 201))
    for n in (20, 50, 100, 150):
        counts = Counter(ROWS[i].label for i in order[:n])
        for label, share in (("a", 0.6), ("b", 0.3), ("c", 0.1)):
            assert abs(counts[label] - share * n) <= 3
    assert set(Counter(ROWS[i].label for i in order[:6]).values()) == {2}


def test_no_class_comes_first_where_no_head_needs_it() -> None:
    labels = Strata([(row.label or "",) for row in ROWS], needed=False)
    order, _ = subsets.nested_order(ROWS, labels, np.random.default_rng(0))
    assert Counter(ROWS[i].label for i in order[:6])["a"] >= 3


def test_groups_stay_whole_and_each_split_keeps_its_share() -> None:
    rows = [row._replace(group=f"{i // 4}", split="val" if i // 4 % 5 == 0 else "train") for i, row in enumerate(ROWS)]
    order, ends = subsets.nested_order(rows, by_label(rows), np.random.default_rng(0))
    for end in ends[4::7]:
        inside, outside = ({rows[i].group for i in part} for part in (order[:end], order[end:]))
        assert not inside & outside
    assert 16 <= sum(rows[i].split == "val" for i in order[:100]) <= 24


def test_each_row_is_judged_without_its_fold_and_subsets_hold_the_smaller_ones() -> None:
    fitted: dict[tuple[int, ...], list[set[int]]] = {}

    def fit(numbers: np.ndarray, judged: np.ndarray, step: int) -> np.ndarray:
        assert not {*numbers} & {*judged}
        assert len(numbers) == sizes[step]
        fitted.setdefault(tuple(judged), []).append({*numbers.tolist()})
        return np.full((len(judged), 1), step, dtype=float)

    sizes = [20, 60, 160]
    found = subsets.judge(fit, ROWS, by_label(ROWS), sizes, 2, 0)
    assert [[(p.shape, p.min(), p.max()) for p in steps] for steps in found] == [
        [((200, 1), step, step) for step in range(3)]
    ] * 2
    assert len(fitted) == 10
    for small, middle, large in fitted.values():
        assert small < middle < large


def test_sizes_are_evenly_apart_on_a_log_scale() -> None:
    assert subsets.choose_sizes(1600, 4) == [100, 200, 400, 800, 1600]
    assert subsets.choose_sizes(40, 20) == [20, 24, 28, 34, 40]
    assert subsets.choose_sizes(40, 0)[0] == subsets.LEAST
