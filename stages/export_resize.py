"""Owns resizing within an exported network: what images.py does, for any height and width. A TensorFlow room.

Resizing an axis is a product with a matrix of weights, which the graph reckons from the size of the picture. It takes
Keras's own operations alone, so that a file of it loads without this package; and onnxruntime has all of them, while it
refuses what becomes of Keras's antialiased resize.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from keras import ops

from stages.images import PixelSpec


def fitted(pixels: Any, spec: PixelSpec) -> Any:
    """uint8 (n, any height, any width, 3) -> float32 (n, spec.height, spec.width, 3), whole numbers from 0 to 255.

    They are those of `images.decode`, give or take a level where two ways of rounding part: in float32 few do, but a
    fifth of a tall picture's, whose columns Pillow takes first from version 13 on. `spec.decode` is left aside: these
    pixels are decoded.
    """
    rows, columns = _centres(pixels[0, :, 0, 0]), _centres(pixels[0, 0, :, 0])
    scales = spec.height / _size(rows), spec.width / _size(columns)
    scale = ops.maximum(*scales) if spec.fit == "crop" else ops.minimum(*scales)
    along, down = _weights(columns, spec.width, spec, scale), _weights(rows, spec.height, spec, scale)
    y = ops.einsum("nhwc,xw->nhxc", ops.cast(pixels, "float32"), along)
    if spec.resize == "keras":
        return ops.round(ops.einsum("nhxc,yh->nyxc", y, down))
    whole = ops.floor(y + 0.5)  # which Pillow keeps between the two; of what may go either way, neither is a level off
    y = ops.where(ops.absolute(y - whole) < 0.499, whole, y)
    return ops.floor(ops.einsum("nhxc,yh->nyxc", y, down) + 0.5)


def _centres(line: Any) -> Any:
    """Where the pixels of a line have their centres: 0.5, 1.5 and so on, float64, as Python's own numbers are."""
    return ops.cumsum(ops.cast(ops.ones_like(line), "float64")) - 0.5


def _size(centres: Any) -> Any:
    return ops.max(centres) + 0.5


def _weights(centres: Any, n: int, spec: PixelSpec, scale: Any) -> Any:
    """What each of n pixels takes of each of a line: float32 (n, size), rows sum to 1, or 0 in the black of `pad`.

    The triangle of Pillow's Resample.c, widened where the line shrinks; with resize: keras never widened.
    """
    size = _size(centres)
    low, high, inner, at = 0.0, size, n, np.arange(n)[:, None] + 0.5
    if spec.fit == "crop":
        half = n / scale / 2
        low, high = ops.maximum(size / 2 - half, 0.0), ops.minimum(size / 2 + half, size)
    elif spec.fit == "pad":
        inner = ops.minimum(ops.maximum(ops.round(size * scale), 1.0), n)
        at = ops.subtract(at, ops.floor((n - inner) / 2))
    step = (high - low) / inner
    where = low + ops.multiply(at, step)
    if spec.resize == "keras":
        triangle = 1 - ops.absolute(centres - ops.minimum(ops.maximum(where, 0.5), size - 0.5))
    else:
        triangle = 1 - ops.absolute(centres - where) / ops.maximum(step, 1.0)
    weights = ops.maximum(triangle, 0.0)
    weights = weights / ops.maximum(ops.sum(weights, axis=1, keepdims=True), 0.5)  # within the line it is no less
    if spec.fit == "pad":
        weights = weights * ops.cast(ops.logical_and(at > 0, at < inner), "float64")
    return ops.cast(weights, "float32")
