"""Owns the blocks of each base: the layer each reads, and the shape of its output. Not their layers (build.py).

Those of the catalogue are read from blocks.json, which `python -m tests.support.generate_blocks` makes from the
networks; those of a model file are found in its graph (formats.py `blocks`).
"""

import functools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from cache.errors import Unusable
from stages.bases.catalogue import Base
from stages.bases.formats import FORMATS
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


@dataclass(frozen=True)
class FoundBlock:
    """A block of a model file: its layers, by path, in order, up to one through which all paths run.

    boundary: the layer or operation before it through which all paths run; its output is a map of the shape `maps`.
    weights: how many numbers of its layers can be trained. obstacle: why training cannot start here, or nothing.
    """

    layers: Sequence[str]
    boundary: str
    maps: Sequence[int]
    weights: int
    obstacle: str = ""

    @property
    def name(self) -> str:
        """That of its first layer."""
        return self.layers[0]

    @property
    def listed(self) -> bool:
        """Whether it is one to start from: another trains the same where this one has nothing to train."""
        return self.weights > 0 and not self.obstacle

    def shape(self, size: int) -> tuple[int, ...]:
        """Of the boundary's output; it was found for images of one size."""
        return tuple(self.maps)


AnyBlock = Block | FoundBlock


@functools.cache
def _table() -> dict[str, list[list[str | int]]]:
    table: dict[str, list[list[str | int]]] = json.loads(Path(__file__).with_suffix(".json").read_text())
    return table


def blocks_of(base: Base) -> tuple[Block, ...]:
    """The blocks of a base, the first one first. None of a base whose layers read more than one layer back."""
    return tuple(Block._make(row) for row in _table().get(base.name, []))


def check_trainable(base: Base, what: str = "it") -> None:
    """Raise Unusable, naming `what`, for a base that cannot be fine-tuned, since it is no Keras network."""
    if base.format.keras and (base.format.blocks or not base.is_file):
        return
    suffixes = ", ".join(suffix for kind in FORMATS.values() if kind.blocks for suffix in kind.suffixes)
    raise Unusable(
        f"a base of the kind {base.format.name!r} is no Keras network, so {what} cannot be fine-tuned; expected a base "
        f"of the catalogue, or a Keras model ({suffixes})",
        "train heads on several of its taps; fine-tune one on a tap with another base; or write the network as a Keras "
        "model once, and name that as the base",
    )


def find_block(found: Sequence[FoundBlock], name: str, file: str) -> FoundBlock:
    """The block of a model file that begins or ends with that layer. Raises Unusable, naming what could be meant."""
    lists = f"pipeline bases {file} lists the layers to start from"
    starts = {block.name: block for block in found if block.listed}
    for number, block in enumerate(found):
        if name in block.layers:
            near = [each.name for each in found[number:] if each.listed][:2]
            if name in (block.layers[0], block.layers[-1]) and not block.obstacle:
                return block
            if block.obstacle:
                raise Unusable(f"{file} cannot be trained from {name!r} on: {block.obstacle}", lists)
            raise Unusable(
                f"{file} cannot be trained from {name!r} on, since not all paths run through it",
                f"start from {' or '.join(near)}; {lists}" if near else lists,
            )
    if not starts:
        raise Unusable(
            f"{file} has no layer to train from: none through which all paths run has trained layers after it",
            "train heads on its layers",
        )
    near = suggest(name, starts) or list(starts)[-3:]
    raise Unusable(
        f"{file} has no layer {name!r} that training can start from, or all layers before it would be trained too",
        f"did you mean {' or '.join(near[:3])}? {lists}",
    )


def get_block(base: Base, name: str) -> Block:
    """The block of that name of a base of the catalogue. Raises Unusable, naming the nearest."""
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
