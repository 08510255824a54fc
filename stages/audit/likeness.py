"""Owns how alike two pictures are, whatever their size, brightness, side and margin. Not which pairs are compared.

A picture is its grey thumbnail. Two are as alike as their tiles correlate, at the tenth of the tiles that agrees least:
a copy agrees everywhere, while solar cells of one kind have the same bars, but not the same cracks.
"""

from __future__ import annotations

import io
from collections.abc import Iterator

import numpy as np
from PIL import Image
from scipy.ndimage import uniform_filter

SIDE, COARSE, TILES = 96, 24, 4
"""Of a thumbnail, in pixels; of the coarse one that candidates are found by; tiles along a side."""

MARGINS = (0.0, 0.025, 0.05)
"""Of each side, that one picture may lack of the other."""

_SEEN, LEAST_SEEN = 0.05, 3
"""Of the mean contrast of a picture's tiles: what is flatter in both pictures, such as background, is not compared. In
fewer tiles than LEAST_SEEN nothing can be said: they count as unlike."""

_QUANTILE = 0.1
FLAT = 2.0
"""Standard deviation of grey values, of 255, below which a picture is of one colour, and like any other."""


def thumbnail(pixels: np.ndarray) -> np.ndarray:
    """pixels (h, w, 3) uint8 of any size -> (SIDE, SIDE) uint8, grey."""
    return np.asarray(Image.fromarray(pixels).convert("L").resize((SIDE, SIDE), Image.Resampling.BILINEAR))


def is_flat(thumbnails: np.ndarray) -> np.ndarray:
    """Whether each of (n, SIDE, SIDE) is of one colour: (n,)."""
    return np.array([thumb.std() < FLAT for thumb in thumbnails], dtype=bool)


def coarse(thumbnails: np.ndarray) -> np.ndarray:
    """What is finer than a fifth of (n, SIDE, SIDE), by which candidates are found: (n, COARSE ** 2), of length 1."""
    of, n = SIDE // COARSE, len(thumbnails)
    small = thumbnails.reshape(n, COARSE, of, COARSE, of).mean(axis=(2, 4), dtype=np.float32)
    fine = small - uniform_filter(small, size=(0, 5, 5))
    fine = fine.reshape(n, -1)
    fine -= fine.mean(axis=1, keepdims=True)
    return np.asarray(fine / np.maximum(np.linalg.norm(fine, axis=1, keepdims=True), 1e-6))


def mirror(found: np.ndarray) -> np.ndarray:
    """What `coarse` gives of the mirrored pictures."""
    return found.reshape(-1, COARSE, COARSE)[:, :, ::-1].reshape(len(found), -1)


def views(thumb: np.ndarray) -> np.ndarray:
    """What of a thumbnail another picture may show, mirrored too: (views, TILES ** 2, values) as tiles have them."""
    image, found = Image.fromarray(thumb), []
    for margin in MARGINS:
        low, high = SIDE * margin, SIDE * (1 - margin)
        found.append(np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BILINEAR, (low, low, high, high))))
    seen = np.stack(found)
    return _tiles(np.concatenate([seen, seen[:, :, ::-1]]))


def likeness(seen: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Of a picture by its `views` to thumbnails (n, SIDE, SIDE): the best view's, up to 1 for the same, (n,)."""
    tiles = _tiles(others)
    products = np.einsum("vtp,ntp->vnt", seen, tiles)
    one, other = (np.sqrt(np.einsum("ntp,ntp->nt", some, some)) for some in (seen, tiles))
    compared = _has_contrast(one)[:, None] | _has_contrast(other)
    agree = np.where(compared, products / np.maximum(one[:, None] * other, 1e-9), 1)
    there = compared.sum(axis=2)
    lowest = np.sort(agree, axis=2)  # tiles that are not compared come last, with those that agree
    place = np.maximum(there - 1, 0) * _QUANTILE
    low, rest = np.floor(place).astype(int)[..., None], place % 1
    below, above = (np.take_along_axis(lowest, np.minimum(low + i, tiles.shape[1] - 1), 2)[..., 0] for i in (0, 1))
    return np.asarray(np.where(there < LEAST_SEEN, -1, below + (above - below) * rest).max(axis=0))


def make_copies(pixels: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Copies of a picture (h, w, 3) uint8 by kind, as they are met: (name, pixels)."""
    image = Image.fromarray(pixels)
    width, height = image.size
    smaller = max(1, round(0.7 * width)), max(1, round(0.7 * height))
    yield "resized", np.asarray(image.resize(smaller, Image.Resampling.BICUBIC))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=60)
    yield "recompressed", np.asarray(Image.open(file).convert("RGB"))
    yield "brighter", np.asarray(image.point(lambda value: min(255, int(1.15 * value + 8))))
    yield "mirrored", pixels[:, ::-1]
    x, y = round(0.025 * width), round(0.025 * height)
    yield "cropped", pixels[y : height - y, x : width - x]


def _has_contrast(contrasts: np.ndarray) -> np.ndarray:
    """Whether tiles (n, tiles) are not flat, as their picture goes."""
    return np.asarray(contrasts > np.sqrt(_SEEN) * contrasts.mean(axis=1, keepdims=True))


def _tiles(thumbnails: np.ndarray) -> np.ndarray:
    """(n, SIDE, SIDE) -> tiles less their means: (n, TILES ** 2, (SIDE // TILES) ** 2) float32."""
    of = SIDE // TILES
    tiles = thumbnails.reshape(-1, TILES, of, TILES, of).transpose(0, 1, 3, 2, 4).reshape(-1, TILES**2, of * of)
    moved = tiles.astype(np.float32)
    return np.asarray(moved - moved.mean(axis=2, keepdims=True))
