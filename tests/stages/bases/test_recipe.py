"""recipe.py: three frozen keys, and what moves them."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest

from stages.bases import catalogue
from stages.bases.recipe import Recipe, Tap
from stages.data.augment import Augment, View
from stages.data.images import PixelSpec
from tests.support.networks import DEFAULT

MAPS = Recipe.of(catalogue.get_base("vgg16"), "34" * 32, PixelSpec(150, 150, "crop", "keras", "full"), "f32", "float16")
VIEW = View(Augment(), 0, 1)
BF16 = Recipe.of(catalogue.get_base("resnet50"), "56" * 32, PixelSpec(224, 224, "pad"), "tensorflow-bf16", "float32")


@pytest.mark.parametrize(
    ("recipe", "tap", "digest"),
    [
        (DEFAULT, Tap(), "2b41903a17a222a4882f1b48a15a44e8c9f8030f1677e9fe90d57b520578ecee"),
        (MAPS, Tap("block4_pool", "none"), "855789d3a8a809c1fd2717a7c195e825ce6df082726d014d7db4420dde5a33c5"),
        (BF16, Tap("output", "max"), "2c4256976695beb9f627a0aabe2837585d85170af176292868ed248a5c8f06e0"),
        (replace(DEFAULT, view=VIEW), Tap(), "b92e020a222abc00f5575c1e81df34363cbc611d50e30afa5694a997464113c4"),
    ],
)
def test_literal_keys(recipe: Recipe, tap: Tap, digest: str) -> None:
    """If one changes, everybody's rows are computed anew: raise VERSION on purpose, with a line in CHANGELOG.md."""
    assert recipe.key(tap) == digest


@pytest.mark.parametrize(
    "change",
    [
        {"base": "vgg16"},
        {"base_version": 2},
        {"weights_sha256": "00" * 32},
        {"preprocess": catalogue.Preprocess(scale=0.5)},
        {"preprocess": catalogue.Preprocess(order="bgr")},
        {"pixels": PixelSpec(224, 225)},
        {"pixels": PixelSpec(224, 224, fit="pad")},
        {"pixels": PixelSpec(224, 224, resize="keras")},
        {"pixels": PixelSpec(224, 224, decode="full")},
        {"numerics": "tensorflow-bf16"},
        {"dtype": "float16"},
        {"view": VIEW},
    ],
)
def test_every_part_moves_the_key(change: dict[str, Any]) -> None:
    assert replace(DEFAULT, **change).key(Tap()) != DEFAULT.key(Tap())


@pytest.mark.parametrize(
    "view",
    [
        replace(VIEW, seed=1),
        replace(VIEW, number=2),
        *(
            replace(VIEW, augment=Augment(**limits))
            for limits in [
                {"flip": "both"}, {"turns": True}, {"rotate": 5.0}, {"shift": 0.1}, {"scale": 0.1},
                {"brightness": 0.1}, {"contrast": 0.1},
            ]
        ),
    ],
)  # fmt: skip
def test_every_part_of_a_view_moves_the_key(view: View) -> None:
    assert replace(DEFAULT, view=view).key(Tap()) != replace(DEFAULT, view=VIEW).key(Tap())


def test_the_walk_above_knows_every_part_of_a_view() -> None:
    assert [field.name for field in fields(View)] == ["augment", "seed", "number"]
    assert len(fields(Augment)) == 7


def test_ten_degrees_are_ten_degrees() -> None:
    keys = {replace(DEFAULT, view=View(Augment(rotate=n), 0, 1)).key(Tap()) for n in (10, 10.0)}
    assert len(keys) == 1


def test_a_tap_may_be_stored_otherwise_than_the_recipe_says() -> None:
    as_float16 = DEFAULT.key(Tap(dtype="float16"))
    assert as_float16 != DEFAULT.key(Tap())
    assert as_float16 == replace(DEFAULT, dtype="float16").key(Tap())
    assert DEFAULT.key(Tap(dtype="float32")) == DEFAULT.key(Tap())


def test_layer_and_pooling_move_the_key() -> None:
    keys = {DEFAULT.key(tap) for tap in (Tap(), Tap("output", "max"), Tap("output", "none"), Tap("block15_add"))}
    assert len(keys) == 4


@pytest.mark.parametrize("name", catalogue.BASES)
def test_output_and_its_layer_are_one_tap(name: str) -> None:
    base = catalogue.get_base(name)
    recipe = Recipe.of(base, "12" * 32, PixelSpec(224, 224), "f32", "float32")
    assert recipe.key(Tap("output")) == recipe.key(Tap(base.output))
