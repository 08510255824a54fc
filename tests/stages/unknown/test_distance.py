"""distance.py: what numpy makes of the arrays, thresholds at a rate, files and keys."""

import io
from dataclasses import replace

import numpy as np
import pytest

from cache import npz
from stages.data.manifest import Manifest, Row
from stages.targets.classes import Classes
from stages.targets.numbers import Numbers
from stages.unknown.distance import VERSION, ByClass, Distance, Unknown, unknown_key

RNG = np.random.default_rng(0)
CLASSES = Classes(("a", "b"))


def made(held: np.ndarray, dim: int = 40) -> Distance:
    directions = np.linalg.qr(RNG.normal(size=(dim, 3)))[0].astype(np.float32)
    mean, prototypes = (RNG.normal(size=shape).astype(np.float32) for shape in (dim, (dim, 4)))
    gains = np.array([-0.9, -0.5, -0.1], np.float32)
    return Distance(np.array([[0, dim]]), mean / 10, directions, gains, prototypes, held.astype(np.float32))


def with_classes(distance: Distance) -> Distance:
    dim, r = distance.directions.shape
    means, offsets, answers, bias = (RNG.normal(size=shape) for shape in ((dim, 3), 3, (dim, 3), 3))
    parts = (-RNG.uniform(0, 0.9, r), np.float64(0.7), means, offsets, answers, bias, np.array([2.0, 0.5, 3.0]))
    return replace(distance, by_class=ByClass(*(np.array(part, np.float32) for part in parts)))


def test_it_is_one_less_the_cosine_with_the_nearest_prototype_in_the_metric_of_the_gains() -> None:
    distance, x = made(np.ones(5)), RNG.normal(size=(7, 40)).astype(np.float32)
    centred = x / np.linalg.norm(x, axis=1, keepdims=True) - distance.mean
    metric = np.eye(40) + distance.directions * distance.gains @ distance.directions.T  # the square of what is applied
    lengths = np.sqrt(np.einsum("ij,jk,ik->i", centred, metric, centred))
    near = [max(row @ prototype for prototype in distance.prototypes.T) for row in centred]
    expected = 1 - np.array(near) / lengths
    np.testing.assert_allclose(distance(x), expected, atol=1e-5)


def test_of_classes_it_is_the_weighed_sum_of_three_parts() -> None:
    alone, x = made(np.ones(5)), RNG.normal(size=(7, 40)).astype(np.float32)
    distance = with_classes(alone)
    by = distance.by_class
    assert by is not None
    centred = x / np.linalg.norm(x, axis=1, keepdims=True) - distance.mean
    metric = np.eye(40) + distance.directions * by.gains @ distance.directions.T
    squares = np.einsum("ij,jk,ik->i", centred, metric, centred)
    to_means = (squares + (centred @ by.means + by.offsets).min(axis=1)) / 0.7
    doubt = 1 - (centred @ by.answers + by.bias).max(axis=1)
    np.testing.assert_allclose(distance(x), 2 * alone(x) + 0.5 * to_means + 3 * doubt, atol=1e-5)


@pytest.mark.parametrize("classes", [False, True])
def test_a_row_counts_by_its_direction_alone_and_by_no_neighbour(classes: bool) -> None:
    distance, x = made(np.ones(5)), RNG.normal(size=(7, 40)).astype(np.float32)
    distance = with_classes(distance) if classes else distance
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


@pytest.mark.parametrize("lost", ["mean", "class_means"])
def test_its_file_gives_it_back_and_one_without_an_array_is_refused(lost: str) -> None:
    distance, x = made(np.arange(1, 100)), RNG.normal(size=(7, 40)).astype(np.float32)
    distance = with_classes(distance) if lost == "class_means" else distance
    again = Distance.from_bytes(distance.to_bytes())
    assert again(x).tolist() == distance(x).tolist()
    assert again.threshold(0.1) == distance.threshold(0.1)
    rest = npz.load(io.BytesIO(distance.to_bytes()))
    del rest[f"unknown_{lost}"]
    with pytest.raises(KeyError, match=f"unknown_{lost}"):
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
    assert unknown_key(CLASSES, ["k"], manifest, VERSION) == first
    assert unknown_key(CLASSES, ["k"], manifest, 1) != first
