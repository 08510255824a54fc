"""Owns what a tap's pooling means for an output of a given shape: maps, tokens or one row. Not the arithmetic, which
each engine does in its own operations.
"""

from dataclasses import dataclass
from typing import Literal

from cache.errors import Unusable
from stages.bases.recipe import Layout, Tap

_MAPS, _TOKENS = ("avg", "max", "none"), ("cls", "mean", "cls+mean", "none")


@dataclass(frozen=True)
class Plan:
    """What is done to an output (n, ...), in this order.

    channels_last: axes (n, c, h, w) become (n, h, w, c). reduce: the mean or the largest over h and w. parts: of
    tokens (n, tokens, dim) the class token, or the mean of tokens from `first` on, joined.
    """

    channels_last: bool = False
    reduce: Literal["mean", "max"] | None = None
    parts: tuple[Literal["cls", "mean"], ...] = ()
    first: int = 0


def plan_pooling(tap: Tap, shape: tuple[int | None, ...], size: tuple[int, int], default: Layout) -> Plan:
    """The plan for an output of that shape, without the batch, for images of `size` (height, width).

    default: the layout of maps whose sides could be either. Raises Unusable where that pooling has no meaning for the
    shape.
    """
    if tap.layout and len(shape) != 3:
        raise Unusable(
            f"extract.taps: layout: {tap.layout} is for maps; layer {tap.layer!r} gives none", "leave it out"
        )
    if len(shape) == 3 and tap.pooling in _MAPS:
        layout = tap.layout or _find_layout(shape, size) or default
        return Plan(layout == "nchw", {"avg": "mean", "max": "max"}.get(tap.pooling))  # type: ignore[arg-type]
    if len(shape) == 2 and tap.pooling in _TOKENS:
        if tap.pooling == "none":
            return Plan()
        first = _prefix(tap, shape[0], size)
        parts = tuple(tap.pooling.split("+"))
        if "cls" in parts and first == 0:
            what = f"has {shape[0]} tokens, all of patches; there is no class token"
            raise Unusable(f"extract.taps: layer {tap.layer!r} {what}", "use pooling: mean")
        return Plan(parts=parts, first=first)  # type: ignore[arg-type]
    if len(shape) == 1 and tap.pooling == "none":
        return Plan()
    kinds = {1: "one row of {} values", 2: "{} tokens of {} values", 3: "maps of {} x {} x {}"}
    found = kinds.get(len(shape), "the shape " + " x ".join(["{}"] * len(shape))).format(*shape)
    fitting = {1: "none", 2: "cls, mean, cls+mean or none", 3: "avg, max or none"}.get(len(shape), "another layer")
    raise Unusable(
        f"extract.taps: layer {tap.layer!r} gives {found}; pooling: {tap.pooling} has no meaning for it",
        f"use pooling: {fitting}",
    )


def _find_layout(shape: tuple[int | None, ...], size: tuple[int, int]) -> Layout | None:
    """The layout in which maps have the image's proportions, but for rounding; None where both have, or neither."""
    sides: dict[Layout, tuple[int | None, ...]] = {"nchw": shape[1:], "nhwc": shape[:2]}
    fitting = [name for name, (h, w) in sides.items() if h and w and abs(h * size[1] - w * size[0]) < max(size)]
    return fitting[0] if len(fitting) == 1 else None


def _prefix(tap: Tap, tokens: int | None, size: tuple[int, int]) -> int:
    """How many tokens stand before those of the patches, which have the image's proportions.

    `prefix: 0` is taken as it is: that all tokens count alike may be meant where none are of patches.
    """
    if tokens is None and tap.prefix is not None:
        return tap.prefix
    fitting = [n for n in range(min(_MOST_PREFIX + 1, tokens or 0)) if _is_grid((tokens or 0) - n, size)]
    if tap.prefix == 0 and tokens:
        return 0
    if tap.prefix is not None and tokens and tap.prefix < tokens:
        if _is_grid(tokens - tap.prefix, size):
            return tap.prefix
        what = f"prefix: {tap.prefix} leaves {tokens - tap.prefix} of the {tokens} tokens of layer {tap.layer!r}"
        shown = "square" if size[0] == size[1] else f"grid of the proportions of {size[0]} x {size[1]} pixels"
        advice = f"use prefix: {fitting[0]}" if fitting else "use prefix: 0, if all tokens are to count alike"
        raise Unusable(f"extract.taps: {what}, which are no {shown}, as patches would be", advice)
    if tap.prefix is None and fitting and (size[0] == size[1] or len(fitting) == 1):
        return fitting[0]
    raise Unusable(
        f"extract.taps: layer {tap.layer!r} gives {tokens or 'some'} tokens; which of them are patches is not known",
        "say how many stand before them: prefix: 1 (class token), 5 (and four registers), or 0",
    )


def _is_grid(patches: int, size: tuple[int, int]) -> bool:
    """Whether so many patches can lie as rows and columns of a picture of that (height, width), but for rounding."""
    rows = (n for n in range(1, patches + 1) if patches % n == 0)
    return any(abs(n * size[1] - patches // n * size[0]) < max(size) for n in rows)


_MOST_PREFIX = 9
"""A class token and eight registers. More is left where the patches are no square."""
