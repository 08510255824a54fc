"""Owns what an engine is to the rest: `Embed`, its batches, rows that don't depend on others. Not which there are."""

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from cache.errors import Unusable
from stages.bases.recipe import Tap

CPU_BATCH = 8
GPU_BATCH = 64

Taps = Mapping[str, Tap]
"""extract key -> tap: two names of one tap have one key."""


class Embed(Protocol):
    """A frozen function: uint8 (n, h, w, 3), 1 <= n <= batch -> {tap name: float32 (n, ...)}, row by row.

    provenance: engine, device and versions, for the records of shards.
    """

    batch: int
    provenance: dict[str, Any]

    def __call__(self, pixels: np.ndarray) -> dict[str, np.ndarray]: ...


def embed_all(embed: Embed, pixels: np.ndarray) -> dict[str, np.ndarray]:
    """Rows of any number of images, batch by batch."""
    parts = [embed(pixels[start : start + embed.batch]) for start in range(0, len(pixels), embed.batch)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def pad_batch(pixels: np.ndarray, batch: int) -> np.ndarray:
    """The pixels, with black images added up to a whole batch: engines run at one fixed batch shape."""
    missing = batch - len(pixels)
    return np.pad(pixels, ((0, missing), (0, 0), (0, 0), (0, 0))) if missing else pixels


def check_independence(embed: Embed, height: int, width: int) -> None:
    """Raises Unusable unless an image alone gives bitwise the same row as at the end of a full batch.

    Of a user's model, which may do anything with a batch, such as subtract its mean, or round by its largest value: so
    each image is darker than the one before. Tests check the catalogue's bases.
    Bitwise, without a tolerance: a row's value must not depend on the run that computed it. NaN equals NaN here, and is
    refused when the shard is written.
    """
    brightest = np.linspace(256, 128, embed.batch).astype(int)[:, None, None, None]
    pixels = np.random.default_rng(0).integers(0, brightest, (embed.batch, height, width, 3)).astype(np.uint8)
    full, alone = embed(pixels), embed(pixels[-1:])
    for name, rows in full.items():
        if not np.array_equal(rows[-1], alone[name][0], equal_nan=True):
            off = np.abs(rows[-1] - alone[name][0]).max()
            raise Unusable(
                "base.name: the model gives another row for an image alone than for the same image in a batch "
                f"(they differ by {off:.2g}), or another one each time",
                "it may mix the images of a batch, or draw at random; with extract.batch: 1 each image is a batch",
            )
