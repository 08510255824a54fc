"""choose_images.py: what is drawn is unsure and apart, and each image once."""

from __future__ import annotations

import numpy as np

from stages.labelling import choose_images
from stages.targets.classes import Classes
from stages.targets.labels import Labels
from stages.targets.numbers import Numbers

TWO = Classes(["a", "b"])


def test_sure_images_have_small_gaps() -> None:
    p = np.array([[0.5, 0.5], [0.9, 0.1], [0.0, 1.0]])
    assert np.abs(choose_images.unsure(p, TWO)).sum(axis=1).round(6).tolist() == [1.0, 0.2, 0.0]
    many = choose_images.unsure(np.array([[0.9, 0.5], [0.1, 0.2]]), Labels(["a", "b"]))
    assert np.abs(many).round(6).tolist() == [[0.1, 0.5], [0.1, 0.2]]
    assert choose_images.unsure(np.array([[3.0], [9.0]]), Numbers(["mass"], units=[""])).tolist() == [[1.0], [1.0]]


def test_the_least_sure_comes_first_and_all_kinds_of_unsure_images_are_drawn() -> None:
    """Four bundles of unsure images, and many sure ones: the first draws have one of each bundle, and no sure one."""
    random = np.random.default_rng(0)
    rows = np.repeat(np.eye(5), [5, 5, 5, 5, 80], axis=0) + 0.01 * random.normal(size=(100, 5))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    p = np.full(100, 0.999)
    p[:20] = 0.55
    p[7] = 0.5
    for seed in range(20):
        chosen = choose_images.choose(choose_images.unsure(np.stack([p, 1 - p], axis=1), TWO), rows, 4, seed)
        assert chosen[0] == 7
        assert sorted(chosen // 5) == [0, 1, 2, 3]


def test_each_image_is_drawn_once_and_all_where_fewer_are_there() -> None:
    rows = np.ones((6, 3)) / np.sqrt(3)
    chosen = choose_images.choose(choose_images.unsure(np.full((6, 2), 0.5), TWO), rows, 10, 0)
    assert sorted(chosen) == list(range(6))
