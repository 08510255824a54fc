"""What one would otherwise write over saved arrays: the same penalties, each fitted cold; with 5 folds for ridge."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.metrics import log_loss
from sklearn.model_selection import GridSearchCV
from sklearn.preprocessing import StandardScaler


def main(kind: str, folder: Path, penalties: list[float]) -> None:
    x, y, part = (np.load(folder / f"{name}.npy") for name in ("features", "labels", "part"))
    scaler = StandardScaler().fit(x[part == 0])
    z, z_val = scaler.transform(x[part == 0]), scaler.transform(x[part == 1])
    if kind == "logistic":
        losses = {}
        for c in penalties:
            model = LogisticRegression(C=c, max_iter=2000).fit(z, y[part == 0])
            losses[c] = log_loss(y[part == 1], model.predict_proba(z_val))
        text = f"best val log-loss {min(losses.values()):.4f} at C={min(losses, key=lambda c: losses[c]):g}"
    else:
        search = GridSearchCV(RidgeClassifier(), {"alpha": penalties}, cv=5).fit(z, y[part == 0])
        text = f"val accuracy {search.score(z_val, y[part == 1]):.4f} at alpha={search.best_params_['alpha']:g}"
    (folder / f"{kind}.txt").write_text(text)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), [float(text) for text in sys.argv[3:]])
