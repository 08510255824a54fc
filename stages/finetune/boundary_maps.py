"""Owns the maps that fine-tuning starts from: read from the cache, or computed from images each time. Not training.

They are the output of the last frozen layer, one (h, w, channels) for each sample and view. View 0 is the plain image.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import numpy as np

from cache.errors import PipelineError
from stages.bases.recipe import Recipe
from stages.data.images import ImageRejected
from stages.engines.embed import Taps
from stages.extract import opened_bases, prefetch
from stages.extract.opened_bases import Job
from stages.heads.matrix import Source
from stages.runtime.hardware import cpu_count

MEMORY_BYTES = 1 << 30
"""Up to this size, maps are read into memory at once; larger ones batch by batch."""


class Boundary(Protocol):
    """Maps of n samples, each in several views."""

    def take(self, where: np.ndarray, views: np.ndarray) -> np.ndarray:
        """float32 (len(where), h, w, channels): of the samples `where`, each in its view of `views`."""
        ...


class Cached:
    """From rows in the cache: the plain view of all samples, further views of the samples `train`."""

    def __init__(self, plain: Source, views: Sequence[Source], train: np.ndarray) -> None:
        self._shape = plain.shape[1:]
        sources = [plain, *views]
        small = sum(int(np.prod(source.shape)) * 4 for source in sources) <= MEMORY_BYTES
        self._sources: list[Source] = [source[:] for source in sources] if small else sources
        self._line = np.full(plain.shape[0], -1)
        self._line[train] = np.arange(len(train))

    def take(self, where: np.ndarray, views: np.ndarray) -> np.ndarray:
        out = np.empty((len(where), *self._shape), np.float32)
        for view in np.unique(views):
            here = np.flatnonzero(views == view)
            lines = where[here] if view == 0 else self._line[where[here]]
            out[here] = self._sources[view][lines]
        return out


class Computed:
    """From the images, through the frozen part of the base, each time anew; nothing is stored."""

    def __init__(
        self, job: Job, taps: Taps, images: Sequence[tuple[str, Sequence[str]]], recipes: Sequence[Recipe]
    ) -> None:
        """`taps` has one entry, the boundary; images: (id, absolute paths) of each sample; recipes: one a view."""
        (self._key,) = taps
        self._images, self._recipes = images, recipes
        self._embed = opened_bases.open_embed(job, taps)
        self._threads = ThreadPoolExecutor(cpu_count())

    def take(self, where: np.ndarray, views: np.ndarray) -> np.ndarray:
        pixels = np.stack(list(self._threads.map(self._pixels, where.tolist(), views.tolist())))
        batch = self._embed.batch
        parts = [pixels[start : start + batch] for start in range(0, len(pixels), batch)]
        return np.concatenate(list(self._threads.map(self._forward, parts)))

    def _pixels(self, sample: int, view: int) -> np.ndarray:
        image, paths = self._images[sample]
        try:
            return prefetch.read_image(image, paths, [self._recipes[view]], [])[0]
        except ImageRejected as error:
            raise PipelineError(
                f"{paths[0] if paths else image[:12]}: {error}", "run again: it could be read before"
            ) from error

    def _forward(self, pixels: np.ndarray) -> np.ndarray:
        return self._embed(pixels)[self._key].astype(np.float32, copy=False)
