"""average.py: an average says the mean of what its members say, before and after its files."""

from __future__ import annotations

import numpy as np
import pytest

from stages.heads import average
from stages.heads.average import KIND, Average, Member
from stages.heads.fitted import Head, Layer, Layers
from stages.targets.classes import Classes

CLASSES = Classes("abc")


def members(classes: int) -> list[Member]:
    """Three, the first with a hidden layer; each with a tail."""
    rng, outputs = np.random.default_rng(classes), 1 if classes == 2 else classes
    stacks = [Layers([Layer(rng.normal(size=(5, outputs)), rng.normal(size=outputs))], [(0, 5)]) for _ in range(2)]
    hidden = Layer(rng.normal(size=(5, 4)), rng.normal(size=4), "tanh")
    stacks.insert(0, Layers([hidden, Layer(rng.normal(size=(4, outputs)), rng.normal(size=outputs))]))
    heads = [Head("logistic", Classes(CLASSES[:classes]), layers, {"epoch": n}) for n, layers in enumerate(stacks)]
    return [(head, {"head_conv/0": rng.normal(size=(2, 3)).astype(np.float32)}) for head in heads]


@pytest.mark.parametrize("classes", [2, 3])
def test_it_says_the_mean_of_its_members_and_so_do_its_files(classes: int) -> None:
    made = members(classes)
    x = [np.random.default_rng(n).normal(size=(7, 5)) for n in range(3)]
    expected = np.mean([head.predict(part) for (head, _), part in zip(made, x, strict=True)], axis=0)
    head, _ = average.join(made, {"views": 4})
    again = Head.from_files(head.to_files(), {KIND: Average})
    assert (again.kind, again.classes, again.chosen) == (KIND, Classes(CLASSES[:classes]), {"views": 4})
    for one in (head, again):
        assert one.predict(np.concatenate(x, axis=1)) == pytest.approx(expected, rel=1e-12)


def test_what_was_joined_is_parted_again() -> None:
    made = members(3)
    head, tail = average.join(made, {})
    assert set(tail) == {"0/head_conv/0", "1/head_conv/0", "2/head_conv/0"}
    for (one, arrays), (other, others) in zip(average.split(head, tail), made, strict=True):
        assert one.layers == other.layers
        assert one.layers.unit == other.layers.unit
        assert arrays.keys() == others.keys()
        assert arrays["head_conv/0"].tobytes() == others["head_conv/0"].tobytes()


def test_a_head_that_is_no_average_is_its_own_member() -> None:
    (head, tail), *_ = members(2)
    assert average.split(head, tail) == [(head, tail)]


def test_what_is_impossible_to_all_members_has_a_finite_logit() -> None:
    sure = Layers([Layer(np.zeros((1, 3)), np.array([5000.0, 0, 0]))])
    head, _ = average.join([(Head("logistic", CLASSES, sure, {}), {})] * 2, {})
    assert np.isfinite(head.scores(np.zeros((1, 2)))).all()
