"""How many wrong labels an audit finds: python -m benchmarks.audit [--sets NAME...] [--draws N] [--folder DIR].

Of each set, one label in twenty is replaced by another class at random. Heads out of fold give probabilities, by which
the labels are ranked and some are suspected, by us and, where it is installed, by cleanlab. Precision is the share of
replaced labels: among as many of the first as there are, and among the suspected ones. Labels that were wrong before
count as false finds.
"""

from __future__ import annotations

import argparse
import importlib.util
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.small_sets import LAY_OUT, available
from pipeline.config.head_schema import HEAD_KINDS
from pipeline.runs import train_heads
from stages.audit import wrong_labels
from stages.data.manifest import Row
from stages.heads.matrix import FeatureMatrix
from stages.targets.classes import Classes

SHARE = 0.05


def out_of_fold(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Probabilities as an audit has them, (n, classes)."""
    names = [f"{label:04d}" for label in y]
    rows = [Row(f"{i:08d}", "", name, "train") for i, name in enumerate(names)]
    spec = HEAD_KINDS["logistic"].spec.model_validate({"choose": "folds"})
    found = train_heads.fit_kind(spec, FeatureMatrix([x]), rows, Classes(sorted(set(names)))).out_of_fold
    assert found is not None
    return found.predictions


def found_by(p: np.ndarray, y: np.ndarray) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Who looks, all images in their order, and the numbers of those that are suspected."""
    ours = wrong_labels.find_suspects(p, y)
    yield "pipeline audit", ours.order, np.flatnonzero(ours.confident)
    if importlib.util.find_spec("cleanlab") is None:
        return
    from cleanlab.filter import find_label_issues
    from cleanlab.rank import get_label_quality_scores

    order = np.argsort(get_label_quality_scores(y, p), kind="stable")
    yield "cleanlab", order, np.flatnonzero(find_label_issues(y, p))
    yield "cleanlab, confident learning", order, np.flatnonzero(find_label_issues(y, p, filter_by="confident_learning"))


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--sets", nargs="+", choices=list(LAY_OUT), default=["elpv", "fashion"])
    options.add_argument("--draws", type=int, default=5)
    options.add_argument("--folder", type=Path, default=Path("bench-out/small-sets"))
    asked = options.parse_args()
    print("| set | images | replaced | by | precision of as many | of the suspected | suspected | found of all | s |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name, (x, y) in available(asked.folder, asked.sets).items():
        rows: dict[str, list[tuple[float, ...]]] = {}
        for seed in range(asked.draws):
            rng = np.random.default_rng(seed)
            replaced = rng.choice(len(y), round(SHARE * len(y)), replace=False)
            labels, wrong = y.copy(), np.zeros(len(y), bool)
            labels[replaced] = (y[replaced] + rng.integers(1, y.max() + 1, len(replaced))) % (y.max() + 1)
            wrong[replaced] = True
            started = time.perf_counter()
            p = out_of_fold(x, labels)
            seconds = time.perf_counter() - started
            for by, order, suspected in found_by(p, labels):
                hits = wrong[suspected]
                precise = wrong[order[: len(replaced)]].mean(), hits.mean()
                rows.setdefault(by, []).append((*precise, len(hits), hits.sum() / len(replaced), seconds))
        for by, found in rows.items():
            first, suspected, many, recall, seconds = np.mean(found, axis=0)
            figures = f"{first:.3f} | {suspected:.3f} | {many:,.0f} | {recall:.3f} | {seconds:.1f}"
            print(f"| {name} | {len(y):,} | {len(replaced):,} | {by} | {figures} |")


if __name__ == "__main__":
    main()
