"""The weights of the mixture: chosen on rows that judge, drawn to a mixture that is known to do well where few do."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.config.head_schema import Logistic
from stages.heads import centroid, logistic, matrix
from stages.heads.matrix import OnDisk
from tests.support.problems import features, names, rows


def judges(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Logits of n rows that tell nothing, those of a centroid that tells much, and what is true."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 10
    return rng.normal(size=(1, n, 10)), 2 * np.eye(10)[y][None] + rng.normal(size=(1, n, 10)), y


def distance(found: centroid.Mix, prior: centroid.Mix) -> float:
    return float(np.hypot(*np.subtract(found, prior)))


def test_without_a_judge_the_weights_lie_between_both_priors_by_the_rows_a_class() -> None:
    nothing, y = np.zeros((1, 20, 10)), np.arange(20) % 10  # any weights have the same loss
    of = {a_class: centroid.choose_mix(nothing, nothing, y, a_class) for a_class in (1, 2, 10, 1000)}
    assert distance(of[1], centroid.FEW) < distance(of[2], centroid.FEW) < 0.03
    assert distance(of[10], centroid.FEW) > 0.3
    assert of[1000] == pytest.approx(centroid.ALONE, abs=1e-3)


def test_the_fewer_rows_a_class_the_nearer_to_few() -> None:
    apart = [distance(centroid.choose_mix(*judges(20), a_class), centroid.FEW) for a_class in (1, 2, 5, 20)]
    assert apart == sorted(apart)
    assert apart[0] < 0.5 * apart[-1]


def test_many_rows_overrule_what_is_pulled_to() -> None:
    logits, of_centroid, y = judges(4000)
    found = centroid.choose_mix(logits, of_centroid, y, 400)
    assert found[0] == pytest.approx(0, abs=0.05)  # those logits tell nothing
    assert found[1] == pytest.approx(2, abs=0.1)  # in theory: distance of the classes by the variance


def test_folds_mix_on_as_few_rows_as_there_are_and_val_on_twenty_or_more() -> None:
    x, labels = np.random.default_rng(0).normal(size=(28, 40)).astype(np.float32), [f"c{n % 2}" for n in range(28)]

    def mixed(*splits: str) -> bool:
        n = len(splits)
        head = logistic.fit(Logistic(), features(x[:n]), rows(labels[:n], splits), names(2))
        return bool(head.chosen["mix"] != {"logistic": 1.0, "centroid": 0.0})

    assert mixed(*["train"] * 8)
    assert not mixed(*["train"] * 20, *["val"] * 8)


def test_sums_of_classes_are_the_same_to_the_last_bit_where_rows_are_on_the_disk(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(5000, 40)).astype(np.float32), rng.integers(0, 7, 5000)
    monkeypatch.setattr(matrix, "BLOCK_BYTES", 4 * 40 * 300)
    rows_ = OnDisk(features(x), np.arange(5000), np.zeros(40))
    sums = centroid.class_sums(rows_, y, 7)
    assert sums.tobytes() == centroid.class_sums(x, y, 7).tobytes()
    assert np.allclose(sums, [x[y == label].sum(axis=0, dtype=np.float64) for label in range(7)], atol=1e-3)
    assert rows_.mean().tobytes() == x.mean(axis=0, dtype=np.float64).tobytes()
    shares = np.eye(7)[y]
    assert np.allclose(centroid.class_sums(rows_, shares, 7), sums, atol=1e-3)
