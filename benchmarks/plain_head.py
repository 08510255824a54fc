"""What one would otherwise write: load saved features, standardise, fit the same grid of C cold, choose on val."""

from __future__ import annotations

import sys

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler


def main(path: str) -> None:
    saved = np.load(path)
    x, y = saved["features"], saved["labels"]
    part = np.random.default_rng(0).choice(3, len(y), p=(0.7, 0.15, 0.15))
    best = min(
        np.logspace(-6, 3, 19),
        key=lambda c: log_loss(
            y[part == 1],
            make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=2000))
            .fit(x[part == 0], y[part == 0])
            .predict_proba(x[part == 1]),
        ),
    )
    print(best)


if __name__ == "__main__":
    main(sys.argv[1])
