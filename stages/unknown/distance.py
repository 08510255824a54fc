"""Owns what says how far rows are from those of train: its arrays, what numpy makes of them, its key. Not fitting it.

Rows are divided by their length, tap by tap, and centred; directions in which images of one class differ among each
other are shortened; the distance is 1 - the cosine with the nearest of some prototypes of train. Of classes, two more
parts are added to it (`ByClass`). A few matrix products, so it can be part of an exported network, and does not grow
with the rows.
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

VERSION = 2
"""Of the fitting arithmetic. Raise it when the same rows give other distances. 1 had the distance to prototypes alone;
what it gave is read, and fitted again for `reproduce`."""

LEAST_SQUARE = 1e-9
"""Of what is left of a row after centring, whose length is 1 before: a row that is the mean itself has no direction."""

_BATCH_BYTES = 32 << 20


@dataclass(frozen=True)
class ByClass:
    """What k classes tell beside the prototypes: how far a row is from each, and whether it is of any.

    The first is Mahalanobis's distance to the nearest mean (Lee et al. 2018); the second, 1 less the highest of ridge
    regressions on the classes, each of which is 1 for its rows and 0 for others. The sum of these and of the distance
    to prototypes is what ViM (Wang et al. 2022) is of a residual and the head's logits: what rows tell, and what a
    classifier doubts. That it is not the head's own doubt makes it the same for all heads, those without logits too,
    and lets it be judged out of fold. Arrays are float32.

    gains (r,): as those of Distance, for Mahalanobis's metric. rest (): the variance along other directions. means
    (dim, k) and offsets (k,): products of centred rows with these, and a sum, that are squares of distances but for
    those of the rows. answers (dim, k) and bias (k,): the regressions. weights (3,): 1 over the deviation of each part
    out of fold, prototypes first.
    """

    gains: np.ndarray
    rest: np.ndarray
    means: np.ndarray
    offsets: np.ndarray
    answers: np.ndarray
    bias: np.ndarray
    weights: np.ndarray


@dataclass(frozen=True)
class Distance:
    """How far rows are from those of train. Arrays are float32.

    spans (taps, 2) int: first and last column of each tap whose rows are divided by their length. mean (dim,): of the
    rows. directions (dim, r): orthonormal. gains (r,): the square of the factor that is applied along each, less 1.
    prototypes (dim, k): these are multiplied with a centred row; with it in the metric that the gains make, they give
    the length of its projection on each. held (n,): distances of rows of train, each by what was fitted without its
    fold, ascending. by_class: None where labels are no classes, and of VERSION 1.
    """

    spans: np.ndarray
    mean: np.ndarray
    directions: np.ndarray
    gains: np.ndarray
    prototypes: np.ndarray
    held: np.ndarray
    by_class: ByClass | None = None

    @property
    def version(self) -> int:
        """By which it was fitted; where there are no classes, all versions are the same."""
        return 1 if self.by_class is None else VERSION

    @property
    def unit(self) -> Spans:
        return [(int(start), int(stop)) for start, stop in self.spans]

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """features (n, ...) -> distances (n,) float64, 0 or more but for rounding. Maps are flattened."""
        parts = self.parts(features)
        return parts[:, 0] if self.by_class is None else parts @ self.by_class.weights.astype(np.float64)

    def parts(self, features: np.ndarray) -> np.ndarray:
        """features (n, ...) -> (n, 1 or 3) float64: the distance to prototypes, from 0 to 2, and what classes tell."""
        flat = np.asarray(features).reshape(len(features), -1)
        out = np.empty((len(flat), 1 if self.by_class is None else 3))
        size = max(1, _BATCH_BYTES // (8 * max(flat.shape[1], 1)))
        for start in range(0, len(flat), size):
            out[start : start + size] = self._of(flat[start : start + size].astype(np.float64))
        return out

    def _of(self, x: np.ndarray) -> np.ndarray:
        centred = (divide_by_length(x, self.unit) if len(self.spans) else x) - self.mean
        along = centred @ self.directions
        lengths = np.einsum("ij,ij->i", centred, centred)
        squares = lengths + along**2 @ self.gains
        near = (centred @ self.prototypes).max(axis=1)
        parts = [1 - near / np.sqrt(np.maximum(squares, LEAST_SQUARE))]
        if (by := self.by_class) is not None:
            to_means = (centred @ by.means + by.offsets).min(axis=1)
            parts.append((lengths + along**2 @ by.gains + to_means) / by.rest)
            parts.append(1 - (centred @ by.answers + by.bias).max(axis=1))
        return np.stack(parts, axis=1)

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
        own = {part.name: getattr(self, part.name) for part in fields(self) if part.name != "by_class"}
        by = self.by_class
        own |= {} if by is None else {f"class_{part.name}": getattr(by, part.name) for part in fields(by)}
        return {f"unknown_{name}": array for name, array in own.items()}

    def to_bytes(self) -> bytes:
        return npz.dump(self.arrays())

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Raises ValueError or KeyError for what `to_bytes` did not give."""
        found = npz.load(io.BytesIO(data))
        by = None
        if any(name.startswith("unknown_class_") for name in found):
            by = ByClass(**{part.name: found[f"unknown_class_{part.name}"] for part in fields(ByClass)})
        own = {part.name: found[f"unknown_{part.name}"] for part in fields(cls) if part.name != "by_class"}
        return cls(**own, by_class=by)


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


def unknown_key(target: Target, extract_keys: Sequence[str], manifest: Manifest, version: int | None = None) -> str:
    """Of a distance: version of the code (None: VERSION), extract keys of the taps, labelled rows, whether their labels
    are classes."""
    version = VERSION if version is None else version
    parts = {"version": version, "classes": target.exclusive, "taps": extract_keys, "samples": manifest.samples_digest}
    return keys.digest("unknown", parts)


def least_rows(rate: float) -> int:
    """Rows of train that a threshold at that rate takes."""
    return math.ceil(round(1 / rate - 1, 9))


def named(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Those of a distance among other arrays."""
    return {name: array for name, array in arrays.items() if name.startswith("unknown_")}
