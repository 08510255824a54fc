"""Owns fitting a logistic head: the path over C, and which C is best. Not the solver (logistic_solver.py)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Protocol

import numpy as np
from threadpoolctl import threadpool_limits

from cache.errors import Unusable
from stages.data.manifest import Row
from stages.heads import centroid
from stages.heads.fitted import Head, Layer, Layers
from stages.heads.labelled_rows import encode
from stages.heads.logistic_solver import LANES, TOLERANCE, Model, Problem, Rotation, Samples, Spread
from stages.heads.matrix import FeatureMatrix, Moments, Rows, Scaler, are_few, row_parts, unit_spans
from stages.heads.selection import Part, Selection
from stages.runtime.hardware import cpu_count
from stages.targets.target import Target

PATH = tuple(float(c) for c in np.round(np.logspace(-6, 3, 19), 10))
"""C of the path, ascending: two to a decade, of the scikit-learn kind (it multiplies the sum of losses)."""

FINER = (10**0.25, 10**0.125)
"""Then C is tried at these factors above and below the best, one after the other."""

MOST_WEIGHTS = 4_000_000
"""lbfgs keeps some 24 float64 vectors of the weights: 800 MB."""

TIE = 0.03
"""Nats, of all judged rows together, that a larger C must gain: on separable rows the loss sinks for ever."""

_NEAR = 1e-3
"""The largest gradient at which a solution may judge a C on folds; ten times that of a head."""

_WORSE, _BLOCK = 2, 4096


class Spec(Protocol):
    """Settings: C, or None to have it chosen; the number of folds, and the seed they are drawn with."""

    C: float | None
    folds: int
    seed: int


def fit(spec: Spec, features: FeatureMatrix, rows: Sequence[Row], target: Target) -> Head:
    """Multinomial (or binary) logistic regression, mixed with the nearest centroid; val or folds choose C and weights.

    Of several labels each has a regression of its own, all at one C, without the centroid.

    Rows are scaled as matrix.py says; memory holds those that are fitted or judged once, as float32, or if they are too
    many a block of them for each thread (`Samples`). lbfgs follows C upwards, warm-started, all folds in step, until
    their log-loss has been worse than its best twice in a row (Kornblith et al. 2019 choose C on a log grid too); then
    values near the best are tried. The head comes about by the same steps. Raises Unusable where there are too many
    weights to solve for, or too few rows for folds.
    """
    outputs = target.outputs
    if features.dim * outputs > MOST_WEIGHTS:
        raise Unusable(
            f"a logistic head on {features.dim:,} features and {len(target):,} {target.noun} has "
            f"{features.dim * outputs:,} weights; its solver takes up to {MOST_WEIGHTS:,}",
            "use kind: knn, ridge (up to some 5,000 features) or dense, or a tap with fewer features",
        )
    y, selection = encode(rows, target), Selection.of(spec, rows, target)
    with threadpool_limits(1, "blas"), ThreadPoolExecutor(min(LANES, cpu_count())) as pool:
        path = Path(selection, Samples(features.unit_rows(), y, selection, target), pool)
        path.follow(PATH if spec.C is None else (spec.C,))
        if spec.C is None:
            path.refine()
        if not path.tried:
            raise Unusable("the logistic head did not converge at any C", "check the features: pipeline run extract -v")
        return path.head()


@dataclass(frozen=True)
class Trial:
    """A part of the rows: the problem of those that are fitted, and the features of those that judge its solutions."""

    problem: Problem
    held: Rows
    centroid: np.ndarray
    """Logits of the nearest centroid for the rows held, (n, outputs) float32."""
    rotation: Rotation | None
    nearest: np.ndarray | None
    """Of the problem, and weights of its nearest centroid: where val judges, whose head they make then. Those of all
    folds would fill the memory."""

    def logits(self, model: Model) -> np.ndarray:
        """Of the rows held, (n, outputs)."""
        weights, bias = (part.astype(self.held.dtype) for part in self.problem.scaler.fold(model.weights, model.bias))
        return np.concatenate([x @ weights + bias for x in row_parts(self.held)])


@dataclass
class Tried:
    """A C that was tried. models: of each part, None where they are no longer needed; start: the C they started from.

    Of the judged rows, logits (repeats, n, outputs), None where val judges, and losses (repeats, n).
    """

    models: list[Model] | None
    logits: np.ndarray | None
    losses: np.ndarray
    start: float | None

    @property
    def loss(self) -> float:
        return float(self.losses.mean())


class Path:
    """The values of C that were tried on the parts of a selection, and the head that they choose."""

    def __init__(self, selection: Selection, samples: Samples, pool: ThreadPoolExecutor) -> None:
        self.selection, self.samples, self.pool = selection, samples, pool
        self.tried: dict[float, Tried] = {}
        if selection.folds is None:  # lanes of the one problem run in parallel; else the problems do
            self.trials = [self._trial(selection.parts[0], pool.map)]
        else:
            self.trials = list(pool.map(self._trial, selection.parts))
        self.y = samples.y[samples.at(selection.judged)]
        self.centroid = selection.gather([trial.centroid for trial in self.trials])

    def _trial(self, part: Part, spread: Spread = map) -> Trial:
        views, y = self.samples.views(part.fitted)
        held = self.samples.take(part.held)
        nearest = self._centroid(views, y)
        logits = np.concatenate([((x + self.samples.centre) @ nearest).astype(np.float32) for x in row_parts(held)])
        problem, rotation = self._problem(views, y, spread)
        if rotation is not None:
            held = np.concatenate([rotation.apply(x) for x in row_parts(held)])
        alone = self.selection.folds is None
        return Trial(problem, held, logits, rotation if alone else None, nearest if alone else None)

    def _problem(self, views: list[Rows], y: np.ndarray, spread: Spread) -> tuple[Problem, Rotation | None]:
        shift = np.zeros(views[0].shape[1])
        scaler = Scaler.from_moments(reduce(add, (Moments.of(x, shift) for x in views)), self.samples.widths)
        if not are_few(len(y), len(shift)):
            return Problem(views, y, self.samples.target, scaler, spread), None
        in_memory = [x for view in views for x in row_parts(view)]
        rotation = Rotation.of(np.concatenate(in_memory), scaler)
        rotated: list[Rows] = [rotation.apply(x) for x in in_memory]
        return Problem(rotated, y, self.samples.target, rotation.neutral, spread), rotation

    def _centroid(self, views: list[Rows], y: np.ndarray) -> np.ndarray:
        """Weights (dim, outputs) of the nearest centroid, on rows that are not centred."""
        classes, first = len(self.samples.target), 0
        if not self.samples.spans:
            return np.zeros((views[0].shape[1], self.samples.target.outputs))
        counts = np.bincount(y, minlength=classes) if y.ndim == 1 else y.sum(axis=0)
        sums = np.outer(counts, self.samples.centre)
        for x in views:
            sums += centroid.class_sums(x, y[first : first + len(x)], classes)
            first += len(x)
        return centroid.centroid_weights(sums, self.samples.spans)

    def follow(self, grid: Sequence[float]) -> None:
        """Each C in turn, started from the last solution, until one does not converge or judges clearly prefer less."""
        last: float | None = None
        for c in grid:
            if not self._try(c, last):
                break  # separable data, almost without a penalty
            last = c
            losses = [tried.loss for tried in self.tried.values()]
            if min(losses[-_WORSE:]) > min(losses):
                break
            best = list(self.tried).index(self.best)
            for passed in list(self.tried)[: max(0, best - 1)]:
                self.tried[passed].models = None

    def refine(self) -> None:
        """Try values of C near the best, each started from the best so far."""
        for factor in FINER if self.tried else ():
            best = self.best
            for c in (best / factor, best * factor):
                self._try(c, best)

    @property
    def best(self) -> float:
        return self._preferred(slice(None))

    def _preferred(self, judges: slice | np.ndarray) -> float:
        """The smallest C whose loss on those judged rows is the least, but for TIE."""
        sums = {c: float(tried.losses[:, judges].mean(axis=0).sum()) for c, tried in sorted(self.tried.items())}
        return next(c for c, found in sums.items() if found <= min(sums.values()) + TIE)

    def _try(self, c: float, start: float | None) -> bool:
        """Solve each part, from the solutions at `start`; False where one does not converge."""
        starts = None if start is None else self.tried[start].models

        def solve(number: int) -> Model | None:
            tolerance = TOLERANCE if self.selection.folds is None else _NEAR
            return self.trials[number].problem.solve(c, None if starts is None else starts[number], tolerance)

        alone = len(self.trials) == 1  # its own lanes take the threads
        found = [solve(0)] if alone else list(self.pool.map(solve, range(len(self.trials))))
        models = [model for model in found if model is not None]
        if len(models) < len(found):
            return False
        logits = self._logits(models)
        losses = np.stack([self._losses(draw) for draw in logits])
        self.tried[c] = Tried(models, logits if self.selection.folds is not None else None, losses, start)
        return True

    def _starts(self, c: float) -> list[float]:
        """The values of C by which the solutions at `c` came about, that one last."""
        return [*([] if (start := self.tried[c].start) is None else self._starts(start)), c]

    def _logits(self, models: Sequence[Model]) -> np.ndarray:
        """Of the judged rows: (repeats, n, outputs)."""
        return self.selection.gather([trial.logits(model) for trial, model in zip(self.trials, models, strict=True)])

    def _losses(self, logits: np.ndarray) -> np.ndarray:
        """Of each judged row; by blocks, since probabilities of all may be larger than the features."""
        blocks = range(0, len(logits), _BLOCK)
        target = self.samples.target
        return np.concatenate([target.score_losses(self.y[s : s + _BLOCK], logits[s : s + _BLOCK]) for s in blocks])

    def head(self) -> Head:
        """The head at the best C, its logits mixed with those of the nearest centroid."""
        best, kind = self.best, self.selection.name
        tried = self.tried[best]
        assert tried.models is not None
        logits = self._logits(tried.models) if tried.logits is None else tried.logits
        weights = self._mix(logits, self.centroid, self.y)
        (model, *_), (trial, *_) = tried.models, self.trials
        problem, rotation, nearest = trial.problem, trial.rotation, trial.nearest
        if nearest is None:
            views, y = self.samples.views(self.selection.fitted)
            nearest = self._centroid(views, y)
            problem, rotation = self._problem(views, y, self.pool.map)
            solved = problem.follow(self._starts(best))  # as those judged: on separable rows many are near enough
            if solved is None:
                raise Unusable(f"the logistic head did not converge at C={best:g}", "set its C lower")
            model = solved
        folded, bias = problem.scaler.fold(model.weights, model.bias)
        if rotation is not None:
            folded, bias = rotation.scaler.fold(rotation.basis @ model.weights, model.bias)
        bias = bias - self.samples.centre @ folded
        mixed = folded if weights == centroid.ALONE else centroid.mix(weights, folded, nearest)
        chosen = {
            "C": best,
            "iterations": model.iterations,
            "mix": {"logistic": round(weights[0], 4), "centroid": round(weights[1], 4)},
            f"{kind}_{self.samples.target.loss}": {
                format(c, ".3g"): round(tried.loss, 6) for c, tried in sorted(self.tried.items())
            },
        }
        layers = Layers([Layer(mixed, weights[0] * bias)], unit_spans(self.samples.widths))
        return Head("logistic", self.samples.target, layers, chosen, self.selection.cross_fit(self._judge))

    def _mix(self, logits: np.ndarray, centroids: np.ndarray, y: np.ndarray) -> centroid.Mix:
        if not self.samples.spans or (self.selection.folds is None and len(y) < centroid.LEAST_ROWS):
            return centroid.ALONE
        a_class = len(self.selection.fitted) / len(self.samples.target)
        return centroid.choose_mix(logits, centroids, y, a_class)

    def _judge(self, others: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        """Probabilities of judged rows at the C, and the weights, that those at positions `others` prefer."""
        best = self._preferred(others)
        logits = self.tried[best].logits
        assert logits is not None
        weights = self._mix(logits[:, others], self.centroid[:, others], self.y[others])
        mixed = centroid.mix(weights, logits[0], self.centroid[0])
        return lambda here: self.samples.target.predict(mixed[here].astype(np.float64))
