"""Owns resizing within an exported network: what images.py does, for any height and width. A TensorFlow room.

Resizing an axis is a product with a matrix of weights, which the graph computes from the size of the picture. It uses
Keras's operations only, so that the file loads without this package; onnxruntime has all of them, but not what Keras's
antialiased resize becomes.
"""

from typing import Any

import numpy as np
import PIL
from keras import ops

from stages.data.images import PixelSpec

_ROWS_FIRST = int(PIL.__version__.partition(".")[0]) >= 13
"""Whether Pillow takes the rows of a picture first, where it becomes much lower."""

_AT_ONCE = 32
"""How many pixels of a line come out of one product. Input pixels that none of them uses are left out: most."""


def resize_to_fit(pixels: Any, spec: PixelSpec) -> Any:
    """uint8 (n, any height, any width, 3) -> float32 (n, spec.height, spec.width, 3), whole numbers from 0 to 255.

    They are those of `images.decode`, to the bit, by the Pillow that is installed when the graph is made; but
    onnxruntime rounds a rare pixel of resize: keras otherwise. `spec.decode` is left aside: these pixels are decoded.
    """
    lines = _centres(pixels[0, :, 0, 0]), _centres(pixels[0, 0, :, 0])
    scales = spec.height / _size(lines[0]), spec.width / _size(lines[1])
    scale = ops.maximum(*scales) if spec.fit == "crop" else ops.minimum(*scales)
    shortest = ops.minimum(*map(_size, lines))
    rows, columns = (
        _Axis(line, n, spec, scale, shortest, axis)
        for line, n, axis in zip(lines, (spec.height, spec.width), (2, 3), strict=True)
    )
    planes = ops.transpose(pixels, (0, 3, 1, 2))
    if spec.resize == "keras":
        planes = ops.round(rows.between(columns.between(planes)))
    elif not _ROWS_FIRST:
        planes = rows.widened(columns.widened(planes))
    else:  # each picture goes one way of two; a condition would be code, which a .keras file must not have
        lower = rows.shorter > ops.maximum(2 * columns.shorter, 0)
        tall = ops.logical_and(ops.ones_like(pixels[:, 0, 0, 0], "bool"), lower)
        those, others = (ops.take(planes, ops.nonzero(they)[0], axis=0) for they in (tall, ops.logical_not(tall)))
        planes = ops.concatenate([columns.widened(rows.widened(those)), rows.widened(columns.widened(others))])
    return ops.cast(ops.transpose(planes, (0, 2, 3, 1)), "float32")


def _centres(line: Any) -> Any:
    """Where the pixels of a line have their centres: 0.5, 1.5 and so on, float64, as Python's own numbers are."""
    return ops.cumsum(ops.cast(ops.ones_like(line), "float64")) - 0.5


def _size(centres: Any) -> Any:
    return ops.max(centres) + 0.5


def _triangle(distance: Any) -> Any:
    return ops.maximum(1 - distance, 0.0)


def _cubic(distance: Any) -> Any:
    """Pillow's bicubic_filter, a = -0.5: beyond 1 it is negative."""
    near = (1.5 * distance - 2.5) * distance * distance + 1
    far = -0.5 * (((distance - 5) * distance + 8) * distance - 4)
    return ops.where(distance < 1, near, ops.where(distance < 2, far, 0.0))


_KERNELS = {"bilinear": _triangle, "bicubic": _cubic}


class _Axis:
    """Rows or columns: where the n pixels that come out lie on the line that goes in, and what each takes of it.

    at: their centres (n,), counted from the first that isn't black. low, step: where the line is read from, and by how
    much, in its pixels. shorter: by how much it becomes so.
    """

    def __init__(self, centres: Any, n: int, spec: PixelSpec, scale: Any, shortest: Any, axis: int) -> None:
        self.centres, self.size, self.axis, self.kernel = centres, _size(centres), axis, _KERNELS.get(spec.resize)
        low, high, inner, self.at = ops.zeros_like(self.size), self.size, n, np.arange(n, dtype=np.float32) + 0.5
        if spec.resize_to is not None:
            inner = ops.floor((spec.resize_to * high + 0.5) / shortest)  # far from whole numbers, in float32 too
            self.at = ops.add(self.at, ops.cast(ops.floor((inner - n) / 2), "float32"))
        elif spec.fit == "crop":
            half = n / scale / 2
            box = "float64" if spec.resize == "keras" else "float32"  # Pillow's corners are of C's float
            low = ops.maximum(ops.cast(high / 2 - half, box), 0.0)
            high = ops.minimum(ops.cast(high / 2 + half, box), ops.cast(high, box))
        elif spec.fit == "pad":
            inner = ops.minimum(ops.maximum(ops.round(high * scale), 1.0), n)
            self.at = ops.subtract(self.at, ops.cast(ops.floor((n - inner) / 2), "float32"))
        self.low, self.step = low, ops.cast(high - low, "float64") / inner
        self.shorter = self.size - inner
        self.black = ops.logical_or(self.at < 0, self.at > inner) if spec.fit == "pad" else None

    def widened(self, planes: Any) -> Any:
        """Pillow's Resample.c: a kernel, wider where the line shrinks; 22 bits of weights; rounded to a level.

        uint8 or float64 (n, 3, height, width) -> float64, which holds all sums exactly.
        """
        assert self.kernel is not None
        reach = ops.maximum(self.step, 1.0)
        where = ops.minimum(ops.maximum(self.low + ops.multiply(self.at, self.step), 0.0), self.size)
        weights = self.kernel(ops.absolute(self.centres - where[:, None]) * (1 / reach))
        weights = weights / ops.sum(weights, axis=1, keepdims=True)
        if self.black is not None:  # not 0: a product of nothing is more than onnxruntime can do
            weights = ops.where(self.black[:, None], weights * 2**-30, weights)
        parts = []
        for some in np.split(np.arange(self.at.shape[0]), range(_AT_ONCE, self.at.shape[0], _AT_ONCE)):
            part = ops.take(weights, some, axis=0)
            used = ops.nonzero(ops.any(part != 0, axis=0))[0]
            part = ops.take(part, used, axis=1) * 2**22
            part = ops.where(part < 0, -ops.floor(0.5 - part), ops.floor(part + 0.5))
            line = ops.cast(ops.take(planes, used, axis=self.axis), "float64")
            parts.append(ops.matmul(part, line) if self.axis == 2 else ops.matmul(line, ops.transpose(part)))
        levels = ops.floor((ops.concatenate(parts, axis=self.axis) + 2**21) / 2**22)
        return ops.minimum(ops.maximum(levels, 0.0), 255.0)

    def between(self, planes: Any) -> Any:
        """`images._half_pixel`, in float32 as that: of each pixel the two nearest ones of the line. Not yet rounded."""
        where = ops.cast(self.low, "float32") + ops.multiply(self.at, ops.cast(self.step, "float32")) - 0.5
        first = ops.floor(where)
        share = where - first
        near, far = (
            ops.cast(ops.take(planes, ops.cast(i, "int32"), axis=self.axis), "float32")
            for i in (ops.minimum(ops.maximum(i, 0), self.size - 1) for i in (first, first + 1))
        )
        shape = (-1, 1) if self.axis == 2 else (-1,)
        mixed = near * ops.reshape(1 - share, shape) + far * ops.reshape(share, shape)
        if self.black is None:
            return mixed
        return ops.where(ops.reshape(self.black, shape), 0.0, mixed)
