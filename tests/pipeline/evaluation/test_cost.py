"""cost.py: the interval of a difference, and how many images it takes at least."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from pipeline.evaluation import cost
from stages.data.manifest import Manifest
from stages.metrics import intervals
from stages.targets.labels import Labels
from stages.targets.numbers import Numbers
from stages.targets.soft import Soft
from stages.targets.target import Target
from tests.support.problems import rows


@pytest.mark.parametrize("grouped", [False, True])
def test_the_interval_is_that_of_the_bootstrap(grouped: bool) -> None:
    rng = np.random.default_rng(0)
    truth, n = rng.integers(0, 2, 900), 900
    a, b = ((truth == 1) * 0.6 + rng.normal(0.2, 0.25, n) for _ in "ab")
    p, q = (np.stack([1 - x, x], axis=1).clip(0.01, 0.99) for x in (a, b))
    groups = [f"{i // 3}" if grouped else None for i in range(n)]
    drawn = intervals.paired_difference(["ab"[t] for t in truth], p, q, "ab", groups)["accuracy"]
    right = [(x.argmax(axis=1) == truth).astype(float) for x in (p, q)]
    found = cost.difference_of_means(right[1] - right[0], groups)
    assert found.value == pytest.approx(drawn.value)
    assert found.ci == pytest.approx(drawn.ci, abs=0.15 * (drawn.ci[1] - drawn.ci[0]))


def test_fewer_images_than_the_least_cannot_tell() -> None:
    """Even where one row alone in very many differs; without any, there is no doubt."""
    for n, enough in ((cost.LEAST_JUDGED - 30, False), (cost.LEAST_JUDGED + 250, True)):
        change = np.zeros(n)
        change[0] = 1e-6
        low, _ = cost.difference_of_means(change, [None] * n).ci or (-1, 1)
        assert (low > -cost.LOSS) == enough


@pytest.mark.parametrize("kind", [Labels, Numbers])
def test_what_has_no_classes_is_judged_by_no_accuracy(kind: type[Target]) -> None:
    label = '{"a": 1}' if kind is Labels else '{"a": 1.5}'
    assert cost.choose_rows(Manifest(tuple(rows([label] * 4, ["train"] * 4))), kind) == ((), ())


def test_shares_are_judged_by_the_class_of_the_largest() -> None:
    labels = [*['{"a": 0.7, "b": 0.3}', '{"a": 0.2, "b": 0.8}'] * 3, '{"a": 0.1, "b": 0.2, "c": 0.7}']
    found, classes = cost.choose_rows(Manifest(tuple(rows(labels, ["train"] * 6 + ["val"]))), Soft)
    assert Counter(row.label for row in found) == {"a": 3, "b": 3}, "one image alone cannot be folded"
    assert classes == ("a", "b")
