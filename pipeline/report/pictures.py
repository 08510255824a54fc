"""Owns pictures within a page: thumbnails, sheets of them, data URIs. Not which pictures are shown."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from PIL import Image

from pipeline.report.material import Material
from stages.data.images import ImageRejected, PixelSpec
from stages.extract import prefetch
from stages.runtime.parallel import run_in_threads

TILE = 64
"""Pixels a side of a picture in a sheet."""

COLUMNS = 32
"""Pictures in a row of a sheet."""

PER_SHEET = COLUMNS * 32

SHEET_BYTES = 2_400_000
"""Of all sheets of a page at most, before base64: the quality falls until they fit."""

_QUALITIES = (75, 60, 45, 30, 15, 1)

Pixels = Mapping[str, np.ndarray]
"""By id, uint8 (h, w, 3), of the pictures that could be read."""


@dataclass(frozen=True)
class Sheets:
    """Pictures side by side, COLUMNS in a row, in some images; `place`: id -> number of a picture, over all sheets."""

    uris: Sequence[str]
    place: Mapping[str, int]


def read_squares(material: Material, ids: Sequence[str], side: int, title: str) -> Pixels:
    """Whole pictures in squares, beside them black, of those among `ids` whose files are here, unchanged."""
    spec = PixelSpec(side, side, "pad", max_pixels=material.today.config.data.max_pixels)

    def read(image: str) -> np.ndarray | None:
        picture = prefetch.read_picture(image, material.paths[image], spec)
        return None if picture is None else picture[1]

    return _read(material, ids, read, title)


def read_as_seen(material: Material, ids: Sequence[str]) -> Pixels:
    """Pictures as the base gets them: fitted to its size. Raises what `Material.then` does."""
    recipe = material.then.spec(material.tap).recipe

    def read(image: str) -> np.ndarray | None:
        with suppress(ImageRejected):
            return prefetch.read_image(image, material.paths[image], [recipe], [])[0]
        return None

    return _read(material, ids, read, "reading mistakes")


def _read(material: Material, ids: Sequence[str], read: Callable[[str], np.ndarray | None], title: str) -> Pixels:
    here = [image for image in dict.fromkeys(ids) if image in material.paths]
    with material.today.progress(title, len(here)) as advance:

        def one(image: str) -> np.ndarray | None:
            found = read(image)
            advance(1)
            return found

        pictures = run_in_threads(one, here)
    return {image: pixels for image, pixels in zip(here, pictures, strict=True) if pixels is not None}


def data_uri(pixels: np.ndarray, quality: int = 80) -> str:
    """uint8 (h, w, 3) as WebP."""
    return _uri(_encode(pixels, quality))


def make_sheets(pictures: Pixels) -> Sheets:
    """TILE-sided pictures in sheets, in the order of their ids, of at most SHEET_BYTES unless all quality is gone."""
    ids = sorted(pictures)
    parts = [ids[start : start + PER_SHEET] for start in range(0, len(ids), PER_SHEET)]
    sheets = [_sheet([pictures[image] for image in part]) for part in parts]
    files: list[bytes] = []
    for quality in _QUALITIES:
        files = run_in_threads(lambda sheet, quality=quality: _encode(sheet, quality), sheets)  # type: ignore[misc]
        if sum(map(len, files)) <= SHEET_BYTES:
            break
    return Sheets([_uri(file) for file in files], {image: number for number, image in enumerate(ids)})


def _sheet(tiles: Sequence[np.ndarray]) -> np.ndarray:
    rows = -(-len(tiles) // COLUMNS)
    sheet = np.full((rows * TILE, COLUMNS * TILE, 3), 128, np.uint8)
    for i, tile in enumerate(tiles):
        y, x = (TILE * part for part in divmod(i, COLUMNS))
        sheet[y : y + TILE, x : x + TILE] = tile
    return sheet


def _encode(pixels: np.ndarray, quality: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "WEBP", quality=quality, method=4)
    return buffer.getvalue()


def _uri(file: bytes) -> str:
    return "data:image/webp;base64," + base64.b64encode(file).decode("ascii")
