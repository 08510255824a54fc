"""Owns reading image files ahead of the task that computes on their pixels. Not decoding (images.py)."""

import hashlib
import logging
import threading
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import chain, islice

import numpy as np

from cache.hash_index import Seen
from stages.bases.recipe import Recipe
from stages.data import augment, images
from stages.data.images import ImageRejected
from stages.sources import places
from stages.sources.blobs import TooLarge

log = logging.getLogger(__name__)

READERS = 4
"""Files that one task reads at the same time; of a bucket, which takes longer to answer, AHEAD."""

AHEAD = 16
"""Images of one task that are read or decoded ahead at most: two CPU batches."""


def read_image(image: str, paths: Sequence[str], recipes: Sequence[Recipe], seen: list[Seen]) -> list[np.ndarray]:
    """Pixels of the first of `paths` whose bytes have the id `image`, in each recipe's size and view: uint8 (h, w, 3).

    `paths` are places (stages/sources/places.py). The buffer that is hashed is the one that is decoded. Stat and digest
    of each file read are added to `seen`. Raises ImageRejected if no file has these bytes, or they cannot be decoded;
    Denied and Unreachable where a bucket refuses them, or does not answer.
    """
    with _reading(image, paths, seen) as data:
        return _pixels(data, image, paths, recipes)


def read_ahead(
    rows: Iterable[tuple[str, Sequence[str]]], recipes: Sequence[Recipe], seen: list[Seen]
) -> Generator[tuple[str, Future[list[np.ndarray]]], None, None]:
    """Yield (id, future of its pixels by each recipe) for each row, in order. Close the generator to stop early.

    READERS files, or objects of a bucket, are read at the same time while the caller computes, since storage may be
    slow to answer. Memory: the bytes of so many files, AHEAD arrays of pixels by each recipe, and one image of full
    size, as images are decoded one by one. Bytes from a bucket are limited beside that (`blobs.IN_FLIGHT_BYTES`).
    """
    decoding = threading.Lock()

    def pixels(image: str, paths: Sequence[str]) -> list[np.ndarray]:
        with _reading(image, paths, seen) as data, decoding:
            return _pixels(data, image, paths, recipes)

    waiting: deque[tuple[str, Future[list[np.ndarray]]]] = deque()
    ordered = iter(rows)
    first = list(islice(ordered, 1))
    far = any(places.file_of(path) is None for _, paths in first for path in paths[:1])
    readers = ThreadPoolExecutor(AHEAD if far else READERS)
    try:
        for image, paths in chain(first, ordered):
            waiting.append((image, readers.submit(pixels, image, paths)))
            if len(waiting) == AHEAD:
                yield waiting.popleft()
        while waiting:
            yield waiting.popleft()
    finally:
        readers.shutdown(cancel_futures=True)


def read_bytes(image: str, paths: Sequence[str], seen: list[Seen]) -> bytes:
    """The bytes of the first of `paths` that have the id `image`; otherwise as `read_image`."""
    with _reading(image, paths, seen) as data:
        return data


@contextmanager
def _reading(image: str, paths: Sequence[str], seen: list[Seen]) -> Iterator[bytes]:
    """The same; while the block runs, bytes from a bucket count as in flight."""
    reason = ""
    for path in paths:
        with ExitStack() as held:
            try:
                data, stat = held.enter_context(places.reading(path))
            except TooLarge as error:
                raise ImageRejected(str(error)) from error
            except OSError as error:
                reason = f"cannot be read: {error.strerror or error}"
                continue
            found = hashlib.sha256(data).hexdigest()
            if stat is not None:
                seen.append((path, *stat, found))
            if found == image:
                yield data
                return
            reason = "its bytes are not those of its id: changed during the run, or since the table was made"
    raise ImageRejected(reason)


def _pixels(data: bytes, image: str, paths: Sequence[str], recipes: Sequence[Recipe]) -> list[np.ndarray]:
    specs = list(dict.fromkeys(recipe.pixels for recipe in recipes))
    warn = partial(log.warning, "%s: %s", places.text_of(paths[0]))
    found = dict(zip(specs, images.decode_all(data, specs, warn), strict=True))
    return [
        found[recipe.pixels] if recipe.view is None else augment.apply_view(found[recipe.pixels], recipe.view, image)
        for recipe in recipes
    ]
