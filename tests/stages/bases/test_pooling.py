"""pooling.py: what a pooling means for a shape, or that it means nothing."""

from __future__ import annotations

from typing import Any

import pytest

from cache.errors import Unusable
from stages.bases.pooling import Plan, plan_pooling
from stages.bases.recipe import Tap

SIZE = (224, 224)
PLANS: list[tuple[dict[str, Any], tuple[int, ...], Plan]] = [
    ({}, (7, 7, 1280), Plan(False, "mean")),
    ({}, (768, 7, 7), Plan(True, "mean")),
    ({"pooling": "max"}, (768, 7, 7), Plan(True, "max")),
    ({"pooling": "none"}, (768, 7, 7), Plan(True)),
    ({}, (7, 7, 7), Plan(True, "mean")),  # as the input is
    ({"layout": "nhwc"}, (7, 7, 7), Plan(False, "mean")),
    ({}, (10, 5, 64), Plan(True, "mean")),  # of no proportions that it knows
    ({"layout": "nhwc"}, (10, 5, 64), Plan(False, "mean")),
    ({"pooling": "cls"}, (257, 384), Plan(parts=("cls",), first=1)),
    ({"pooling": "mean"}, (257, 384), Plan(parts=("mean",), first=1)),
    ({"pooling": "mean"}, (261, 384), Plan(parts=("mean",), first=5)),  # four registers
    ({"pooling": "mean"}, (196, 384), Plan(parts=("mean",), first=0)),  # SigLIP has no class token
    ({"pooling": "cls+mean"}, (261, 384), Plan(parts=("cls", "mean"), first=5)),
    ({"pooling": "mean", "prefix": 1}, (257, 384), Plan(parts=("mean",), first=1)),
    ({"pooling": "mean", "prefix": 0}, (50, 384), Plan(parts=("mean",), first=0)),  # all alike
    ({"pooling": "none"}, (257, 384), Plan()),
    ({"pooling": "none"}, (768,), Plan()),
]


@pytest.mark.parametrize(("fields", "shape", "plan"), PLANS)
def test_plans(fields: dict[str, Any], shape: tuple[int, ...], plan: Plan) -> None:
    assert plan_pooling(Tap(**fields), shape, SIZE, "nchw") == plan


@pytest.mark.parametrize(
    ("shape", "last"), [((8, 8, 12), False), ((8, 12, 8), True), ((5, 7, 5), True), ((5, 5, 7), False)]
)
def test_maps_of_images_that_are_no_squares(shape: tuple[int, ...], last: bool) -> None:
    assert plan_pooling(Tap(), shape, (32, 48), "nchw").channels_last is not last


@pytest.mark.parametrize(
    ("prefix", "tokens", "first"), [(None, 1 + 16 * 24, 1), (None, 5 + 16 * 24, 5), (5, 5 + 16 * 24, 5), (0, 400, 0)]
)
def test_tokens_of_images_that_are_no_squares(prefix: int | None, tokens: int, first: int) -> None:
    assert plan_pooling(Tap(pooling="mean", prefix=prefix), (tokens, 8), (224, 336), "nchw").first == first


def test_a_prefix_that_leaves_no_grid_is_refused() -> None:
    tap = Tap(pooling="mean", prefix=1)
    with pytest.raises(Unusable, match=r"prefix: 1 leaves 388 of the 389 tokens .* no grid of the proportions of 224"):
        plan_pooling(tap, (5 + 16 * 24, 8), (224, 336), "nchw")


REFUSED: list[tuple[dict[str, Any], tuple[int, ...], str, str]] = [
    ({}, (257, 384), "257 tokens of 384 values; pooling: avg has no meaning", "cls, mean, cls.mean or none"),
    ({"pooling": "cls"}, (7, 7, 1280), "maps of 7 x 7 x 1280; pooling: cls has no meaning", "avg, max or none"),
    ({"pooling": "max"}, (768,), "one row of 768 values", "none"),
    ({}, (1000,), "one row of 1000 values; pooling: avg has no meaning", "none"),
    ({}, (2, 3, 4, 5), "the shape 2 x 3 x 4 x 5", "another layer"),
    ({"pooling": "cls"}, (196, 384), "196 tokens, all of patches; there is no class token", "mean"),
    ({"pooling": "mean"}, (1 + 16 * 12, 384), "193 tokens; which of them are patches is not known", "prefix: 1"),
    ({"pooling": "mean", "layout": "nchw"}, (257, 384), "layout: nchw is for maps", "leave it out"),
    (
        {"pooling": "cls+mean", "prefix": 1},
        (261, 384),
        "prefix: 1 leaves 260 of the 261 tokens .* no square",
        "prefix: 5",
    ),
    ({"pooling": "mean", "prefix": 1}, (1 + 16 * 12, 384), "leaves 192 of the 193 tokens", "prefix: 0"),
    ({"pooling": "mean", "prefix": 400}, (257, 384), "which of them are patches is not known", "prefix"),
]


@pytest.mark.parametrize(("fields", "shape", "said", "hint"), REFUSED)
def test_what_has_no_meaning(fields: dict[str, Any], shape: tuple[int, ...], said: str, hint: str) -> None:
    with pytest.raises(Unusable, match=said) as error:
        plan_pooling(Tap(**fields), shape, SIZE, "nchw")
    assert hint.replace("cls.mean", "cls+mean") in error.value.hint
