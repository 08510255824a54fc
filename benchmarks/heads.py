"""Heads on 100,000 x 1,280 synthetic rows beside plain scikit-learn: python -m benchmarks.heads [--rounds N]."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from benchmarks.contest import asked_rounds, measure, pipeline, race, report
from pipeline.project.project import Options, Project
from pipeline.show.progress import make_progress

ROWS, DIM, CLASSES = 100_000, 1280, 10
SHARD = 6_250
KINDS = ("logistic", "ridge")


def lay_out(folder: Path) -> Path:
    """A project whose rows are all cached, and the same rows as plain arrays; returns the pipeline.yaml."""
    rng = np.random.default_rng(0)
    labels, part = rng.integers(0, CLASSES, ROWS), rng.choice(3, ROWS, p=(0.7, 0.15, 0.15))
    centres = 0.08 * rng.standard_normal((CLASSES, DIM), dtype=np.float32)
    x = np.maximum(rng.standard_normal((ROWS, DIM), dtype=np.float32) + centres[labels], 0)
    heads = ", ".join(f"{kind}: {{kind: {kind}}}" for kind in KINDS)
    text = f"data: {{table: table.jsonl}}\nheads: {{{heads}}}\n"
    config = cache_rows(folder, text, x, [f"class{label}" for label in labels], part)
    np.save(folder / "labels.npy", labels)
    return config


def cache_rows(folder: Path, text: str, x: np.ndarray, labels: Sequence[Any], part: np.ndarray) -> Path:
    """A project with that pipeline.yaml whose rows x are all cached, and x and part as plain arrays.

    labels: as table.jsonl has them; part (n,): 0 for train, 1 for val, 2 for test.
    """
    ids = [hashlib.sha256(str(number).encode()).hexdigest() for number in range(len(x))]
    with open(folder / "table.jsonl", "w") as file:
        for number, (image, label) in enumerate(zip(ids, labels, strict=True)):
            row = {"id": image, "path": f"{number}.png", "label": label}
            file.write(json.dumps({**row, "split": ("train", "val", "test")[part[number]]}) + "\n")
    config = folder / "pipeline.yaml"
    config.write_text(text)
    store = Project(config, Options(), make_progress(Console(), quiet=True)).store("pooled")
    for start in range(0, len(x), SHARD):
        store.put(ids[start : start + SHARD], x[start : start + SHARD], {"engine": "none", "device": "none"})
    np.save(folder / "features.npy", x)
    np.save(folder / "part.npy", part)
    return config


def chosen(folder: Path, kind: str) -> dict[str, float]:
    """What was tried, and the val log-loss of each."""
    (found,) = (folder / "models" / "head" / kind).glob("*/head.json")
    return dict(json.loads(found.read_text())["chosen"]["val_log_loss"])


def main() -> None:
    rounds = asked_rounds(__doc__)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with ProcessPoolExecutor(1, get_context("spawn")) as apart:  # what it takes would count in its peak
            config = apart.submit(lay_out, folder).result()
        for kind in KINDS:

            def ours(kind: str = kind) -> list[str]:
                shutil.rmtree(folder / "models", ignore_errors=True)
                return pipeline("run", "head", kind, "-c", config)

            peak = measure(ours()).peak
            losses = chosen(folder, kind)

            def plain(kind: str = kind, tried: list[str] = list(losses)) -> list[str]:  # noqa: B006 (never changed)
                return [sys.executable, "-m", "benchmarks.plain_heads", kind, name, *tried]

            contenders = {f"plain scikit-learn, {len(losses)} penalties": plain, f"pipeline run head {kind}": ours}
            runs = race(contenders, rounds)
            report(f"{kind}, {ROWS:,} rows of {DIM:,}, {CLASSES} classes", runs)
            print(f"best val log-loss: {min(losses.values()):.4f}; peak memory {peak} MB", flush=True)
            theirs = (folder / f"{kind}.txt").read_text(), max(run.peak for run in next(iter(runs.values())))
            print(f"plain scikit-learn: {theirs[0]}; peak memory {theirs[1]} MB", flush=True)


if __name__ == "__main__":
    main()
