"""Owns what an audit reads of the pictures: thumbnails, facts, and from these copies, odd pictures. Not the rest."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
from PIL import Image

from cache import atomic_files
from pipeline.evaluation.audit_findings import Copies, Copy, OddPicture
from pipeline.project.project import Project
from pipeline.runs import extraction
from stages.audit import copies, odd_pictures
from stages.audit.likeness import COARSE, SIDE, coarse, thumbnail
from stages.audit.picture_facts import FACTS, measure
from stages.data import images
from stages.data.images import ImageRejected, PixelSpec
from stages.data.manifest import Manifest, Row
from stages.extract import prefetch
from stages.runtime.parallel import run_in_threads

SAMPLE, SAMPLE_SIDE = 60, 512
"""Pictures that copies are made of, to tell which kinds of copies would be found; at their own size, or this one."""

_PART = 64
"""Pictures that a thread reads before it reports."""


@dataclass(frozen=True)
class Pictures:
    """Of n images: grey thumbnails (n, SIDE, SIDE) uint8, `coarse` ones (n, COARSE ** 2) float16, and FACTS (n,).

    Thumbnails lie in a file, of which the system keeps in memory what it can. A picture that cannot be read is of one
    colour, and its facts are 0.
    """

    thumbnails: np.ndarray
    small: np.ndarray
    facts: np.ndarray


@contextmanager
def read_pictures(project: Project, manifest: Manifest, ids: Sequence[str]) -> Iterator[Pictures]:
    """The pictures of `ids`, while the block runs: in temporary files, some 10 KB an image.

    Raises NotAvailable where one is not here, Unwritable where the temporary folder is full.
    """
    paths = extraction.image_paths(project, manifest, ids)
    spec = PixelSpec(SIDE, SIDE, max_pixels=project.config.data.max_pixels)
    facts = np.zeros(len(ids), FACTS)
    with (
        atomic_files.temporary_folder() as folder,
        open(folder / "thumbnails", "w+b") as thumbnails,
        open(folder / "coarse", "w+b") as small,
    ):

        def read(start: int) -> None:
            part = np.zeros((min(_PART, len(ids) - start), SIDE, SIDE), np.uint8)
            for place, image in enumerate(ids[start : start + _PART]):
                if (picture := prefetch.read_picture(image, paths[image], spec)) is not None:
                    part[place] = thumbnail(picture[1])
                    facts[start + place] = measure(picture[0], part[place])[0]
            _write(thumbnails, part, start)
            _write(small, coarse(part).astype(np.float16), start)
            advance(len(part))

        with project.progress("reading pictures", len(ids)) as advance:
            run_in_threads(read, range(0, len(ids), _PART))
        yield Pictures(
            np.memmap(thumbnails, np.uint8, "r", shape=(len(ids), SIDE, SIDE)),
            np.memmap(small, np.float16, "r", shape=(len(ids), COARSE**2)),
            facts,
        )


def find_copies(project: Project, pictures: Pictures, near: np.ndarray) -> copies.Copies:
    """near (n, k) int: the nearest rows of each."""
    return copies.find_copies(pictures.thumbnails, pictures.small, near, project.progress)


def describe_copies(project: Project, manifest: Manifest, rows: Sequence[Row], found: copies.Copies) -> Copies:
    """With the copies that would be found: of a sample by ids, which are digests."""
    pairs = [
        Copy(rows[i], rows[j], round(alike, 4))
        for (i, j), alike in zip(found.pairs.tolist(), found.likeness.tolist(), strict=True)
    ]
    ids = sorted(row.id for row in rows)[:SAMPLE]
    paths = extraction.image_paths(project, manifest, ids)
    most = project.config.data.max_pixels
    found_here = run_in_threads(lambda image: _at_its_size(image, paths[image], most), ids)
    sample = [pixels for pixels in found_here if pixels is not None]
    groups = len(set(copies.join_groups(found.pairs, len(rows))[found.pairs.ravel()].tolist()))
    return Copies(pairs, groups, round(found.threshold, 4), copies.shares_found(sample, found.threshold))


def find_odd(rows: Sequence[Row], facts: np.ndarray) -> list[OddPicture]:
    return [OddPicture(rows[one.number], one.kind, one.found) for one in odd_pictures.find_odd_pictures(facts)]


def _at_its_size(image: str, paths: Sequence[str], most: int) -> np.ndarray | None:
    """The pixels (h, w, 3) of a picture, its longer side at most SAMPLE_SIDE; None where it cannot be read."""
    with suppress(ImageRejected):
        data = prefetch.read_bytes(image, paths, [])
        whole, _ = images.decode_all(data, [None, PixelSpec(SIDE, SIDE, max_pixels=most)])  # the latter for the limit
        pixels = Image.fromarray(whole)
        pixels.thumbnail((SAMPLE_SIDE, SAMPLE_SIDE))
        return np.asarray(pixels)
    return None


def _write(file: BinaryIO, part: np.ndarray, start: int) -> None:
    """The items from number `start` on. By calls rather than through memory, so that a full disk is an error."""
    data, at = part.tobytes(), start * part[0].nbytes
    while data:
        written = os.pwrite(file.fileno(), data, at)
        data, at = data[written:], at + written
