"""ELPV's probabilities as soft labels and a number, beside classes: python -m benchmarks.elpv_targets --splits FILE

FILE is as for benchmarks.elpv, with the column `proba` (0, 1/3, 2/3 or 1). Heads of one tap with their defaults, on the
published split, each judged by how well it tells the binary label: a number by its value, as if it were a probability.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.elpv import ask, lay_out
from stages.metrics import paired_tests
from stages.metrics.figures import Figure

CLASSES = ("0", "1")
TARGETS = {
    "classes": ("{kind: classes}", ("logistic", "ridge")),
    "soft": ("{kind: soft, columns: [proba]}", ("logistic", "ridge")),
    "number": ("{kind: number, columns: [proba]}", ("ridge",)),
}


def write_table(folder: Path, splits: Path) -> dict[str, str]:
    """table.csv with the probabilities; the binary label by path."""
    with open(splits, newline="") as file:
        rows = list(csv.DictReader(file))
    with open(folder / "table.csv", "w", newline="") as file:
        writer = csv.writer(file)
        names = ("path", "label", "proba", "split")
        writer.writerow(names)
        writer.writerows([row[name] for name in names] for row in rows)
    return {row["path"]: row["label"] for row in rows}


def said(config: Path, target: str, head: str) -> Iterator[tuple[str, float]]:
    """(path, probability of defective) of the images of test."""
    kind, heads = TARGETS[target]
    listed = ", ".join(f"{name}: {{kind: {name}, choose: folds}}" for name in heads)
    sets = ("--set", f"data.target={kind}", "--set", f"heads={{{listed}}}")
    found = ask("run", "head", head, "-c", config, *sets)["heads"][head]
    with open(Path(found["path"]) / "predictions.csv", newline="") as file:
        for row in csv.DictReader(file):
            if row["split"] == "test":
                yield row["path"], float(row["predicted"] if target == "number" else row["p_1"])


def cell(figure: Figure, sign: str = "") -> str:
    low, high = figure.ci or (float("nan"), float("nan"))
    return f"{figure.value:{sign}.3f} ({low:{sign}.3f} to {high:{sign}.3f})"


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--splits", type=Path, required=True)
    splits = options.parse_args().splits
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        root = lay_out(folder, splits).read_text().split("root: ")[1].split(",")[0]
        truth, config = write_table(folder, splits), folder / "pipeline.yaml"
        config.write_text(f"data: {{root: {root}, table: table.csv}}\n")
        first: np.ndarray | None = None
        print("| target, head | AUROC (95 %) | accuracy (95 %) | AUROC less classes' | accuracy less classes' |")
        print("|---|---|---|---|---|")
        for target, (_, heads) in TARGETS.items():
            for head in heads:
                found = dict(sorted(said(config, target, head)))
                p = np.clip(list(found.values()), 0, 1)
                both, labels = np.stack([1 - p, p], axis=1), [truth[path] for path in found]
                first = both if first is None else first
                _, figures, gap = paired_tests.compare(labels, first, both, CLASSES, [None] * len(labels))
                own = [cell(figures[figure]) for figure in ("auroc", "accuracy")]
                less = [cell(gap.figures[figure], "+") for figure in ("auroc", "accuracy")]
                print(
                    f"| {target}, {head} | {' | '.join([*own, *(less if both is not first else ['', ''])])} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
