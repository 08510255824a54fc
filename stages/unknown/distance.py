"""Owns what says how far rows are from those of train: its arrays, what numpy makes of them, its key. Not fitting it.

Rows are divided by their length, tap by tap, and centred; directions in which images of one class differ among each
other are shortened; the distance is 1 - the cosine with the nearest of some prototypes of train. A few matrix products,
so it can be part of an exported network, and does not grow with the rows.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Self

import numpy as np

from cache import keys, npz
from stages.data.manifest import Manifest
from stages.heads.matrix import Spans, divide_by_length
from stages.targets.target import Target

VERSION = 1
"""Of the fitting arithmetic. Raise it when the same rows give other distances."""

LEAST_SQUARE = 1e-9
"""Of what is left of a row after centring, whose length is 1 before: a row that is the mean itself has no direction."""

_BATCH_BYTES = 32 << 20


@dataclass(frozen=True)
class Distance:
    """How far rows are from those of train. Arrays are float32.

    spans (taps, 2) int: first and last column of each tap whose rows are divided by their length. mean (dim,): of the
    rows. directions (dim, r): orthonormal. gains (r,): the square of the factor that is applied along each, less 1.
    prototypes (dim, k): these are multiplied with a centred row; with it in the metric that the gains make, they give
    the length of its projection on each. held (n,): distances of rows of train, each by what was fitted without its
    fold, ascending.
    """

    spans: np.ndarray
    mean: np.ndarray
    directions: np.ndarray
    gains: np.ndarray
    prototypes: np.ndarray
    held: np.ndarray

    @property
    def unit(self) -> Spans:
        return [(int(start), int(stop)) for start, stop in self.spans]

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """features (n, ...) -> distances (n,) float64, from 0 to 2. Maps are flattened."""
        flat = np.asarray(features).reshape(len(features), -1)
        out = np.empty(len(flat))
        size = max(1, _BATCH_BYTES // (8 * max(flat.shape[1], 1)))
        for start in range(0, len(flat), size):
            out[start : start + size] = self._of(flat[start : start + size].astype(np.float64))
        return out

    def _of(self, x: np.ndarray) -> np.ndarray:
        centred = (divide_by_length(x, self.unit) if len(self.spans) else x) - self.mean
        along = centred @ self.directions
        squares = np.einsum("ij,ij->i", centred, centred) + along**2 @ self.gains
        near = (centred @ self.prototypes).max(axis=1)
        return np.asarray(1 - near / np.sqrt(np.maximum(squares, LEAST_SQUARE)))

    def threshold(self, rate: float) -> float | None:
        """The distance above which, of images like those of train, a share of `rate` is expected.

        That of the k-th of the n rows held out, k = ceil((n + 1) (1 - rate)), as in split conformal prediction (Vovk et
        al. 2005); None where they are too few for that rate. Images are judged by what all rows gave, those held out by
        what fewer did, so of few rows somewhat fewer false alarms are to be expected.
        """
        place = math.ceil(round((len(self.held) + 1) * (1 - rate), 9))
        return float(self.held[place - 1]) if 0 < place <= len(self.held) and self.held[place - 1] > 0 else None

    def arrays(self) -> dict[str, np.ndarray]:
        """All that was learnt, by name."""
        return {f"unknown_{part.name}": getattr(self, part.name) for part in fields(self)}

    def to_bytes(self) -> bytes:
        return npz.dump(self.arrays())

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Raises ValueError or KeyError for what `to_bytes` did not give."""
        found = npz.load(io.BytesIO(data))
        return cls(**{part.name: found[f"unknown_{part.name}"] for part in fields(cls)})


@dataclass(frozen=True)
class Unknown:
    """What says of an image that it is none of what a head knows: a distance, and the one from which on it says so."""

    distance: Distance
    rate: float
    threshold: float

    @classmethod
    def at(cls, distance: Distance, rate: float) -> Self | None:
        """None where rows of train are too few for that rate of false alarms."""
        threshold = distance.threshold(rate) if rate else None
        return None if threshold is None else cls(distance, rate, threshold)

    def scores(self, features: np.ndarray) -> np.ndarray:
        """features (n, ...) -> (n,) float64, the distance over the threshold: above 1, an image is unknown."""
        return self.distance(features) / self.threshold


def unknown_key(target: Target, extract_keys: Sequence[str], manifest: Manifest) -> str:
    """Of a distance: version of the code, extract keys of the taps, labelled rows, whether their labels are classes."""
    parts = {"version": VERSION, "classes": target.exclusive, "taps": extract_keys, "samples": manifest.samples_digest}
    return keys.digest("unknown", parts)


def least_rows(rate: float) -> int:
    """Rows of train that a threshold at that rate takes."""
    return math.ceil(round(1 / rate - 1, 9))


def named(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Those of a distance among other arrays."""
    return {name: array for name, array in arrays.items() if name.startswith("unknown_")}
