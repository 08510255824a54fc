"""curves.py: points whose areas are scikit-learn's, columns with gaps, and reliability by hand."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from stages.metrics import curves


@pytest.mark.parametrize("ties", [False, True])
def test_areas_are_scikit_learn_s_and_lie_below_the_steps(ties: bool) -> None:
    rng = np.random.default_rng(0)
    positive = rng.random(300) < 0.3
    scores = positive + rng.normal(size=300)
    scores = scores.round() if ties else scores
    roc, steps = curves.roc(positive, scores), curves.precision_recall(positive, scores)
    assert roc.area == pytest.approx(roc_auc_score(positive, scores))
    assert np.trapezoid(roc.y, roc.x) == pytest.approx(roc.area)
    assert steps.area == pytest.approx(average_precision_score(positive, scores))
    assert (np.diff(steps.x) * steps.y[1:]).sum() == pytest.approx(steps.area)
    assert (steps.x[0], steps.x[-1]) == (0, 1)


def test_a_column_has_a_curve_where_some_are_known_to_be_and_some_not() -> None:
    truth = np.array([[1, 1, np.nan, 0], [0, 1, 1, 1], [1, 1, np.nan, np.nan], [0, 1, 0, 0]])
    found = dict(curves.column_curves(truth, np.arange(16).reshape(4, 4) / 16, curves.roc))
    assert sorted(found) == [0, 2, 3]
    assert found[2].area == 0
    assert found[3].area == 0.5


def test_reliability_counts_bins() -> None:
    right, confidence = np.array([1, 0, 1, 1], bool), np.array([0.55, 0.56, 0.99, 1.0])
    found = curves.reliability(right, confidence)
    assert found.bin.tolist() == [8, 14]
    assert found.n.tolist() == [2, 2]
    assert found.confidence == pytest.approx([0.555, 0.995])
    assert found.right.tolist() == [0.5, 1.0]
    assert (found.low < found.right).all()
    assert found.high.tolist() == pytest.approx([0.905, 1.0], abs=1e-3)
