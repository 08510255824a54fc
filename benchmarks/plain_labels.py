"""What one would otherwise write over saved arrays for several labels: a scaler and RidgeCV, all labels at once."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from sklearn.linear_model import RidgeCV
from sklearn.metrics import average_precision_score
from sklearn.preprocessing import StandardScaler

PENALTIES = np.logspace(-2, 7.5, 20)
"""Those that a ridge head tries."""


def main(folder: Path) -> None:
    x, y, part = (np.load(folder / f"{name}.npy") for name in ("features", "labels", "part"))
    train, test = part == 0, part == 2
    scaler = StandardScaler().fit(x[train])
    model = RidgeCV(PENALTIES).fit(scaler.transform(x[train]), 2.0 * y[train] - 1)
    scores = model.predict(scaler.transform(x[test]))
    found = [average_precision_score(y[test], scores, average=how) for how in ("macro", "micro")]
    (folder / "plain.txt").write_text(f"{found[0]:.4f}, {found[1]:.4f} at alpha={model.alpha_:g}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
