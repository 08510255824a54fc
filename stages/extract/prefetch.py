"""Owns reading image files ahead of the task that computes on their pixels. Not decoding (images.py)."""

import hashlib
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial

import numpy as np

from cache.hash_index import Seen, stat_file
from stages.bases.recipe import Recipe
from stages.data import augment, images
from stages.data.images import ImageRejected, PixelSpec

log = logging.getLogger(__name__)

MAX_FILE_BYTES = 1_000_000_000

READERS = 4
"""Files that one task reads at the same time."""

AHEAD = 16
"""Images of one task that are read or decoded ahead at most: two CPU batches."""


def read_image(image: str, paths: Sequence[str], recipes: Sequence[Recipe], seen: list[Seen]) -> list[np.ndarray]:
    """Pixels of the first of `paths` whose bytes have the id `image`, in each recipe's size and view: uint8 (h, w, 3).

    The buffer that is hashed is the one that is decoded. Stat and digest of each file read are added to `seen`.
    Raises ImageRejected if no file has these bytes, or they cannot be decoded.
    """
    return _pixels(read_bytes(image, paths, seen), image, paths, recipes)


def read_picture(image: str, paths: Sequence[str], pixels: PixelSpec) -> tuple[bytes, np.ndarray] | None:
    """Bytes and pixels, uint8 (h, w, 3), of the first of `paths` that has the id `image`; None where none can be shown.

    For what people or comparisons look at, as thumbnails; rows go by `read_image`, which tells why.
    """
    with suppress(ImageRejected):
        data = read_bytes(image, paths, [])
        return data, images.decode(data, pixels)
    return None


def read_ahead(
    rows: Iterable[tuple[str, Sequence[str]]], recipes: Sequence[Recipe], seen: list[Seen]
) -> Generator[tuple[str, Future[list[np.ndarray]]], None, None]:
    """Yield (id, future of its pixels by each recipe) for each row, in order. Close the generator to stop early.

    READERS files are read at the same time while the caller computes, since storage may be slow to answer. Memory:
    the bytes of READERS files, AHEAD arrays of pixels by each recipe, and one image of full size, as images are decoded
    one by one.
    """
    decoding = threading.Lock()

    def pixels(image: str, paths: Sequence[str]) -> list[np.ndarray]:
        data = read_bytes(image, paths, seen)
        with decoding:
            return _pixels(data, image, paths, recipes)

    waiting: deque[tuple[str, Future[list[np.ndarray]]]] = deque()
    readers = ThreadPoolExecutor(READERS)
    try:
        for image, paths in rows:
            waiting.append((image, readers.submit(pixels, image, paths)))
            if len(waiting) == AHEAD:
                yield waiting.popleft()
        while waiting:
            yield waiting.popleft()
    finally:
        readers.shutdown(cancel_futures=True)


def read_bytes(image: str, paths: Sequence[str], seen: list[Seen]) -> bytes:
    """The bytes of the first of `paths` that have the id `image`; otherwise as `read_image`."""
    reason = ""
    for path in paths:
        try:
            with open(path, "rb", buffering=0) as file:
                stat, when = stat_file(os.fstat(file.fileno())), time.time()
                if stat[2] > MAX_FILE_BYTES:
                    raise ImageRejected(f"{stat[2]} bytes, more than {MAX_FILE_BYTES}")
                data = file.read()
                unchanged = stat_file(os.fstat(file.fileno())) == stat
        except OSError as error:
            reason = f"cannot be read: {error.strerror}"
            continue
        found = hashlib.sha256(data).hexdigest()
        if unchanged:
            seen.append((path, stat, when, found))
        if found == image:
            return data
        reason = "its bytes are not those of its id: changed during the run, or since the table was made"
    raise ImageRejected(reason)


def _pixels(data: bytes, image: str, paths: Sequence[str], recipes: Sequence[Recipe]) -> list[np.ndarray]:
    specs = list(dict.fromkeys(recipe.pixels for recipe in recipes))
    warn = partial(log.warning, "%s: %s", paths[0])
    found = dict(zip(specs, images.decode_all(data, specs, warn), strict=True))
    return [
        found[recipe.pixels] if recipe.view is None else augment.apply_view(found[recipe.pixels], recipe.view, image)
        for recipe in recipes
    ]
