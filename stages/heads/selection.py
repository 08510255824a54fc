"""Owns on which rows the settings of a head are chosen: val, or folds of train. Not fitting, nor drawing folds (kfold).

Where there are rows of val, heads are fitted on train and judged on val. Where there are none, each fold of train is
judged by heads fitted on the others, and the head is fitted on all of train. Figures of such folds are cross-fitted: a
fold is judged at the setting that the other folds prefer, since the best figure of many settings flatters itself.

For a few settings of one fit that is honest. Among many heads it is not on few rows: heads of the other folds were
fitted on the fold that is judged, so what they prefer knows of it. Such a choice is nested (`nest`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from threadpoolctl import threadpool_limits

from cache.errors import Diverged, Unusable
from stages.data.manifest import Row
from stages.heads.fitted import Head, OutOfFold
from stages.heads.labelled_rows import encode, rows_in_split
from stages.heads.matrix import FeatureMatrix
from stages.metrics import kfold
from stages.metrics.intervals import mean_of_groups
from stages.runtime.parallel import run_in_threads
from stages.targets.target import Target

FEW = 100
"""Up to this many rows, folds are drawn REPEATS times: one draw would choose by chance."""

REPEATS = 3

CLEARLY = 2.0
"""Standard errors of a paired difference by which another candidate must be better than a preferred one."""

MOST_CELLS = 5_000_000
"""Predictions that judge a setting. Of more rows of val, evenly spaced ones do; of folds, they are refused."""

MOST_NESTED = 500
"""Rows of train up to which a choice among heads is nested. Of more, cross-fitting flatters by little, and fits no head
again."""


class Spec(Protocol):
    """Settings: the number of folds, and the seed they are drawn with."""

    folds: int
    seed: int


@dataclass(frozen=True)
class Part:
    """Numbers of the rows that heads are fitted on, and of those that judge them."""

    fitted: np.ndarray
    held: np.ndarray


@dataclass(frozen=True)
class Selection:
    """fitted: numbers of the rows that the head is fitted on in the end. parts: on which settings are tried.

    Of `repeats` draws of folds, the parts follow each other; `folds` (n,) is the fold of each row in the first, None
    where val judges.
    """

    fitted: np.ndarray
    parts: Sequence[Part]
    repeats: int = 1
    folds: np.ndarray | None = None

    @classmethod
    def of(cls, spec: Spec, rows: Sequence[Row], target: Target, repeats: int = REPEATS) -> Selection:
        """repeats: of folds, where rows are few.

        Raises Unusable where there is no val, and the rows are too few, or too many, for folds.
        """
        train, val, columns = rows_in_split(rows, "train"), rows_in_split(rows, "val"), len(target)
        if len(val):
            return cls(train, [Part(train, val[:: max(1, -(-len(val) * columns // MOST_CELLS))])])
        if len(train) * columns > MOST_CELLS:
            raise Unusable(
                f"folds judge {len(train):,} images times {columns:,} {target.noun}; up to {MOST_CELLS:,} are possible",
                "use choose: val",
            )
        labelled, repeats = [rows[i] for i in train], repeats if len(train) <= FEW else 1
        strata = target.strata([row.label or "" for row in labelled])
        number = kfold.most_folds(labelled, spec.folds, strata)
        draws = [kfold.assign_folds(labelled, number, spec.seed + draw, strata) for draw in range(repeats)]
        parts = [Part(train[folds != one], train[folds == one]) for folds in draws for one in range(number)]
        return cls(train, parts, repeats, draws[0])

    @property
    def name(self) -> str:
        """What chooses: val or fold."""
        return "val" if self.folds is None else "fold"

    @property
    def judged(self) -> np.ndarray:
        """Numbers of the rows that are judged, ascending."""
        return self.parts[0].held if self.folds is None else self.fitted

    def gather(self, of_parts: Sequence[np.ndarray]) -> np.ndarray:
        """Arrays (rows held, ...) of each part as one, (repeats, rows judged, ...), rows in the order of `judged`."""
        out = np.empty((self.repeats, len(self.judged), *of_parts[0].shape[1:]), of_parts[0].dtype)
        for number, (part, found) in enumerate(zip(self.parts, of_parts, strict=True)):
            out[number * self.repeats // len(self.parts), np.searchsorted(self.judged, part.held)] = found
        return out

    def cross_fit(self, judge: Callable[[np.ndarray], Callable[[np.ndarray], np.ndarray]]) -> OutOfFold | None:
        """Predictions of each fold at what the others prefer; None where val judges.

        judge(others) chooses by the judged rows of those positions; what it returns gives the predictions of others.
        """
        if self.folds is None:
            return None
        found = [(fold, np.flatnonzero(self.folds == fold)) for fold in np.unique(self.folds)]
        parts = [judge(np.flatnonzero(self.folds != fold))(here) for fold, here in found]
        out = np.empty((len(self.folds), parts[0].shape[1]))
        for (_, here), part in zip(found, parts, strict=True):
            out[here] = part
        return OutOfFold(out, self.folds)


Choose = Callable[[np.ndarray, np.ndarray], int]
"""Losses (candidates, rows), and which of the rows that are judged these are, to the candidate that is taken."""


def least_loss(losses: np.ndarray, which: np.ndarray) -> int:
    return int(losses.mean(axis=1).argmin())


def prefer_first(groups: Sequence[str | None]) -> Choose:
    """The one with the least loss of those that are CLEARLY better than the first; where none is, the first.

    groups: of the rows that are judged. A difference of a few rows' losses is mostly chance, and so would be the
    choice. (After the rule of one standard error of Breiman et al. 1984, Classification and Regression Trees, section
    3.4.3; here of the paired difference, and over groups.)
    """

    def choose(losses: np.ndarray, which: np.ndarray) -> int:
        some, best = [groups[i] for i in which.tolist()], 0
        for place, own in enumerate(losses):
            gained, error = mean_of_groups(losses[0] - own, some)
            if gained > CLEARLY * error and own.mean() < losses[best].mean():
                best = place
        return best

    return choose


def cross_choice(
    candidates: Sequence[OutOfFold], y: np.ndarray, target: Target, choose: Choose = least_loss
) -> OutOfFold:
    """Each fold of the first candidate by the one that is chosen on the others; y: what the rows have."""
    first = candidates[0]
    losses = np.stack([target.losses(y, found.predictions) for found in candidates])
    out = np.empty_like(first.predictions)
    for fold in np.unique(first.folds):
        here = first.folds == fold
        out[here] = candidates[choose(losses[:, ~here], np.flatnonzero(~here))].predictions[here]
    return OutOfFold(out, first.folds)


@dataclass(frozen=True)
class Candidate:
    """One of the heads that are chosen among: its features, and what fits it on some of their rows, by folds."""

    features: FeatureMatrix
    fit: Callable[[FeatureMatrix, Sequence[Row]], Head]


def nest(
    spec: Spec,
    candidates: Sequence[Candidate],
    rows: Sequence[Row],
    target: Target,
    threads: int = 1,
    advance: Callable[[int], object] = lambda n: None,
    choose: Choose = least_loss,
) -> OutOfFold | None:
    """Predictions of each fold of train by the candidate that is chosen out of fold on the others.

    All candidates are fitted, and their own settings chosen, on the rows outside of the fold alone. One that these
    don't allow, or where it diverges, is left out there. `threads` fits run at a time; `advance` counts them. None
    where there is nothing to choose, above MOST_NESTED rows, and where the rows outside of a fold allow no candidate: a
    class may have too few.
    """
    train = rows_in_split(rows, "train")
    if len(candidates) < 2 or len(train) > MOST_NESTED:
        return None
    labelled = [rows[i] for i in train]
    strata = target.strata([row.label or "" for row in labelled])
    folds = kfold.assign_folds(labelled, kfold.most_folds(labelled, spec.folds, strata), spec.seed, strata)
    loaded = _load(candidates, train)

    def judge(fold: int, candidate: Candidate) -> tuple[np.ndarray, np.ndarray] | None:
        outside, features = np.flatnonzero(folds != fold), loaded[id(candidate.features)]
        others = [labelled[i] for i in outside]
        try:
            head = candidate.fit(features.some(outside), others)
        except (Unusable, Diverged):
            return None
        finally:
            advance(1)
        assert head.out_of_fold is not None
        losses = target.losses(encode(others, target), head.out_of_fold.predictions)
        return losses, head.predict(features.take(np.flatnonzero(folds == fold)))

    out = np.empty((len(train), len(target)))
    numbers = np.unique(folds).tolist()
    with threadpool_limits(1, "blas"):  # the same to the last bit on any number of cores
        judged = run_in_threads(lambda pair: judge(*pair), [(n, c) for n in numbers for c in candidates], threads)
    for place, fold in enumerate(numbers):
        found = [one for one in judged[place * len(candidates) :][: len(candidates)] if one is not None]
        if not found:
            return None
        losses = np.stack([losses for losses, _ in found])
        out[folds == fold] = found[choose(losses, np.flatnonzero(folds != fold))][1]
    return OutOfFold(out, folds)


def _load(candidates: Sequence[Candidate], train: np.ndarray) -> dict[int, FeatureMatrix]:
    """By id of the candidates' features: their rows of train in memory, where many fits read them."""
    different = {id(candidate.features): candidate.features for candidate in candidates}
    return {
        name: FeatureMatrix([source[train] for source in features.sources], features.unit)
        for name, features in different.items()
    }
