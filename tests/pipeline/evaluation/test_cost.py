"""cost.py: the interval of a difference, and how many images it takes at least."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.evaluation import cost
from stages.metrics import intervals


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
