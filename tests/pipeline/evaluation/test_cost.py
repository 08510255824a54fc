"""cost.py: the interval of a difference, and how many images it takes at least."""

from __future__ import annotations

import json

import numpy as np
import pytest

from pipeline.evaluation import cost
from stages.data.manifest import Manifest
from stages.metrics import intervals
from stages.targets.classes import Classes
from stages.targets.labels import Labels
from stages.targets.numbers import Numbers
from stages.targets.soft import Soft
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


def test_soft_labels_are_judged_by_their_class_and_other_targets_are_not() -> None:
    names = ["a", "b", "b", "a", "a", "b"]
    shares = [json.dumps({"a": 0.7, "b": 0.3} if name == "a" else {"a": 0.1, "b": 0.9}) for name in names]
    hard, classes = cost.choose_rows(Manifest(tuple(rows(names, ["train"] * 6))), Classes)
    soft, same = cost.choose_rows(Manifest(tuple(rows(shares, ["train"] * 6))), Soft)
    assert [(row.id, row.label) for row in soft] == [(row.id, row.label) for row in hard]
    assert (classes, same) == (("a", "b"), ("a", "b"))
    for kind, label in ((Labels, '{"a": 1}'), (Numbers, '{"a": 1.5}')):
        assert cost.choose_rows(Manifest(tuple(rows([label] * 6, ["train"] * 6))), kind) == ((), ())
