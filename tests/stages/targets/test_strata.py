"""Splits and folds of labels and numbers: what is predicted is spread evenly, and groups stay whole."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.data import splits
from stages.data.manifest import Row
from stages.metrics import kfold
from stages.targets.labels import Labels
from stages.targets.numbers import Numbers
from stages.targets.soft import Soft
from stages.targets.target import Target
from tests.support.problems import labels_of, numbers_of, rows, shares_of

SHARES = {"train": 0.6, "val": 0.2, "test": 0.2}


def drawn(
    labels: Sequence[str], kind: type[Target], seed: int = 0, groups: Sequence[str | None] | None = None
) -> list[Row]:
    given = [row._replace(split=None) for row in rows(labels, [""] * len(labels))]
    given = [row._replace(group=group) for row, group in zip(given, groups or [None] * len(labels), strict=True)]
    found = splits.assign_splits(given, 0.2, 0.2, seed, {}, lambda some: kind.strata(some).names)
    return list(found)


def marks(n: int, seed: int) -> np.ndarray:
    """Labels of different frequencies, some of which come together: (n, 5)."""
    rng = np.random.default_rng(seed)
    y = rng.random((n, 5)) < [0.5, 0.3, 0.1, 0.05, 0.4]
    y[:, 4] |= y[:, 0] & (rng.random(n) < 0.5)
    return y.astype(np.float64)


def numbers(n: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).lognormal(sigma=0.7, size=(n, 1))


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("n", [60, 400])
def test_a_label_that_comes_alone_is_within_one_image_of_its_share(n: int, seed: int) -> None:
    y = np.eye(5)[np.random.default_rng(seed).choice(5, n, p=[0.4, 0.3, 0.15, 0.1, 0.05])]
    found = drawn(labels_of(y, "abcde"), Labels, seed)
    for column in range(5):
        here = Counter(row.split for row, has in zip(found, y[:, column], strict=True) if has)
        for split in ("val", "test"):
            assert abs(here[split] - SHARES[split] * here.total()) <= max(1, here.total() < 5)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("n", [60, 400])
def test_labels_that_come_together_are_spread_evenly_too(n: int, seed: int) -> None:
    """Within two images; of a draw by chance alone some label is off by far more."""
    y = marks(n, seed)
    found = drawn(labels_of(y, "abcde"), Labels, seed)
    sizes = Counter(row.split for row in found)
    for split, share in SHARES.items():
        assert abs(sizes[split] - share * n) <= 4
    for column in range(5):
        here = Counter(row.split for row, has in zip(found, y[:, column], strict=True) if has)
        assert all(abs(here[split] - SHARES[split] * here.total()) <= 2 for split in ("val", "test")), here


@pytest.mark.parametrize("seed", range(4))
def test_folds_of_labels_are_even(seed: int) -> None:
    y = marks(200, seed)
    given = rows(labels_of(y, "abcde"), ["train"] * 200)
    folds = kfold.assign_folds(given, 5, seed, Labels.strata([row.label or "" for row in given]))
    assert np.bincount(folds).tolist() == pytest.approx([40] * 5, abs=3)
    for column in range(5):
        assert np.ptp(np.bincount(folds[y[:, column] == 1], minlength=5)) <= 3


@pytest.mark.parametrize("seed", range(4))
def test_numbers_have_the_same_mean_in_all_splits_and_folds(seed: int) -> None:
    y = numbers(400, seed)
    found = drawn(numbers_of(y), Numbers, seed)
    means = {s: y[[row.split == s for row in found]].mean() for s in SHARES}
    assert max(means.values()) - min(means.values()) < 0.35 * y.std()
    sizes = Counter(row.split for row in found)
    assert all(abs(sizes[split] - share * 400) <= 5 for split, share in SHARES.items())
    fifths = np.searchsorted(np.quantile(y, [0.2, 0.4, 0.6, 0.8]), y[:, 0])
    for fifth in range(5):
        here = Counter(row.split for row, of in zip(found, fifths, strict=True) if of == fifth)
        assert abs(here["test"] - 16) <= 1
    folds = kfold.assign_folds(found, 5, seed, Numbers.strata(numbers_of(y)))
    assert np.ptp([y[folds == fold].mean() for fold in range(5)]) < 0.45 * y.std()


@pytest.mark.parametrize("n", [10, 20, 30])
def test_few_images_with_numbers_are_split_by_the_shares_too(n: int) -> None:
    sizes = Counter(row.split for row in drawn(numbers_of(numbers(n, 0)), Numbers))
    assert all(abs(sizes[split] - share * n) <= 2 for split, share in SHARES.items()), sizes
    assert min(sizes["val"], sizes["test"]) > 0


@given(st.integers(2, 40), st.integers(2, 8), st.integers(0, 5), st.sampled_from(["numbers", "alone", "together"]))
def test_no_fold_is_empty(n: int, k: int, seed: int, what: str) -> None:
    k = min(k, n)
    if what == "numbers":
        labels, strata = numbers_of(numbers(n, seed)), Numbers.strata(numbers_of(numbers(n, seed)))
    else:
        labels = [json.dumps({f"l{i}": 1} if what == "alone" else {"a": 1, f"l{i % 3}": 1}) for i in range(n)]
        strata = Labels.strata(labels)
    folds = kfold.assign_folds(rows(labels, ["train"] * n), k, seed, strata)
    sizes = np.bincount(folds, minlength=k)
    assert sizes.min() >= 1
    assert np.ptp(sizes) <= (2 if what == "alone" else 5)


def test_no_fold_of_groups_of_very_different_sizes_is_empty() -> None:
    groups = ["large"] * 100 + [f"g{i}" for i in range(10)]
    given = [
        row._replace(group=group)
        for row, group in zip(rows(numbers_of(numbers(110, 0)), ["train"] * 110), groups, strict=True)
    ]
    strata = Numbers.strata([row.label or "" for row in given])
    assert np.bincount(kfold.assign_folds(given, 5, 0, strata), minlength=5).min() >= 1


@pytest.mark.parametrize("kind", ["labels", "numbers", "soft"])
@pytest.mark.parametrize("seed", range(3))
def test_groups_stay_whole(kind: str, seed: int) -> None:
    n, rng = 150, np.random.default_rng(seed)
    groups = [f"g{i}" for i in rng.integers(0, 30, n)]
    shares = rng.dirichlet(np.ones(3), n)
    labels, target = {
        "labels": (labels_of(marks(n, seed), "abcde"), Labels),
        "numbers": (numbers_of(numbers(n, seed)), Numbers),
        "soft": ([shares_of(share, "abc") for share in shares], Soft),
    }[kind]
    found = drawn(labels, target, seed, groups)
    assert all(len({row.split for row in found if row.group == group}) == 1 for group in groups)
    sizes = Counter(row.split for row in found)
    assert all(abs(sizes[split] - share * n) <= 20 for split, share in SHARES.items())
    folds = kfold.assign_folds(found, 5, seed, target.strata(labels))
    assert all(len({f for f, g in zip(folds, groups, strict=True) if g == group}) == 1 for group in groups)


def test_images_without_a_label_are_a_stratum_of_their_own() -> None:
    strata = Labels.strata(["{}", '{"a": null}', '{"a": 1, "b": null}'])
    assert strata.members == {"": [0, 1], "a": [2]}
    assert not strata.needed
    assert Labels.counted("{}") == ["(none)"]
    assert Labels.counted('{"a": 1, "b": 1}') == ["a", "b"]


def test_soft_labels_are_spread_by_their_largest_share() -> None:
    assert Soft.strata(['{"a": 0.4, "b": 0.6}', '{"a": 0.5, "b": 0.5}']).names == [("b",), ("a",)]
