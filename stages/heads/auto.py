"""Owns choosing among kinds of heads, and judging the choice. Not fitting one, nor which kinds there are.

The kinds are rows of head_schema.py.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any, Protocol

import numpy as np

from cache.errors import Unusable
from stages.data.manifest import Row
from stages.heads import selection
from stages.heads.fitted import Head, OutOfFold
from stages.heads.labelled_rows import encode
from stages.heads.matrix import FeatureMatrix
from stages.heads.selection import Candidate, Selection
from stages.targets.target import Target

log = logging.getLogger(__name__)


class Spec(Protocol):
    """Settings: the number of folds, and the seed they are drawn with."""

    folds: int
    seed: int

    @property
    def candidates(self) -> Mapping[str, tuple[str, Any]]:
        """Kind -> the module that fits it, and its settings."""


def fit(spec: Spec, features: FeatureMatrix, rows: Sequence[Row], target: Target) -> Head:
    """The head of the first kind, unless another's loss on val, or out of fold, is clearly lower (`prefer_first`).

    All are judged on the same folds. The choice among kinds is cross-fitted too. A kind that the rows don't allow is
    left out, with a warning. Raises Unusable where they allow none.
    """
    y, chosen_on = encode(rows, target), Selection.of(spec, rows, target, repeats=1)
    truth, heads, judged = y[chosen_on.judged], [], []
    for kind, (module, settings) in spec.candidates.items():
        try:
            head: Head = import_module(module).fit(settings, features, rows, target)
        except Unusable as error:
            log.warning("kind %s is left out: %s", kind, error.message)
            refused = error
            continue
        own = head.out_of_fold
        heads.append(head)
        judged.append(_predict(head, features, chosen_on.judged) if own is None else own.predictions)
    if not heads:
        raise refused
    losses = np.stack([target.losses(truth, predictions) for predictions in judged])
    choose = selection.prefer_first([rows[i].group for i in chosen_on.judged])
    best = heads[choose(losses, np.arange(len(truth)))]
    folds = [head.out_of_fold for head in heads if head.out_of_fold is not None]
    found = selection.cross_choice(folds, truth, target, choose) if folds else None
    by_kind = {head.kind: round(float(loss), 6) for head, loss in zip(heads, losses.mean(axis=1), strict=True)}
    chosen = {"kind": best.kind, **best.chosen, f"{chosen_on.name}_{target.loss}_by_kind": by_kind}
    return Head(best.kind, target, best.form, chosen, found)


def _predict(head: Head, features: FeatureMatrix, where: np.ndarray) -> np.ndarray:
    """Block by block, since all rows that judge may be more than fit into memory."""
    return np.concatenate([head.predict(features.take(block)) for block in features.blocks(where, len(head.target))])


def nest(spec: Spec, features: FeatureMatrix, rows: Sequence[Row], target: Target) -> OutOfFold | None:
    """Out of fold on few rows, each fold by the kind that the others choose, fitted on these alone (selection.nest)."""

    def candidate(module: str, settings: Any) -> Candidate:
        return Candidate(features, lambda some, outside: import_module(module).fit(settings, some, outside, target))

    candidates = [candidate(*parts) for parts in spec.candidates.values()]
    choose = selection.prefer_first([row.group for row in rows if row.split == "train"])
    return selection.nest(spec, candidates, rows, target, choose=choose)
