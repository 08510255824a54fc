"""suggest.py: the names that somebody most probably meant."""

from __future__ import annotations

import pytest

from stages.bases.catalogue import BASES
from stages.runtime.suggest import suggest

LAYERS = ["stem_conv", *(f"block{n}_{part}" for n in (1, 10, 11, 16) for part in ("dwconv", "project", "add")), "head"]


@pytest.mark.parametrize(
    ("name", "known", "found"),
    [
        ("efficientnet_lite", BASES, ["efficientnet_lite0"]),
        ("EfficientNet_B", BASES, ["efficientnet_b0"]),
        ("resnet-50", BASES, ["resnet50"]),
        ("", BASES, []),
        ("nothing like it", BASES, []),
        ("block11", reversed(LAYERS), ["block11_add"]),
        ("block1", reversed(LAYERS), ["block1_add"]),
        ("stem", LAYERS, ["stem_conv"]),
        ("blokc16_add", LAYERS, ["block16_add"]),
    ],
)
def test_names_that_begin_so_come_first_and_then_similar_ones(name: str, known: list[str], found: list[str]) -> None:
    assert suggest(name, list(known)) == found


def test_several_are_suggested_in_their_order() -> None:
    assert suggest("block11", LAYERS, 4) == ["block11_dwconv", "block11_project", "block11_add"]
