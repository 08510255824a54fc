"""wrong_labels.py: confident learning, and the order by a label's own probability."""

from __future__ import annotations

import numpy as np

from stages.audit.wrong_labels import find_suspects


def test_a_label_is_suspect_where_another_class_is_more_probable_than_is_usual_for_it() -> None:
    """Averages of own labels are 0.7 and 0.55: 0.6 for class 1 is confident, 0.5 for class 0 is not."""
    p = np.array([[0.9, 0.1], [0.8, 0.2], [0.4, 0.6], [0.1, 0.9], [0.5, 0.5], [0.75, 0.25]])
    found = find_suspects(p, np.array([0, 0, 0, 1, 1, 1]))
    assert found.confident.tolist() == [False, False, True, False, False, True]
    assert found.instead.tolist() == [1, 1, 1, 0, 0, 0]
    assert found.own.tolist() == [0.9, 0.8, 0.4, 0.9, 0.5, 0.25]
    assert found.order.tolist() == [5, 2, 4, 1, 0, 3]


def test_where_several_classes_reach_their_average_the_most_probable_counts() -> None:
    p = np.array(
        [[0.4, 0.35, 0.25], [0.1, 0.3, 0.6], [0.1, 0.3, 0.6], [0.44, 0.1, 0.46], [0.3, 0.4, 0.3], [0.5, 0.0, 0.5]]
    )
    found = find_suspects(p, np.array([0, 1, 1, 2, 2, 2]))
    assert found.confident.tolist() == [False, True, True, False, True, False]
    assert found.instead.tolist() == [1, 2, 2, 0, 1, 0]


def test_a_class_without_images_is_suggested_by_no_confidence() -> None:
    p = np.array([[0.2, 0.1, 0.7], [0.1, 0.8, 0.1], [0.2, 0.2, 0.6]])
    assert not find_suspects(p, np.array([0, 1, 0])).confident.any()


def test_replaced_labels_come_first() -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 4, 400)
    p = rng.dirichlet(np.ones(4), 400) * 0.3 + 0.7 * np.eye(4)[y]
    wrong = rng.choice(400, 20, replace=False)
    labels = y.copy()
    labels[wrong] = (y[wrong] + 1) % 4
    found = find_suspects(p, labels)
    assert {*found.order[:20]} == {*wrong}
    assert {*np.flatnonzero(found.confident)} <= {*wrong}
    assert found.confident.sum() > 10
    assert np.array_equal(found.instead[wrong], y[wrong])
