"""Owns the blocks of each base: what each reads, and how large that is. Not what is in them (build.py)."""

from __future__ import annotations

import difflib
import itertools
import math
from collections.abc import Callable, Iterable
from typing import NamedTuple

from cache.errors import Unusable
from stages.bases.catalogue import Base

Windows = tuple[tuple[int, int], ...]
"""What lies between two places, as far as it changes the sides of maps: windows of (size, stride) without padding.

A side of n pixels leaves (n - size) // stride + 1. Padding that makes up for the window is one of size 1: it rounds up.
"""


class Block(NamedTuple):
    """A block that can be trained with all that follows it.

    `boundary` is the layer whose output it reads, of `channels`, with `windows` between it and the image; what lies
    before it, the stem at least, stays frozen.
    """

    name: str
    boundary: str
    windows: Windows
    channels: int

    def shape(self, size: int) -> tuple[int, int, int]:
        """Of what it reads of one image of `size` pixels a side."""
        side = size
        for window, stride in self.windows:
            side = (side - window) // stride + 1
        return side, side, self.channels


class _Part(NamedTuple):
    """A block, or the stem, by what comes out of it: the layer, the windows on the way there, the channels."""

    name: str
    output: str
    windows: Windows
    channels: int


_Parts = tuple[_Part, ...]
"""The stem, and the blocks in order. Nothing reads the output of the last one, so what is said of it doesn't matter."""


def blocks_of(base: Base) -> tuple[Block, ...]:
    """The blocks of a base, the first one first. None of a base whose layers read more than one layer back."""
    blocks, windows = [], Windows()
    parts = _PARTS.get(base.name, ())
    for before, part in itertools.pairwise(parts):
        windows += before.windows
        blocks.append(Block(part.name, before.output, windows, before.channels))
    return tuple(blocks)


def get_block(base: Base, name: str) -> Block:
    """The block of that name. Raises Unusable, naming the nearest."""
    if base.is_file:
        raise Unusable(
            "a model of one's own has no named blocks, so it cannot be fine-tuned from one",
            "leave finetune: out, and train heads on any of its layers; or take a base of the table (pipeline bases)",
        )
    blocks = {block.name: block for block in blocks_of(base)}
    if name in blocks:
        return blocks[name]
    if not blocks:
        raise Unusable(
            f"{base.name} has no blocks to train from: its cells read the two before them, not one layer's output",
            "take another base for fine-tuning; pipeline bases tells how many blocks each has",
        )
    near = difflib.get_close_matches(name, blocks, n=1, cutoff=0.6)
    names = list(blocks)
    raise Unusable(
        f"{base.name} has no block {name!r}; it has {', '.join(names[:3])} to {', '.join(names[-3:])}",
        f"did you mean {near[0]}? pipeline bases {base.name} lists them" if near else f"pipeline bases {base.name}",
    )


def round_channels(channels: float) -> int:
    """To the nearest multiple of 8 that takes away no more than a tenth (Tan & Le 2019, in their code)."""
    nearest = _nearest(channels)
    return nearest + 8 if nearest < 0.9 * channels else nearest


