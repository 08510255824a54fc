"""embed.py: rows that depend on others in their batch, or on chance, are told from those that don't."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from cache.errors import Unusable
from stages.engines import embed


class Batched:
    """An Embed of a function of padded batches."""

    provenance: dict[str, Any] = {}  # noqa: RUF012

    def __init__(self, batch: int, of: Callable[[np.ndarray], np.ndarray]) -> None:
        self.batch, self._of = batch, of

    def __call__(self, pixels: np.ndarray) -> dict[str, np.ndarray]:
        x = np.zeros((self.batch, *pixels.shape[1:]), np.float32)
        x[: len(pixels)] = pixels
        return {"t": self._of(x)[: len(pixels)]}


def pooled(x: np.ndarray) -> np.ndarray:
    return x.mean(axis=(1, 2))


def mixed(x: np.ndarray) -> np.ndarray:
    """Ever so slightly: 1e-6 of the others."""
    return pooled(x) + np.float32(1e-6) * pooled(x).mean()


def drawn(x: np.ndarray) -> np.ndarray:
    return pooled(x) + np.random.default_rng().normal(size=(len(x), 1)).astype(np.float32)


@pytest.mark.parametrize("batch", [1, 8])
def test_rows_of_their_own_pass(batch: int) -> None:
    embed.check_independence(Batched(batch, pooled), 16, 16)


@pytest.mark.parametrize(("batch", "of"), [(8, mixed), (8, drawn), (1, drawn)])
def test_others_are_refused(batch: int, of: Callable[[np.ndarray], np.ndarray]) -> None:
    with pytest.raises(Unusable, match="gives another row for an image alone than for the same image in a batch"):
        embed.check_independence(Batched(batch, of), 16, 16)


def test_what_is_no_number_is_left_to_the_shards() -> None:
    embed.check_independence(Batched(8, lambda x: pooled(x) * np.nan), 16, 16)
