"""Up to how many images folds are worth their time: python -m benchmarks.folds_or_val [--sets NAME...] [--draws N].

A logistic head with its defaults on n images: chosen by folds and fitted on all of them, or fitted on three quarters
and chosen on the fourth. Both are judged on the same up to 500 others; differences have their standard errors.
"""

from __future__ import annotations

import argparse
import hashlib
import time
from pathlib import Path

import numpy as np

from benchmarks.few_images import figures
from benchmarks.small_sets import LEAST, Rows, available, draw, stratified
from pipeline.config.head_schema import Logistic
from stages.data.manifest import Row
from stages.heads import logistic
from stages.heads.fitted import Head
from stages.heads.matrix import FeatureMatrix
from stages.targets.classes import Classes

SIZES = (300, 1000, 2000, 4000)
WAYS = ("folds", "val")


def fit(x: np.ndarray, y: np.ndarray, way: str, seed: int) -> Head:
    held = len(y) // 4 if way == "val" else 0
    val = set(stratified(y, held, 0, np.random.default_rng(seed)).tolist())
    rows = [
        Row(hashlib.sha256(values.tobytes()).hexdigest(), "", str(label), "val" if i in val else "train")
        for i, (values, label) in enumerate(zip(x, y.tolist(), strict=True))
    ]
    classes = Classes(str(label) for label in range(y.max() + 1))
    return logistic.fit(Logistic(seed=seed), FeatureMatrix([x]), rows, classes)


def measure(rows: Rows, n: int, number: int, way: str) -> tuple[float, float, float, float]:
    """Accuracy, AUROC, log-loss and processor seconds of the fit."""
    chosen, held = draw(rows.y, n, number)
    started = time.process_time()
    head = fit(rows.x[chosen], rows.y[chosen], way, number)
    seconds = time.process_time() - started
    found = figures(rows.y[held], head.predict(rows.x[held]))
    return found["accuracy"], found["auroc"], found["log_loss"], seconds


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument(
        "--folder", type=Path, default=Path("bench-out/few_images"), help="of few_images, for features"
    )
    options.add_argument("--sets", nargs="+", default=["elpv", "fashion", "cifar"])
    options.add_argument("--draws", type=int, default=10)
    asked = options.parse_args()
    print("\n| set | n | draws | folds: accuracy, AUROC, log-loss | val less folds | CPU s, folds | val |")
    print(f"|{'---|' * 7}")
    for name, rows in available(asked.folder, asked.sets).items():
        for n in (n for n in SIZES if n <= len(rows.y) - LEAST):
            every = np.array([[measure(rows, n, number, way) for way in WAYS] for number in range(asked.draws)])
            apart = every[:, 1] - every[:, 0]
            pairs = zip(apart.mean(axis=0), apart.std(axis=0, ddof=1) / asked.draws**0.5, strict=True)
            difference = ", ".join(f"{mean:+.4f} ± {error:.4f}" for mean, error in list(pairs)[:3])
            folds = ", ".join(f"{value:.3f}" for value in every[:, 0, :3].mean(axis=0))
            seconds = " | ".join(f"{value:.2f}" for value in np.median(every[:, :, 3], axis=0))
            print(f"| {name} | {n:,} | {asked.draws} | {folds} | {difference} | {seconds} |", flush=True)


if __name__ == "__main__":
    main()
