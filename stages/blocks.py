"""Owns the blocks of each base: what each reads, and how large that is. Not what is in them (keras_base.py)."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import NamedTuple

from cache.errors import Unusable
from stages.bases import Base


class Block(NamedTuple):
    """A block that can be trained with all that follows it.

    `boundary` is the layer whose output it reads, with `channels` at 1/`reduction` of the image's sides; what lies
    before it, the stem at least, stays frozen.
    """

    name: str
    boundary: str
    reduction: int
    channels: int

    def shape(self, size: int) -> tuple[int, int, int]:
        """Of what it reads of one image of `size` pixels a side (VGG16 rounds odd sides down, the others up)."""
        side = -(-size // self.reduction)
        return side, side, self.channels


class _Part(NamedTuple):
    """A block by what comes out of it: the layer, its stride and its channels."""

    name: str
    output: str
    stride: int
    channels: int


def of(base: Base) -> tuple[Block, ...]:
    """The blocks of a base, the first one first."""
    (boundary, reduction, channels), parts = _PARTS[base.name]
    blocks = []
    for part in parts:
        blocks.append(Block(part.name, boundary, reduction, channels))
        boundary, reduction, channels = part.output, reduction * part.stride, part.channels
    return tuple(blocks)


def get(base: Base, name: str) -> Block:
    """The block of that name. Raises Unusable, naming the nearest."""
    blocks = {block.name: block for block in of(base)}
    if name in blocks:
        return blocks[name]
    near = difflib.get_close_matches(name, blocks, n=1, cutoff=0.6)
    names = list(blocks)
    raise Unusable(
        f"{base.name} has no block {name!r}; it has {', '.join(names[:3])} to {', '.join(names[-3:])}",
        f"did you mean {near[0]}? pipeline bases {base.name} lists them" if near else f"pipeline bases {base.name}",
    )


def _inverted(names: Iterable[str], stages: Iterable[tuple[int, int, int]], project: str) -> Iterable[_Part]:
    """Inverted residuals: in each stage (stride, channels, repeats) all but the first block end in an addition."""
    named, before = iter(names), 0
    for stride, channels, repeats in stages:
        for repeat in range(repeats):
            adds = (stride if repeat == 0 else 1) == 1 and channels == before
            name = next(named)
            yield _Part(name, f"{name}_{'add' if adds else project}", stride if repeat == 0 else 1, channels)
            before = channels


_LITE = ((1, 16, 1), (2, 24, 2), (2, 40, 2), (2, 80, 3), (1, 112, 3), (2, 192, 4), (1, 320, 1))
_MOBILE = ((2, 24, 2), (2, 32, 3), (2, 64, 4), (1, 96, 3), (2, 160, 3), (1, 320, 1))
_RESNET = ((2, 1, 256, 3), (3, 2, 512, 4), (4, 2, 1024, 6), (5, 2, 2048, 3))  # number, stride, channels, blocks
_VGG = ((2, 128), (3, 256), (4, 512), (5, 512))

_PARTS: dict[str, tuple[tuple[str, int, int], tuple[_Part, ...]]] = {
    "efficientnet_lite0": (
        ("stem_activation", 2, 32),
        (
            *_inverted((f"block{n}" for n in range(1, 17)), _LITE, "project_bn"),
            _Part("head", "head_activation", 1, 1280),
        ),
    ),
    "mobilenet_v2": (
        ("expanded_conv_project_BN", 2, 16),
        (
            *_inverted((f"block_{n}" for n in range(1, 17)), _MOBILE, "project_BN"),
            _Part("Conv_1", "out_relu", 1, 1280),
        ),
    ),
    "resnet50": (
        ("pool1_pool", 4, 64),
        tuple(
            _Part(f"conv{number}_block{n}", f"conv{number}_block{n}_out", stride if n == 1 else 1, channels)
            for number, stride, channels, blocks in _RESNET
            for n in range(1, blocks + 1)
        ),
    ),
    "vgg16": (
        ("block1_pool", 2, 64),
        tuple(_Part(f"block{number}", f"block{number}_pool", 2, channels) for number, channels in _VGG),
    ),
}
