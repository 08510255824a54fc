"""Owns reading rows whose shards and positions are known. Not finding those (store.py)."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from cache import shards
from cache.errors import Damaged, NotAvailable
from cache.shards import ShardLayout


class LazyRows:
    """The rows of some ids, in order, as one array of shape (n, ...) that is read when it is sliced.

    It keeps no open file and no ids, so its pickle is small.
    """

    def __init__(self, layouts: Sequence[ShardLayout], which: np.ndarray, positions: np.ndarray) -> None:
        """Row i is in layouts[which[i]] at positions[i]; int arrays of shape (n,), n > 0."""
        self._layouts = [replace(layout, ids=()) for layout in layouts]
        self._which = which
        self._positions = positions
        self.shape = (len(which), *layouts[0].shape[1:])
        self.dtype: np.dtype[Any] = layouts[0].dtype
        self.ndim = len(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, part: Any) -> np.ndarray:
        """A new ndarray of the rows selected by the (first) slice, int array or int, as stored.

        Raises NotAvailable where a shard was removed after the rows were found, Damaged where one is not valid.
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
                    f"the shard {layout.path} was removed after its rows were found", "run it again"
                ) from error
            except shards.BadShard as error:
                raise Damaged(f"{layout.path}: {error}", "pipeline cache verify, then run it again") from error
        found = out[(slice(None), *others)] if others else out
        return found[0] if isinstance(first, int | np.integer) else found
