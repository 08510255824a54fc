"""Owns what an augmented view of an image is, and making it from decoded pixels. Not which views, nor their rows.

A view is a function of the pixels, the image's id and the view itself. Each draw is a SHA-256 of (seed, number of the
view, id, what is drawn), not the next value of a generator: order, neighbours and process don't count, and turning one
thing on moves no draw of another.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from PIL import Image

from cache.errors import Unusable

VERSION = 1
"""Of the arithmetic in here, in the key of every view. Raise it, with a line in CHANGELOG.md, when views change."""

Flip = Literal["none", "horizontal", "vertical", "both"]

Element = tuple[int, bool]
"""Of the dihedral group of a square: quarter turns counterclockwise, and whether left and right are swapped after."""

_FLIPS: dict[Flip, tuple[Element, ...]] = {
    "none": ((0, False),),
    "horizontal": ((0, False), (0, True)),
    "vertical": ((0, False), (2, True)),
    "both": ((0, False), (0, True), (2, True), (2, False)),
}
_MOST = {"rotate": 180.0, "shift": 1.0, "scale": 0.9, "brightness": 1.0, "contrast": 1.0}


@dataclass(frozen=True)
class Augment:
    """How far a view may lie from the plain image; each number is the limit to both sides, and 0 is off.

    flip: which mirror images there are. turns: quarter turns too, which needs a square. rotate: degrees. shift: share
    of a side, on both axes. scale: zoom by 1 +- it. brightness: share of 255 that is added. contrast: times 1 +- it,
    about the mean of the image.
    Raises Unusable where a number is out of range.
    """

    flip: Flip = "horizontal"
    turns: bool = False
    rotate: float = 0.0
    shift: float = 0.0
    scale: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0

    def __post_init__(self) -> None:
        for name, most in _MOST.items():
            if not 0 <= getattr(self, name) <= most:
                raise Unusable(f"augment: {name} {getattr(self, name)}; expected 0 to {most:g}")

    def components(self) -> dict[str, Any]:
        """What the extract key holds of this; 10 degrees and 10.0 are the same."""
        return {**asdict(self), **{name: float(getattr(self, name)) for name in _MOST}}

    def elements(self) -> tuple[Element, ...]:
        """The 1, 2, 4 or 8 combinations of flips and turns, the identity first."""
        if not self.turns:
            return _FLIPS[self.flip]
        swaps = (False,) if self.flip == "none" else (False, True)
        return tuple((quarters, swap) for swap in swaps for quarters in range(4))


@dataclass(frozen=True)
class View:
    """One of the augmented views of every image: `number` counts from 1. The plain view is None, not a View.

    Raises Unusable for a number below 1.
    """

    augment: Augment
    seed: int
    number: int

    def __post_init__(self) -> None:
        if self.number < 1:
            raise Unusable(f"view {self.number}; expected 1 or more: the plain view has no number")

    def components(self) -> dict[str, Any]:
        """What the extract key holds of this."""
        return {
            "version": VERSION,
            "seed": self.seed,
            "number": self.number,
            "augment": self.augment.components(),
        }


def apply_view(pixels: np.ndarray, view: View, image: str) -> np.ndarray:
    """The view of an image with that id: uint8 (h, w, 3) -> the same shape and dtype. What is off changes no bit.

    Flips and turns are dealt, not drawn: no two views of an image share one until all that are allowed, the plain
    image's among them, have been had. Rotation, shift and zoom are one affine transform about the centre, bilinear
    without antialias; what comes in from outside is the image reflected, since black corners look like defects.
    Raises Unusable where quarter turns meet pixels that are not square.
    """
    height, width = pixels.shape[:2]
    if view.augment.turns and height != width:
        raise Unusable(
            f"augment: quarter turns of {width}x{height} pixels, which are not square",
            "set turns to false, or make height and width the same",
        )
    quarters, swap = _dealt(view, image)
    turned = np.rot90(pixels, quarters)
    return np.ascontiguousarray(_lit(_moved(turned[:, ::-1] if swap else turned, view, image), view, image))


def _dealt(view: View, image: str) -> Element:
    """The flip and turn of a view: all that are allowed, shuffled for each image behind the identity, in turn."""
    identity, *others = view.augment.elements()
    others.sort(key=lambda element: _digest(view.seed, image, *element))
    return [identity, *others][view.number % (1 + len(others))]


def _moved(pixels: np.ndarray, view: View, image: str) -> np.ndarray:
    """Rotated, shifted and zoomed, in one step."""
    limits = view.augment
    if not (limits.rotate or limits.shift or limits.scale):
        return pixels
    height, width = pixels.shape[:2]
    angle = math.radians(limits.rotate * _draw(view, image, "rotate"))
    zoom = 1 + limits.scale * _draw(view, image, "scale")
    right = width * limits.shift * _draw(view, image, "right")
    down = height * limits.shift * _draw(view, image, "down")
    # Where in the image a point (x, y) of the view comes from: (a x + b y + left, -b x + a y + top)
    a, b = math.cos(angle) / zoom, math.sin(angle) / zoom
    left = width / 2 - a * (width / 2 + right) - b * (height / 2 + down)
    top = height / 2 + b * (width / 2 + right) - a * (height / 2 + down)
    corners = [(a * x + b * y + left, a * y - b * x + top) for x in (0, width) for y in (0, height)]
    outside = max(max(-x, x - width, -y, y - height) for x, y in corners)
    margin = max(0, math.ceil(outside)) + 1  # for the outermost pixels' neighbours
    padded = np.pad(pixels, ((margin, margin), (margin, margin), (0, 0)), mode="reflect")
    inverse = (a, b, left + margin, -b, a, top + margin)
    moved = Image.fromarray(padded).transform(
        (width, height), Image.Transform.AFFINE, inverse, Image.Resampling.BILINEAR
    )
    return np.asarray(moved)


def _lit(pixels: np.ndarray, view: View, image: str) -> np.ndarray:
    """With other contrast and brightness."""
    limits = view.augment
    if not (limits.brightness or limits.contrast):
        return pixels
    lit = pixels.astype(np.float32)
    if limits.contrast:
        mean = np.float32(int(pixels.sum(dtype=np.int64)) / pixels.size)  # exact, so the same on every machine
        lit = (lit - mean) * np.float32(1 + limits.contrast * _draw(view, image, "contrast")) + mean
    if limits.brightness:
        lit += np.float32(255 * limits.brightness * _draw(view, image, "brightness"))
    return np.clip(np.rint(lit), 0, 255).astype(np.uint8)


def _draw(view: View, image: str, what: str) -> float:
    """Uniform in [-1, 1)."""
    return int.from_bytes(_digest(view.seed, view.number, image, what)[:8], "big") / 2**63 - 1


def _digest(*parts: object) -> bytes:
    return hashlib.sha256(":".join(map(str, parts)).encode()).digest()
