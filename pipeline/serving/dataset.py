"""Owns which rows a user gets, in which order: X, y and ids, read at once, lazily, or block by block.

Not computing them (extraction.py), nor the files they may be written to (export_features.py).
"""

import logging
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from cache.errors import NotAvailable, Unusable
from cache.lazy_rows import LazyRows
from pipeline.project.project import Project
from pipeline.runs import train_heads
from stages.data.manifest import SPLITS, Manifest, Row
from stages.targets.target import Target

log = logging.getLogger(__name__)

CHUNK_BYTES = 32_000_000
"""About how much of X is in memory at a time, unless it is read whole."""


class Features(NamedTuple):
    """X float32 (n, dim), or (n, h, w, channels) for maps; y (n,) str objects or None, of other
    targets as `Target.values` has it, with columns in the order of predictions; ids (n,) str, of 64 hex digits.

    X is a new ndarray, or a dask array.
    """

    X: Any
    y: np.ndarray
    ids: np.ndarray


@dataclass(frozen=True)
class Dataset:
    """Images, each once, and their rows at a tap, not read yet.

    columns, order: of what is predicted, as in pipeline.yaml.
    """

    tap: str
    key: str
    images: tuple[Row, ...]
    rows: LazyRows
    target: type[Target]
    columns: Sequence[str]
    order: Sequence[str] | None

    @property
    def y(self) -> np.ndarray:
        return self.target.values([image.label for image in self.images], self.columns, self.order)

    @property
    def ids(self) -> np.ndarray:
        return np.array([image.id for image in self.images])

    @property
    def chunk(self) -> int:
        """How many rows are read at a time."""
        return max(1, CHUNK_BYTES // (int(np.prod(self.rows.shape[1:])) * self.rows.dtype.itemsize))

    def whole(self) -> Features:
        return Features(self.rows[:].astype(np.float32, copy=False), self.y, self.ids)

    def lazy(self) -> Features:
        import dask.array

        chunks = (self.chunk, *self.rows.shape[1:])
        X = dask.array.from_array(self.rows, chunks, name=False, meta=np.empty((0,) * self.rows.ndim, self.rows.dtype))
        return Features(X.astype(np.float32), self.y, self.ids)

    def blocks(self) -> Iterator[tuple[slice, np.ndarray]]:
        """All rows as stored, a block at a time, with the slice that they are."""
        for start in range(0, len(self.rows), self.chunk):
            part = slice(start, min(start + self.chunk, len(self.rows)))
            yield part, self.rows[part]


def check_request(project: Project, tap: str, split: str | None) -> None:
    """Raises Unusable where the project has no such tap, or there is no such split."""
    taps = project.config.extract.taps
    if tap not in taps:
        raise Unusable(f"no tap {tap!r} in {project.path.name}; it has {', '.join(taps)}", "name one of those")
    if split not in (None, *SPLITS):
        raise Unusable(f"there is no split {split!r}", f"name one of {', '.join(SPLITS)}, or none for all images")


def images_with_rows(project: Project, taps: Collection[str]) -> Manifest:
    """The images; with data.on_bad: skip, those that have rows at all these taps, as a run leaves out the others.

    Raises NotAvailable where others have none, or none has.
    """
    manifest = project.manifest
    absent = {image for tap in taps for image in project.store(tap).missing(manifest.ids)}
    if not absent:
        return manifest
    if len(absent) == len(manifest.ids):
        raise NotAvailable("no image has a row", "pipeline run extract computes them")
    if project.config.data.on_bad == "fail":
        first = next(row.path for row in manifest.rows if row.id in absent)
        raise NotAvailable(
            f"{len(absent):,} of {len(manifest.ids):,} images have no row; the first: {first}",
            "pipeline run extract computes them; where it rejects some, --set data.on_bad=skip leaves them out",
        )
    log.warning("%d of %d images have no row and are left out", len(absent), len(manifest.ids))
    return manifest.without(absent)


def select_rows(project: Project, manifest: Manifest, tap: str, split: str | None) -> Dataset:
    """The images of `manifest` that are in `split` (None: all) with their rows at the tap of that name.

    Copies count once, or once in each of their splits. First those with a label, as a head sees them
    (`Manifest.samples`), then those without one, both sorted by id. `path` is the first of the image's paths.
    Raises Unusable for a split without images, one image under two labels, and images or groups in two splits, unless
    data.on_leak is warn; NotAvailable where a row is absent.
    """
    manifest.check_labels()
    train_heads.check_leaks(project, manifest)
    labelled, paths = manifest.samples, {row.id: row.path for row in reversed(manifest.rows)}
    known = {image.id for image in labelled}
    others = {row.id: row for row in reversed(manifest.rows) if row.id not in known}
    each = (*labelled, *(others[i] for i in sorted(others)))
    everything = [image._replace(path=paths[image.id]) for image in each]
    images = tuple(image for image in everything if split in (None, image.split))
    if not images:
        sizes = ", ".join(f"{name} {sum(image.split == name for image in everything)}" for name in SPLITS)
        raise Unusable(
            f"no image is in {split or 'the project'} ({sizes})", "see data.split in pipeline.yaml, or add images"
        )
    store = project.store(tap)
    data, rows = project.config.data, store.rows([image.id for image in images])
    kind, order = project.target_kind, data.classes
    if order is None and kind.exclusive:  # of all images, since those of a split may lack some
        order = sorted(kind.names_in({row.label or "" for row in labelled}))
    return Dataset(tap, store.key, images, rows, kind, data.names, order)
