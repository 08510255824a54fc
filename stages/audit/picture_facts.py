"""Owns what is known of a picture besides what it shows: size, format, bytes, light, sharpness. Not what is odd."""

from __future__ import annotations

import contextlib

import numpy as np
from scipy.ndimage import laplace

from stages.audit.likeness import SIDE
from stages.data.image_formats import ImageRejected, open_image

FACTS = np.dtype(
    [
        ("width", np.int32),
        ("height", np.int32),
        ("bytes", np.int64),
        ("format", "U4"),
        ("mode", "U6"),
        ("deviation", np.float32),
        ("dark_end", np.float32),
        ("bright_end", np.float32),
        ("sharpness", np.float32),
    ]
)
"""Of one picture: pixels as stored, bytes of the file, format and mode as Pillow calls them; of its thumbnail, in grey
values: the standard deviation, the values that 5 % and 95 % are below, and the sharpness. All 0 where it isn't read."""

_NOISE = 1.0
"""Grey values of rounding, that must not make a picture of one colour a sharp one."""


def measure(data: bytes, thumbnail: np.ndarray) -> np.ndarray:
    """The FACTS of the picture whose file has these bytes, and of its thumbnail (SIDE, SIDE) uint8: an array of one.

    Sharpness is the standard deviation of the Laplacian over that of the picture, so that contrast counts in neither.
    """
    found = np.zeros(1, FACTS)
    found["bytes"] = len(data)
    with contextlib.suppress(ImageRejected):
        if (image := open_image(data)) is not None:
            found["width"], found["height"] = image.size
            found["format"], found["mode"] = image.format or "", image.mode
    grey = thumbnail.reshape(SIDE, SIDE).astype(np.float32)
    found["deviation"] = grey.std()
    found["dark_end"], found["bright_end"] = np.quantile(grey, [0.05, 0.95])
    found["sharpness"] = laplace(grey, mode="nearest").std() / (grey.std() + _NOISE)
    return found
