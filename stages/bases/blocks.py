"""Owns the blocks of each base: the layer each reads, and the shape of its output. Not their layers (build.py).

They are read from blocks.json, which `python -m tests.support.generate_blocks` makes from the networks.
"""

import functools
import json
from pathlib import Path
from typing import NamedTuple

from cache.errors import Unusable
from stages.bases.catalogue import Base
from stages.runtime.suggest import suggest


class Block(NamedTuple):
    """A block that can be trained with all that follows it.

    boundary: the layer whose output it reads, of `channels`; all layers up to there, the stem at least, stay frozen.
    window, stride: what the layers up to the boundary amount to for the sides of maps: one window without padding.
    """

    name: str
    boundary: str
    channels: int
    window: int
    stride: int

    def shape(self, size: int) -> tuple[int, int, int]:
        """Height, width and channels of the boundary's output for one image of `size` pixels a side."""
        side = (size - self.window) // self.stride + 1
        return side, side, self.channels


@functools.cache
def _table() -> dict[str, list[list[str | int]]]:
    table: dict[str, list[list[str | int]]] = json.loads(Path(__file__).with_suffix(".json").read_text())
    return table


def blocks_of(base: Base) -> tuple[Block, ...]:
    """The blocks of a base, the first one first. None of a base whose layers read more than one layer back."""
    return tuple(Block._make(row) for row in _table().get(base.name, []))


def get_block(base: Base, name: str) -> Block:
    """The block of that name. Raises Unusable, naming the nearest."""
    if base.is_file:
        raise Unusable(
            "a user model has no named blocks, so it cannot be fine-tuned from one",
            "leave finetune: out, and train heads on any of its layers; or use a base that pipeline bases lists",
        )
    blocks = {block.name: block for block in blocks_of(base)}
    if name in blocks:
        return blocks[name]
    if not blocks:
        raise Unusable(
            f"{base.name} has no blocks to train from: its cells read the two before them, not one layer's output",
            "use another base for fine-tuning; pipeline bases shows how many blocks each has",
        )
    near = suggest(name, blocks)
    names = list(blocks)
    raise Unusable(
        f"{base.name} has no block {name!r}; it has {', '.join(names[:3])} to {', '.join(names[-3:])}",
        f"did you mean {near[0]}? pipeline bases {base.name} lists them" if near else f"pipeline bases {base.name}",
    )