def _nearest(channels: float) -> int:
    return max(8, int(channels + 4) // 8 * 8)


_UP, _DOWN, _VALID = ((1, 2),), ((2, 2),), ((3, 2),)
"""Strides of 2: rounding up, rounding down, and of a window of 3."""

_Stage = tuple[int, int, int]
"""Stride of its first block, channels, blocks."""


def _inverted(stem: _Part, names: Iterable[str], stages: Iterable[_Stage], project: str, last: _Part) -> _Parts:
    """Inverted residuals: in each stage all but the first block end in an addition."""
    parts, named = [stem], iter(names)
    for stride, channels, repeats in stages:
        for repeat in range(repeats):
            adds = (repeat > 0 or stride == 1) and channels == parts[-1].channels
            name = next(named)
            windows = _UP if repeat == 0 and stride == 2 else ()
            parts.append(_Part(name, f"{name}_{'add' if adds else project}", windows, channels))
    return (*parts, last)


def _scaled(
    stages: Iterable[_Stage], width: float, depth: float, to_eights: Callable[[float], int] = round_channels
) -> list[_Stage]:
    return [(stride, to_eights(width * channels), math.ceil(depth * repeats)) for stride, channels, repeats in stages]


def _letters(stages: Iterable[_Stage]) -> list[str]:
    """block1a, block1b, block2a, ..."""
    return [f"block{n}{chr(97 + i)}" for n, (_, _, repeats) in enumerate(stages, start=1) for i in range(repeats)]


def _lite(width: float, depth: float) -> _Parts:
    first, *inner, last = _B
    stages = [first, *_scaled(inner, width, depth), (last[0], round_channels(width * last[1]), last[2])]
    names = (f"block{n}" for n in range(1, 1 + sum(repeats for _, _, repeats in stages)))
    stem, head = _Part("stem", "stem_activation", _UP, 32), _Part("head", "head_activation", (), 1280)
    return _inverted(stem, names, stages, "project_bn", head)


def _efficient(width: float, depth: float, stages: tuple[_Stage, ...]) -> _Parts:
    scaled = _scaled(stages, width, depth)
    stem = _Part("stem", "stem_activation", _UP, round_channels(width * 32))
    return _inverted(stem, _letters(scaled), scaled, "project_bn", _TOP)


def _efficient_v2(stem: int, stages: Iterable[_Stage]) -> _Parts:
    """The first block has no expansion, and so ends in an activation where it doesn't end in an addition."""
    stages = list(stages)
    parts = _inverted(_Part("stem", "stem_activation", _UP, stem), _letters(stages), stages, "project_bn", _TOP)
    output = parts[1].output.replace("project_bn", "project_activation")
    return (parts[0], parts[1]._replace(output=output), *parts[2:])


def _mobile_v3(stages: Iterable[_Stage], output: str, channels: int) -> _Parts:
    names = ["expanded_conv", *(f"expanded_conv_{n}" for n in range(1, 15))]
    last = _Part("conv_1", output, (), channels)
    return _inverted(_Part("conv", "activation", _UP, 16), names, stages, "project_bn", last)


def _resnet(blocks: Iterable[int], strided: str) -> _Parts:
    """`strided`: which block of a stage has its stride, the `first` (from conv3 on) or the `last` (but of conv5)."""
    parts = [_Part("pool1", "pool1_pool", (*_UP, *_UP), 64)]
    for number, repeats in enumerate(blocks, start=2):
        for n in range(1, repeats + 1):
            strides = (n == 1 and number > 2) if strided == "first" else (n == repeats and number < 5)
            name = f"conv{number}_block{n}"
            parts.append(_Part(name, f"{name}_out", _UP if strides else (), 64 * 2**number))
    return tuple(parts)


def _densenet(layers: Iterable[int]) -> _Parts:
    """A dense block and the transition after it; each of its layers adds 32 channels, a transition halves them."""
    parts, channels = [_Part("conv1", "pool1", (*_UP, *_UP), 64)], 64
    for number, repeats in enumerate(layers, start=2):
        channels = (channels + 32 * repeats) // 2
        parts.append(_Part(f"conv{number}", f"pool{number}_pool", _DOWN, channels))
    return tuple(parts)


def _convnext(name: str, *channels: int) -> _Parts:
    """A stage, and the downsampling after it."""
    parts = [_Part("stem", f"{name}_stem", ((4, 4),), channels[0])]
    for number, after in enumerate((*channels[1:], channels[-1])):
        parts.append(_Part(f"stage_{number}", f"{name}_downsampling_block_{number}", _DOWN, after))
    return tuple(parts)


def _vgg() -> _Parts:
    channels = enumerate((64, 128, 256, 512, 512), start=1)
    return tuple(_Part(f"block{number}", f"block{number}_pool", _DOWN, width) for number, width in channels)


def _inception(blocks: Iterable[tuple[str, str, int]]) -> _Parts:
    """By name, output and channels, after the stem that InceptionV3 and Inception-ResNet have in common."""
    stem = _Part("stem", "max_pooling2d_1", (*_VALID, (3, 1), *_VALID, (3, 1), *_VALID), 192)
    return (stem, *(_Part(name, output, _VALID if name in _REDUCING else (), width) for name, output, width in blocks))


_REDUCING = ("mixed3", "mixed8", "mixed_6a", "mixed_7a")


def _residual(name: str, blocks: int, channels: int) -> list[tuple[str, str, int]]:
    return [(f"{name}_{n}", f"{name}_{n}_ac", channels) for n in range(1, blocks + 1)]


def _xception() -> _Parts:
    parts = [_Part("block1", "block1_conv2_act", (*_VALID, (3, 1)), 64)]
    for number, channels in enumerate((128, 256, *[728] * 9, 1024), start=2):
        output = "add" if number == 2 else f"add_{number - 2}"
        parts.append(_Part(f"block{number}", output, _UP if number in (2, 3, 4, 13) else (), channels))
    return (*parts, _Part("block14", "block14_sepconv2_act", (), 2048))


_TOP = _Part("top", "top_activation", (), 1280)
_B = ((1, 16, 1), (2, 24, 2), (2, 40, 2), (2, 80, 3), (1, 112, 3), (2, 192, 4), (1, 320, 1))
_B_V2 = ((1, 16, 1), (2, 32, 2), (2, 48, 2), (2, 96, 3), (1, 112, 5), (2, 192, 8))
_S = ((1, 24, 2), (2, 48, 4), (2, 64, 4), (2, 128, 6), (1, 160, 9), (2, 256, 15))
_M = ((1, 24, 3), (2, 48, 5), (2, 80, 5), (2, 160, 7), (1, 176, 14), (2, 304, 18), (1, 512, 5))
_L = ((1, 32, 4), (2, 64, 7), (2, 96, 7), (2, 192, 10), (1, 224, 19), (2, 384, 25), (1, 640, 7))
_MOBILE_V2 = ((2, 24, 2), (2, 32, 3), (2, 64, 4), (1, 96, 3), (2, 160, 3), (1, 320, 1))
_SMALL = ((2, 16, 1), (2, 24, 2), (2, 40, 3), (1, 48, 2), (2, 96, 3))
_LARGE = ((1, 16, 1), (2, 24, 2), (2, 40, 3), (2, 80, 4), (1, 112, 2), (2, 160, 3))
_MOBILE = (64, 128, 128, 256, 256, *[512] * 6, 1024, 1024)
_SCALES = ((1.0, 1.0), (1.0, 1.1), (1.1, 1.2), (1.2, 1.4), (1.4, 1.8), (1.6, 2.2), (1.8, 2.6), (2.0, 3.1))
"""Width and depth of EfficientNet-B0 to B7; of Lite0 to Lite2 and V2-B0 to B3 too."""

_PARTS: dict[str, _Parts] = {
    **{f"efficientnet_lite{n}": _lite(*scales) for n, scales in enumerate(_SCALES[:3])},
    **{f"efficientnet_b{n}": _efficient(*scales, _B) for n, scales in enumerate(_SCALES)},
    **{
        f"efficientnet_v2_b{n}": _efficient_v2(_nearest(32 * width), _scaled(_B_V2, width, depth, _nearest))
        for n, (width, depth) in enumerate(_SCALES[:4])
    },
    "efficientnet_v2_s": _efficient_v2(24, _S),
    "efficientnet_v2_m": _efficient_v2(24, _M),
    "efficientnet_v2_l": _efficient_v2(32, _L),
    "mobilenet": (
        _Part("conv1", "conv1_relu", _UP, 32),
        *(
            _Part(f"block{n}", f"conv_pw_{n}_relu", _DOWN if n in (2, 4, 6, 12) else (), channels)
            for n, channels in enumerate(_MOBILE, start=1)
        ),
    ),
    "mobilenet_v2": _inverted(
        _Part("stem", "expanded_conv_project_BN", _UP, 16), (f"block_{n}" for n in range(1, 17)), _MOBILE_V2,
        "project_BN", _Part("Conv_1", "out_relu", (), 1280),
    ),
    "mobilenet_v3_small": _mobile_v3(_SMALL, "activation_17", 576),
    "mobilenet_v3_large": _mobile_v3(_LARGE, "activation_19", 960),
    "resnet50": _resnet((3, 4, 6, 3), "first"),
    "resnet101": _resnet((3, 4, 23, 3), "first"),
    "resnet152": _resnet((3, 8, 36, 3), "first"),
    "resnet50_v2": _resnet((3, 4, 6, 3), "last"),
    "resnet101_v2": _resnet((3, 4, 23, 3), "last"),
    "resnet152_v2": _resnet((3, 8, 36, 3), "last"),
    "densenet121": _densenet((6, 12, 24, 16)),
    "densenet169": _densenet((6, 12, 32, 32)),
    "densenet201": _densenet((6, 12, 48, 32)),
    "inception_v3": _inception(
        (f"mixed{n}", f"mixed{n}", channels)
        for n, channels in enumerate((256, 288, 288, *[768] * 5, 1280, 2048, 2048))
    ),
    "inception_resnet_v2": _inception((
        ("mixed_5b", "mixed_5b", 320), *_residual("block35", 10, 320),
        ("mixed_6a", "mixed_6a", 1088), *_residual("block17", 20, 1088),
        ("mixed_7a", "mixed_7a", 2080), *_residual("block8", 9, 2080),
        ("block8_10", "custom_scale_layer_39", 2080), ("conv_7b", "conv_7b_ac", 1536),
    )),
    "xception": _xception(),
    "nasnet_mobile": (),
    "nasnet_large": (),
    "convnext_tiny": _convnext("convnext_tiny", 96, 192, 384, 768),
    "convnext_small": _convnext("convnext_small", 96, 192, 384, 768),
    "convnext_base": _convnext("convnext_base", 128, 256, 512, 1024),
    "convnext_large": _convnext("convnext_large", 192, 384, 768, 1536),
    "convnext_xlarge": _convnext("convnext_xlarge", 256, 512, 1024, 2048),
    "vgg16": _vgg(),
    "vgg19": _vgg(),
}  # fmt: skip
