"""A ridge head on 100 labels of 100,000 x 1,280 rows beside RidgeCV: python -m benchmarks.many_labels [--rounds N].

Both try the same penalties; RidgeCV on the array in memory, by leave-one-out, and ours on cached shards, by val.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from benchmarks.contest import asked_rounds, pipeline, race, report
from benchmarks.heads import DIM, ROWS, cache_rows

LABELS = 100


def lay_out(folder: Path) -> Path:
    """A project whose rows are all cached, and the same rows as plain arrays; returns the pipeline.yaml."""
    rng = np.random.default_rng(0)
    x = np.maximum(rng.standard_normal((ROWS, DIM), dtype=np.float32), 0)
    scores = x @ rng.standard_normal((DIM, LABELS), dtype=np.float32)
    scores += scores.std() * rng.standard_normal(scores.shape, dtype=np.float32)
    rare = rng.uniform(0.5, 0.98, LABELS)
    labels = np.stack([of > np.quantile(of, share) for of, share in zip(scores.T, rare, strict=True)], axis=1)
    part = rng.choice(3, ROWS, p=(0.7, 0.15, 0.15))
    names = [[f"l{label:02}" for label in np.flatnonzero(has)] for has in labels]
    text = "data: {table: table.jsonl, target: {kind: labels}}\nheads: {ridge: {kind: ridge}}\n"
    config = cache_rows(folder, text, x, names, part)
    np.save(folder / "labels.npy", labels)
    return config


def main() -> None:
    rounds = asked_rounds(__doc__)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with ProcessPoolExecutor(1, get_context("spawn")) as apart:  # what it takes would count in its peak
            config = apart.submit(lay_out, folder).result()

        def ours() -> list[str]:
            shutil.rmtree(folder / "models", ignore_errors=True)
            return pipeline("run", "head", "ridge", "-c", config)

        def plain() -> list[str]:
            return [sys.executable, "-m", "benchmarks.plain_labels", name]

        runs = race({"plain scikit-learn, RidgeCV": plain, "pipeline run head ridge": ours}, rounds)
        report(f"ridge, {ROWS:,} rows of {DIM:,}, {LABELS} labels", runs)
        (found,) = (folder / "models" / "head" / "ridge").glob("*/metrics.json")
        test = json.loads(found.read_text())["test"]
        features = ROWS * DIM * 4 / 1e6
        for title, of in runs.items():
            peak = max(run.peak for run in of) * 2**20 / 1e6  # the table above has units of 2 ** 20
            print(f"{title}: peak memory {peak:,.0f} MB; the features are {features:,.0f} MB")
        print(f"test, macro and micro average precision: ours {test['macro_ap']:.4f}, {test['micro_ap']:.4f}; ", end="")
        print(f"RidgeCV's {(folder / 'plain.txt').read_text()}")


if __name__ == "__main__":
    main()
