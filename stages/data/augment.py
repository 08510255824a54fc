"""Owns augmented views: their settings, and making one from decoded pixels. Not which views are used, nor their rows.

A view is a function of the pixels, the image's id and the view itself. Each random number is a SHA-256 of (seed, number
of the view, id, name), not the next value of a generator: it depends on neither order nor process, and enabling one
transform changes no number of another.
"""

import hashlib
import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from PIL import Image

VERSION = 1
"""Version of the arithmetic here, in the key of each view. Raise it, with a line in CHANGELOG.md, when views change."""

Flip = Literal["none", "horizontal", "vertical", "both"]

Element = tuple[int, bool]
"""Of the dihedral group of a square: counterclockwise quarter turns, then whether left and right are swapped."""

_FLIPS: dict[Flip, tuple[Element, ...]] = {
    "none": ((0, False),),
    "horizontal": ((0, False), (0, True)),
    "vertical": ((0, False), (2, True)),
    "both": ((0, False), (0, True), (2, True), (2, False)),
}
_NUMBERS = ("rotate", "shift", "scale", "brightness", "contrast")


@dataclass(frozen=True)
class Augment:
    """How a view may differ from the plain image; each number is the limit in both directions, and 0 is off.

    flip: allowed mirror images. turns: quarter turns too (square pixels only). rotate: degrees. shift: share of a side,
    on both axes. scale: zoom by 1 +- it. brightness: share of 255 that is added. contrast: times 1 +- it, about the
    mean of the image.
    """

    flip: Flip = "horizontal"
    turns: bool = False
    rotate: float = 0.0
    shift: float = 0.0
    scale: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0

    def components(self) -> dict[str, Any]:
        """Its part of the extract key; 10 and 10.0 are the same."""
        return {**asdict(self), **{name: float(getattr(self, name)) for name in _NUMBERS}}

    def elements(self) -> tuple[Element, ...]:
        """The 1, 2, 4 or 8 combinations of flips and turns, the identity first."""
        if not self.turns:
            return _FLIPS[self.flip]
        swaps = (False,) if self.flip == "none" else (False, True)
        return tuple((quarters, swap) for swap in swaps for quarters in range(4))


@dataclass(frozen=True)
class View:
    """One of the augmented views of every image: `number` counts from 1. The plain view is None, not a View."""

    augment: Augment
    seed: int
    number: int

    def components(self) -> dict[str, Any]:
        """Its part of the extract key."""
        return {
            "version": VERSION,
            "seed": self.seed,
            "number": self.number,
            "augment": self.augment.components(),
        }


def apply_view(pixels: np.ndarray, view: View, image: str) -> np.ndarray:
    """The view of an image with that id: uint8 (h, w, 3) -> the same shape and dtype, bitwise the same with all off.

    Flips and turns are used in turn: no two views of an image share one until all allowed ones, the plain image's
    included, have been used. Rotation, shift and zoom are one affine transform about the centre, bilinear without
    antialias; outside pixels are the image reflected, since black corners look like defects.
    """
    moved = _transform(turn(pixels, _orientation(view, image)), view, image)
    return np.ascontiguousarray(_adjust_light(moved, view, image))


def turn(pixels: np.ndarray, element: Element) -> np.ndarray:
    """One picture (h, w, 3), or several (n, h, w, 3), so flipped and turned."""
    quarters, swap = element
    turned = np.rot90(pixels, quarters, (-3, -2))
    return turned[..., ::-1, :] if swap else turned


def _orientation(view: View, image: str) -> Element:
    """The flip and turn of a view: the allowed ones in turn, the identity first, then shuffled per image."""
    identity, *others = view.augment.elements()
    others.sort(key=lambda element: _digest(view.seed, image, *element))
    return [identity, *others][view.number % (1 + len(others))]


def _transform(pixels: np.ndarray, view: View, image: str) -> np.ndarray:
    """Rotate, shift and zoom, in one step."""
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
    margin = max(0, math.ceil(outside)) + 1  # for interpolation at the edge
    padded = np.pad(pixels, ((margin, margin), (margin, margin), (0, 0)), mode="reflect")
    inverse = (a, b, left + margin, -b, a, top + margin)
    moved = Image.fromarray(padded).transform(
        (width, height), Image.Transform.AFFINE, inverse, Image.Resampling.BILINEAR
    )
    return np.asarray(moved)


def _adjust_light(pixels: np.ndarray, view: View, image: str) -> np.ndarray:
    limits = view.augment
    if not (limits.brightness or limits.contrast):
        return pixels
    adjusted = pixels.astype(np.float32)
    if limits.contrast:
        mean = np.float32(int(pixels.sum(dtype=np.int64)) / pixels.size)  # exact on every machine
        adjusted = (adjusted - mean) * np.float32(1 + limits.contrast * _draw(view, image, "contrast")) + mean
    if limits.brightness:
        adjusted += np.float32(255 * limits.brightness * _draw(view, image, "brightness"))
    return np.clip(np.rint(adjusted), 0, 255).astype(np.uint8)


def _draw(view: View, image: str, name: str) -> float:
    """Uniform in [-1, 1)."""
    return int.from_bytes(_digest(view.seed, view.number, image, name)[:8], "big") / 2**63 - 1


def _digest(*parts: object) -> bytes:
    return hashlib.sha256(":".join(map(str, parts)).encode()).digest()
