"""Owns what is compared on few images: our heads, and what one would write with scikit-learn. Not draws or figures."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable

import numpy as np
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegressionCV
from sklearn.model_selection import StratifiedKFold
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, Normalizer, StandardScaler

from pipeline.config.head_schema import HEAD_KINDS
from pipeline.runs import train_heads
from stages.data.manifest import Row
from stages.heads.matrix import FeatureMatrix
from stages.metrics.classification import softmax
from stages.targets.classes import Classes

Predict = Callable[[np.ndarray], np.ndarray]
"""Features (n, dim) to probabilities (n, classes)."""

Fit = Callable[[np.ndarray, np.ndarray, int], Predict]
"""fit(x, y, seed) on exactly those images: x (n, dim) float32, y (n,) int below the number of classes, all present."""


def fit_ours(kind: str, x: np.ndarray, y: np.ndarray, seed: int) -> Predict:
    """A head of that kind with its defaults, chosen by folds and fitted on all of these images."""
    spec = HEAD_KINDS[kind].spec.model_validate({"kind": kind, "seed": seed})
    rows = [
        Row(hashlib.sha256(values.tobytes()).hexdigest(), "", str(label), "train")
        for values, label in zip(x, y.tolist(), strict=True)
    ]
    classes = Classes(str(label) for label in range(y.max() + 1))
    return train_heads.fit_kind(spec, FeatureMatrix([x]), rows, classes).predict


def _chosen_c(y: np.ndarray, powers: tuple[int, int], seed: int) -> LogisticRegressionCV:
    """Two values of C for each power of ten; five folds, or as many as the smallest class has images."""
    folds = StratifiedKFold(min(5, np.bincount(y).min()), shuffle=True, random_state=seed)
    grid = np.logspace(*powers, 2 * (powers[1] - powers[0]) + 1)
    return LogisticRegressionCV(Cs=grid, cv=folds, scoring="neg_log_loss", max_iter=2000)


def fit_expert(x: np.ndarray, y: np.ndarray, seed: int) -> Predict:
    """Deviations of the features drawn a little to their mean, so that features that hardly move aren't blown up."""
    variance = x.var(axis=0, dtype=np.float64)
    scale = np.sqrt(0.95 * variance + 0.05 * variance.mean())
    return _fitted(FunctionTransformer(lambda rows: (rows - x.mean(axis=0)) / scale), _chosen_c(y, (-5, 2), seed), x, y)


def fit_standardised(x: np.ndarray, y: np.ndarray, seed: int) -> Predict:
    return _fitted(StandardScaler(), _chosen_c(y, (-5, 2), seed), x, y)


def fit_unit_rows(x: np.ndarray, y: np.ndarray, seed: int) -> Predict:
    return _fitted(Normalizer(), _chosen_c(y, (-2, 4), seed), x, y)


def fit_simple_shot(x: np.ndarray, y: np.ndarray, seed: int) -> Predict:
    """Nearest mean of unit rows (Wang et al. 2019), softmax of ten times the cosine."""
    unit = Normalizer().transform
    means = unit(np.stack([unit(x[y == label]).mean(axis=0) for label in range(y.max() + 1)]))

    def predict(rows: np.ndarray) -> np.ndarray:
        cosines = unit(rows) @ means.T
        return softmax(10 * (cosines[:, 1:] - cosines[:, :1] if len(means) == 2 else cosines))  # one logit for two

    return predict


def fit_lda(x: np.ndarray, y: np.ndarray, seed: int) -> Predict:
    return _fitted(FunctionTransformer(), LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto"), x, y)


def fit_mlp(x: np.ndarray, y: np.ndarray, seed: int) -> Predict:
    return _fitted(StandardScaler(), MLPClassifier(random_state=seed), x, y)


def _fitted(scale: object, classifier: object, x: np.ndarray, y: np.ndarray) -> Predict:
    model = make_pipeline(scale, classifier)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of attributes that LogisticRegressionCV will have
        if isinstance(classifier, MLPClassifier):  # its default of 200 epochs is part of what is compared
            warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(x.astype(np.float64), y)
    return lambda rows: np.asarray(model.predict_proba(rows.astype(np.float64)))


def _ours(kind: str) -> Fit:
    return lambda x, y, seed: fit_ours(kind, x, y, seed)


OURS: dict[str, Fit] = {kind: _ours(kind) for kind in HEAD_KINDS}
RIVALS: dict[str, Fit] = {
    "expert": fit_expert,
    "standardised": fit_standardised,
    "unit rows": fit_unit_rows,
    "SimpleShot": fit_simple_shot,
    "LDA": fit_lda,
    "MLP": fit_mlp,
}
