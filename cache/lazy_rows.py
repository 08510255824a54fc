"""Owns reading rows by number once it is known where they lie. Not finding that out (store.py)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from cache import shards
from cache.errors import NotAvailable
from cache.shards import ShardLayout


class LazyRows:
    """The rows of some ids, in order, as one array of shape (n, ...) that is read only where it is sliced.

    It holds no file open and no id, so that it is small where it is pickled.
    """

    def __init__(self, layouts: Sequence[ShardLayout], which: np.ndarray, positions: np.ndarray) -> None:
        """Row i lies in layouts[which[i]] at positions[i]; int arrays of shape (n,), n > 0."""
        self._layouts = [replace(layout, ids=()) for layout in layouts]
        self._which = which
        self._positions = positions
        self.shape = (len(which), *layouts[0].shape[1:])
        self.dtype: np.dtype[Any] = layouts[0].dtype
        self.ndim = len(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, part: Any) -> np.ndarray:
        """A fresh ndarray of the rows that the (first) slice, numbers or single number mean, as stored.

        Raises NotAvailable where a shard has gone since the rows were looked for.
        """
        first, *others = part if isinstance(part, tuple) else (part,)
        which, positions = (np.atleast_1d(array[first]) for array in (self._which, self._positions))
        out = np.empty((len(which), *self.shape[1:]), self.dtype)
        for number in dict.fromkeys(which.tolist()):
            here = np.flatnonzero(which == number)
            layout = self._layouts[number]
            try:
                out[here] = shards.read_rows(layout, positions[here])
            except FileNotFoundError as error:
                raise NotAvailable(
                    f"the shard {layout.path} has gone since its rows were looked for", "run it again"
                ) from error
        found = out[(slice(None), *others)] if others else out
        return found[0] if isinstance(first, int | np.integer) else found
