"""Owns what an engine is to the rest: `Embed`, taps by extract key, and batch sizes. Not which engines there are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from stages.bases.recipe import Tap

CPU_BATCH = 8
GPU_BATCH = 64

Taps = Mapping[str, Tap]
"""extract key -> tap: two names for the same tap are one."""


class Embed(Protocol):
    """A frozen function: uint8 (n, h, w, 3), 1 <= n <= batch -> {extract key: float32 (n, ...)}, row by row."""

    batch: int
    provenance: dict[str, Any]

    def __call__(self, pixels: np.ndarray) -> dict[str, np.ndarray]: ...
