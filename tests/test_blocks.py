"""stages/blocks.py: the facts of every block, held against the networks themselves."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from cache.errors import Unusable
from stages import bases, blocks
from tests.conftest import Ran


@pytest.mark.parametrize("name", bases.BASES)
def test_each_boundary_cuts_the_network_in_two_and_is_as_large_as_the_table_says(name: str) -> None:
    from stages import keras_base

    base = bases.get(name)
    model = keras_base.build(base, None, 64, 64)
    order = [layer.name for layer in model.layers]
    seen = 0
    for block in blocks.of(base):
        output = model.get_layer(block.boundary).output
        assert tuple(output.shape[1:]) == block.shape(64), block
        assert order.index(block.boundary) >= seen, "blocks stand in order"
        seen = order.index(block.boundary)
        _leads_alone_to_the_output(model, block.boundary)
    assert blocks.of(base)[-1].boundary != base.output


def _leads_alone_to_the_output(model: object, boundary: str) -> None:
    """Raises where something beside the boundary is needed for the output."""
    import keras

    tail = keras.Model(model.get_layer(boundary).output, model.output)  # type: ignore[attr-defined]
    assert boundary not in [layer.name for layer in tail.layers]


def test_the_command_lists_bases_and_their_blocks(pipeline: Callable[..., Ran]) -> None:
    assert [base["name"] for base in pipeline("bases", "--json").json["bases"]] == list(bases.BASES)
    found = pipeline("bases", "efficientnet_lite0", "--json").json["bases"]
    assert found[-2] == {"block": "block16", "boundary": "block15_add", "shape": [7, 7, 192], "kilobytes": 37.6}
    assert "block15_add" in pipeline("bases", "efficientnet_lite0").out
    assert (pipeline("bases", "vgg").code, "did you mean vgg16?" in pipeline("bases", "vgg").err) == (2, True)


def test_a_block_that_is_none_is_answered_with_the_nearest() -> None:
    with pytest.raises(
        Unusable, match="has no block 'blok15'; it has block1, block2, block3 to block15, block16, head"
    ) as e:
        blocks.get(bases.get("efficientnet_lite0"), "blok15")
    assert "did you mean block15?" in e.value.hint
