"""Photographs, as files and as pixels, and a file that declares a size. Not pictures without content (fakes.py)."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import skimage.data
from PIL import Image


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def photograph(mode: str = "RGB", size: tuple[int, int] = (96, 64)) -> Image.Image:
    return Image.fromarray(skimage.data.chelsea()).resize(size).convert(mode)


def png_header(width: int, height: int) -> bytes:
    """A PNG that declares a size and holds almost nothing."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"0" * 99)) + chunk(b"IEND", b"")
    )


def crops(n: int, size: int) -> np.ndarray:
    """Of real photographs, as they are: uint8 (n, size, size, 3)."""
    rng = np.random.default_rng(0)
    sources = [skimage.data.chelsea(), skimage.data.coffee(), skimage.data.astronaut()]
    found = []
    for i in range(n):
        source = sources[i % 3]
        y, x = (int(rng.integers(side - size)) for side in source.shape[:2])
        found.append(source[y : y + size, x : x + size])
    return np.stack(found)


def photographs(size: int, crops: int = 1) -> np.ndarray:
    """Three, as a whole; and of each `crops` - 1 parts."""
    found = []
    for picture in (skimage.data.chelsea(), skimage.data.coffee(), skimage.data.astronaut()):
        height, width = picture.shape[:2]
        for crop in range(crops):
            box = (crop * width // 8, crop * height // 8, width, height)
            found.append(np.asarray(Image.fromarray(picture).resize((size, size), box=box)))
    return np.stack(found)
