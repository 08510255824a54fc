"""Owns what an engine is to the rest: `Embed`, taps by extract key, and batches. Not which engines there are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

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
    if len(pixels) == batch:
        return pixels
    return np.concatenate([pixels, np.zeros((batch - len(pixels), *pixels.shape[1:]), np.uint8)])
