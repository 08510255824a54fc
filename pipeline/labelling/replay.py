"""Owns what suggestions are worth on a data set's own labels: rounds of them beside random choice, replayed.

Not the choice (stages/labelling/choose_images.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from cache.errors import Unusable
from pipeline.config.head_schema import HeadConfig
from pipeline.labelling.sized_heads import SizedHeads
from stages.data.manifest import Row
from stages.heads.matrix import FeatureMatrix
from stages.heads.neighbours import unit_rows
from stages.labelling import choose_images, power_law, subsets
from stages.labelling.power_law import LEVEL
from stages.metrics import kfold
from stages.metrics.kfold import Strata
from stages.targets.target import Target

ROUNDS = 4
"""Each adds half as many images as a replay starts with, so that it ends with three times as many."""

START = 1 / 16
"""Of the images that may be labelled, those that a replay starts with; and three of each class at least."""

MOST = 3_000
"""Images of a replay: a third of them judge."""

_RESAMPLES = 2_000

LEAST = 5
"""Replays below which they are too few for an interval."""


class Saved(NamedTuple):
    """Labels saved, and the ends of their interval; None where replays are too few for one."""

    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Replayed:
    """Errors of `figure` by number of labels, means over replays, and the labels that suggestions save at the last.

    saved: labels fewer than random choice takes to what it reaches with the most; below 0 they cost as many. Its
    interval holds 90 % (LEVEL), over replays; below LEAST of them there is none.
    """

    figure: str
    replays: int
    judged: int
    labels: Sequence[int]
    suggested: Sequence[float]
    random: Sequence[float]
    saved: Saved

    def to_json(self) -> dict[str, Any]:
        return {**vars(self), "saved": self.saved._asdict(), "level": LEVEL}


def replay(
    spec: HeadConfig,
    features: FeatureMatrix,
    rows: Sequence[Row],
    target: Target,
    replays: int,
    advance: Callable[[int], None],
) -> Replayed:
    """Both choices on the labelled rows, from the same few images on, judged on the same third of the rows.

    Line i of the features is rows[i]. advance(1) is called for each of `fits` heads. Raises Unusable where the rows are
    too few.
    """
    strata = target.strata([row.label or "" for row in rows])
    order, _ = subsets.nested_order(rows, strata, np.random.default_rng(spec.seed))
    used = np.sort(order[:MOST])
    start = max(3 * len(strata.members) if strata.needed else subsets.LEAST, round(len(used) * 2 / 3 * START))
    budgets = [start + number * (start // 2) for number in range(ROUNDS + 1)]
    if budgets[-1] > len(used) // 2:
        needed = f"it takes {2 * budgets[-1]:,}"
        raise Unusable(f"{len(used):,} labelled images are too few to replay suggestions", needed)
    plain = [rows[i]._replace(split="train") for i in used]
    contest = _Contest(
        spec.model_copy(update={"choose": "folds"}), features.some(used), plain, target, budgets, advance
    )
    both = np.array([contest.replay(number) for number in range(replays)])
    suggested, random = both.mean(axis=0).tolist()
    saved = with_interval(budgets, both, spec.seed)
    return Replayed(contest.figure, replays, contest.judged, budgets, suggested, random, saved)


def fits(replays: int) -> int:
    """Heads that so many replays fit."""
    return replays * 2 * (ROUNDS + 1)


class _Contest:
    """Suggestions and random choice on the same rows. judged: how many images judged the last replay, by `figure`."""

    def __init__(
        self,
        spec: HeadConfig,
        features: FeatureMatrix,
        rows: Sequence[Row],
        target: Target,
        budgets: Sequence[int],
        advance: Callable[[int], None],
    ) -> None:
        self._rows, self._target = rows, target
        self._heads = {way: SizedHeads(spec, features, rows, target) for way in (True, False)}  # each chooses its own C
        self._x = features.take(np.arange(len(rows)))
        self._unit = unit_rows(features.unit_rows().take(np.arange(len(rows))))
        self._budgets, self._seed, self._advance = budgets, spec.seed, advance
        self.figure, self.judged = "", 0

    def replay(self, number: int) -> list[list[float]]:
        """Errors of suggestions and of random choice, at each number of labels."""
        seed = self._seed + number
        folds = kfold.assign_folds(self._rows, 3, seed, self._strata(self._rows))
        held, pool = np.flatnonzero(folds == 0), np.flatnonzero(folds != 0)
        some = [self._rows[i] for i in pool.tolist()]
        order, _ = subsets.nested_order(some, self._strata(some), np.random.default_rng(seed))
        first, self.judged = np.sort(pool[order[: self._budgets[0]]]), len(held)
        return [self._follow(first, pool, held, suggest, seed) for suggest in (True, False)]

    def _follow(self, have: np.ndarray, pool: np.ndarray, held: np.ndarray, suggest: bool, seed: int) -> list[float]:
        random, errors = np.random.default_rng(seed), []
        for step in range(len(self._budgets)):
            head = self._heads[suggest].fit(have, step)
            errors.append(self._error(held, head.predict(self._x[held])))
            self._advance(1)
            if step + 1 < len(self._budgets):
                left, count = np.setdiff1d(pool, have), self._budgets[step + 1] - self._budgets[step]
                if suggest:
                    gaps = choose_images.unsure(head.predict(self._x[left]), self._target)
                    new = choose_images.choose(gaps, self._unit[left], count, seed + step)
                else:
                    new = random.permutation(len(left))[:count]
                have = np.sort(np.concatenate([have, left[new]]))
        return errors

    def _error(self, held: np.ndarray, predictions: np.ndarray) -> float:
        """By accuracy where images have one class, else by the figure that ranks."""
        found = self._target.figures(([self._rows[i].label or "" for i in held], predictions))
        self.figure = found.headline[1 if self._target.exclusive else 0]
        value = found.values[self.figure]
        assert value is not None
        return value if self.figure in power_law.LOSSES else 1 - value

    def _strata(self, rows: Sequence[Row]) -> Strata:
        return self._target.strata([row.label or "" for row in rows])


def labels_saved(budgets: Sequence[int], suggested: np.ndarray, random: np.ndarray) -> float:
    """By errors (steps,) of both: how many labels fewer suggestions take to what random choice reaches at the end.

    Where they don't reach it, less than 0: how many labels fewer random choice takes to what they reach.
    """
    if suggested[-1] <= random[-1]:
        return budgets[-1] - _reached(budgets, suggested, float(random[-1]))
    return _reached(budgets, random, float(suggested[-1])) - budgets[-1]


def _reached(budgets: Sequence[int], errors: np.ndarray, wanted: float) -> float:
    """The number of labels, between steps on a line, from which on the least error so far is as wanted."""
    best = np.minimum.accumulate(errors)
    after = int(np.argmax(best <= wanted))
    if after == 0:
        return float(budgets[0])
    share = (best[after - 1] - wanted) / (best[after - 1] - best[after])
    return float(budgets[after - 1] + share * (budgets[after] - budgets[after - 1]))


def with_interval(budgets: Sequence[int], both: np.ndarray, seed: int) -> Saved:
    """Of the means over replays of both ways, (replays, 2, steps); replays are resampled, percentiles are the ends."""
    value = labels_saved(budgets, *both.mean(axis=0))
    if len(both) < LEAST:
        return Saved(value, None, None)
    drawn = np.random.default_rng(seed).integers(0, len(both), (_RESAMPLES, len(both)))
    saved = [labels_saved(budgets, *both[some].mean(axis=0)) for some in drawn]
    low, high = np.quantile(saved, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Saved(value, float(low), float(high))
