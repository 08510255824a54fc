"""What bfloat16 costs a head: python -m benchmarks.numerics. The demo's logistic head on rows of each arithmetic.

Largest difference of a feature by the scale of the features. Figures of all 2,624 images by heads that never saw them,
5 folds over 5 times, and their paired difference to f32: the images of test are too few to tell half a point.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import pipeline
from benchmarks.contest import demo
from pipeline.config.yaml_file import load
from pipeline.runs import train_heads
from stages.data.manifest import Row
from stages.heads.fitted import Head
from stages.heads.matrix import FeatureMatrix
from stages.metrics import intervals, kfold

NUMERICS = ("f32", "openvino-bf16", "tensorflow-bf16")
FOLDS, TIMES = 5, 5


def out_of_fold(config: Path, rows: np.ndarray, labels: Sequence[str], ids: Sequence[str]) -> np.ndarray:
    """Probabilities (TIMES * n, 2) of each image, time after time."""
    spec = load(config).heads["logistic"]
    classes = sorted(set(labels))
    seen = [Row(id=i, label=label, split="train", group=None, path="") for i, label in zip(ids, labels, strict=True)]

    def fit(features: np.ndarray, some: Sequence[Row]) -> Head:
        return train_heads.fit_kind(spec, FeatureMatrix([features]), some, classes)

    return np.concatenate([kfold.out_of_fold(fit, rows, seen, classes, FOLDS, seed) for seed in range(TIMES)])


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        config = demo(Path(name))
        print("| numerics | largest difference | accuracy | AUROC | to f32: accuracy (95 %) | AUROC (95 %) |")
        print("|---|---|---|---|---|---|")
        exact = apart = before = np.empty(0)
        for numerics in NUMERICS:
            found = pipeline.open(config, {"extract.numerics": numerics}).features()
            said = out_of_fold(config, found.X, found.y, found.ids)
            labels, images, classes = list(found.y) * TIMES, list(found.ids) * TIMES, sorted(set(found.y))
            figures = intervals.metrics_with_intervals(labels, said, classes, images).values  # five of an image as one
            if numerics == "f32":
                exact, before, first = found.X, said, figures
            apart = np.abs(found.X - exact).max() / np.abs(exact).max()
            gaps = intervals.paired_difference(labels, before, said, classes, images)
            cells = [numerics, f"{apart:.1e}", f"{figures['accuracy']:.4f}", f"{figures['auroc']:.4f}"]
            for figure in ("accuracy", "auroc") if numerics != "f32" else ():
                low, high = gaps[figure].ci or (np.nan, np.nan)
                cells.append(f"{figures[figure] - first[figure]:+.4f} ({low:+.4f} to {high:+.4f})")
            print(f"| {' | '.join([*cells, *[''] * (6 - len(cells))])} |", flush=True)


if __name__ == "__main__":
    main()
