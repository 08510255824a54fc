"""distance.py: what numpy makes of the arrays, thresholds at a rate, files and keys."""

import io

import numpy as np
import pytest

from cache import npz
from stages.data.manifest import Manifest, Row
from stages.targets.classes import Classes
from stages.targets.numbers import Numbers
from stages.unknown.distance import Distance, Unknown, unknown_key

RNG = np.random.default_rng(0)
CLASSES = Classes(("a", "b"))


def made(held: np.ndarray, dim: int = 40) -> Distance:
    directions = np.linalg.qr(RNG.normal(size=(dim, 3)))[0].astype(np.float32)
    mean, prototypes = (RNG.normal(size=shape).astype(np.float32) for shape in (dim, (dim, 4)))
    gains = np.array([-0.9, -0.5, -0.1], np.float32)
    return Distance(np.array([[0, dim]]), mean / 10, directions, gains, prototypes, held.astype(np.float32))


def test_it_is_one_less_the_cosine_with_the_nearest_prototype_in_the_metric_of_the_gains() -> None:
    distance, x = made(np.ones(5)), RNG.normal(size=(7, 40)).astype(np.float32)
    centred = x / np.linalg.norm(x, axis=1, keepdims=True) - distance.mean
    metric = np.eye(40) + distance.directions * distance.gains @ distance.directions.T  # the square of what is applied
    lengths = np.sqrt(np.einsum("ij,jk,ik->i", centred, metric, centred))
    near = [max(row @ prototype for prototype in distance.prototypes.T) for row in centred]
    expected = 1 - np.array(near) / lengths
    np.testing.assert_allclose(distance(x), expected, atol=1e-5)


def test_a_row_counts_by_its_direction_alone_and_by_no_neighbour() -> None:
    distance, x = made(np.ones(5)), RNG.normal(size=(7, 40)).astype(np.float32)
    np.testing.assert_allclose(distance(3 * x), distance(x), rtol=1e-5)
    assert distance(x[2:3])[0] == pytest.approx(distance(x)[2], rel=1e-12)


@pytest.mark.parametrize(("n", "rate", "expected"), [(19, 0.05, 19), (99, 0.05, 95), (99, 0.5, 50), (100, 0.01, 100)])
def test_the_threshold_is_that_of_split_conformal_prediction(n: int, rate: float, expected: int) -> None:
    assert made(np.arange(1, n + 1)).threshold(rate) == expected


@pytest.mark.parametrize("n", [0, 18])
def test_too_few_rows_for_a_rate_give_no_threshold(n: int) -> None:
    assert made(np.arange(1, n + 1)).threshold(0.05) is None
    assert Unknown.at(made(np.arange(1, n + 1)), 0.05) is None


def test_a_rate_of_0_tells_nothing() -> None:
    assert Unknown.at(made(np.arange(1, 100)), 0) is None


def test_scores_are_distances_over_the_threshold() -> None:
    distance, x = made(np.full(50, 0.25)), RNG.normal(size=(7, 40)).astype(np.float32)
    unknown = Unknown.at(distance, 0.05)
    assert unknown is not None
    assert unknown.scores(x).tolist() == (distance(x) / 0.25).tolist()


def test_its_file_gives_it_back_and_one_without_an_array_is_refused() -> None:
    distance, x = made(np.arange(1, 100)), RNG.normal(size=(7, 40)).astype(np.float32)
    again = Distance.from_bytes(distance.to_bytes())
    assert again(x).tolist() == distance(x).tolist()
    assert again.threshold(0.1) == distance.threshold(0.1)
    rest = npz.load(io.BytesIO(distance.to_bytes()))
    del rest["unknown_mean"]
    with pytest.raises(KeyError, match="unknown_mean"):
        Distance.from_bytes(npz.dump(rest))


def test_its_key_sees_rows_and_labels_and_whether_these_are_classes() -> None:
    manifest = Manifest((Row("0" * 64, "x.png", "a", "train"), Row("1" * 64, "y.png", "b", "train")))
    moved = Manifest((manifest.rows[0]._replace(path="z.png"), manifest.rows[1]))
    other = Manifest((manifest.rows[0]._replace(label="b"), manifest.rows[1]))
    first = unknown_key(CLASSES, ["k"], manifest)
    assert unknown_key(CLASSES, ["k"], moved) == first
    others = [
        unknown_key(CLASSES, ["k"], other), unknown_key(CLASSES, ["k", "l"], manifest),
        unknown_key(Numbers(("weight",)), ["k"], manifest),
    ]  # fmt: skip
    assert len({first, *others}) == 4
