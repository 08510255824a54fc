"""Fine-tuning on ELPV beside the frozen head: python -m benchmarks.elpv_finetune --splits FILE --folder DIR

FILE is as for benchmarks.elpv. Which block, and at which size, val chooses, with one seed; the choice is then trained
with three seeds on the published split, and on five folds, images at random and modules kept together. It takes hours
on two cores; what lies in DIR is not done again, so it can be stopped, and goes on where it was.
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.elpv import ask, lay_out, shown
from stages.data.manifest import Row
from stages.metrics import kfold, paired_tests

CLASSES = ("0", "1")
CANDIDATES = ((224, "block11"), (224, "block6"), (300, "block11"))
SEEDS = (0, 1, 2)
FOLDS = 5
SETTINGS = (
    "head: logistic, lr: 3.0e-4, schedule: cosine, weight_decay: 0.01, epochs: 12, patience: null, "
    "augment: {flip: both}, views: 4"
)


def project(folder: Path, splits: Path) -> Path:
    """The project of benchmarks.elpv with the usual head alone, and a fine-tuning from each block."""
    config = lay_out(folder, splits)
    data = config.read_text().splitlines()[0]
    blocks = dict.fromkeys(block for _, block in CANDIDATES)
    tuned = "".join(f"  {block}: {{{SETTINGS}, unfreeze_from: {block}}}\n" for block in blocks)
    config.write_text(f"{data}\nheads:\n  logistic: {{kind: logistic, tap: pooled}}\nfinetune:\n{tuned}")
    return config


def train(config: Path, size: int, block: str, seeds: Sequence[int], *words: str) -> dict[str, Any]:
    """What `run finetune` says: figures of the frozen head (heads) and of the models (finetune)."""
    sets = ("--set", f"extract.size={size}", "--set", f"finetune.{block}.seeds={list(seeds)}")
    found: dict[str, Any] = ask("run", "finetune", block, "-c", config, *sets, *words)
    return found["finetune"][block]


def choose(config: Path) -> tuple[int, str]:
    print("| size | trained from | epoch chosen | val log-loss | val AUROC | training, s |\n|---|---|---|---|---|---|")
    found = {}
    for size, block in CANDIDATES:
        model = train(config, size, block, SEEDS[:1])["seeds"][0]
        found[size, block] = val = model["metrics"]["val"]
        epoch = json.loads((Path(model["path"]) / "head.json").read_text())["chosen"]["epoch"]
        cells = f"{epoch} | {val['log_loss']:.3f} | {shown(val, 'auroc')} | {model['seconds']:.0f}"
        print(f"| {size} | {block} | {cells} |", flush=True)
    return min(found, key=lambda point: found[point]["log_loss"])


def published(config: Path, size: int, block: str) -> None:
    """The published split: each seed beside the frozen head, then their mean."""
    models = train(config, size, block, SEEDS)["seeds"]
    tests = [model["metrics"]["test"] for model in models]
    print("\n| published split, test | AUROC (95 %) | accuracy (95 %) | AUROC above the head | training, s |")
    print("|---|---|---|---|---|")
    print(f"| frozen head | {shown(models[0]['baseline']['test'], 'auroc', 'accuracy')} | | |")
    for model, test in zip(models, tests, strict=True):
        gap = above(model["difference"]["test"]["auroc"])
        print(f"| seed {model['seed']} | {shown(test, 'auroc', 'accuracy')} | {gap} | {model['seconds']:.0f} |")
    for name in ("auroc", "accuracy"):
        figures = [test[name] for test in tests]
        print(f"{name}: mean {statistics.mean(figures):.3f}, standard deviation {statistics.stdev(figures):.3f}")


def above(difference: dict[str, Any]) -> str:
    low, high = difference["ci"]
    return f"{difference['value']:+.3f} ({low:+.3f} to {high:+.3f})"


def out_of_fold(config: Path, size: int, block: str, table: str) -> None:
    """Frozen head and fine-tuned model on rows that neither was fitted or chosen on, all folds together."""
    with open(config.parent / table, newline="") as file:
        lines = list(csv.DictReader(file))
    rows = [Row(str(n), line["path"], line["label"], None, line.get("group")) for n, line in enumerate(lines)]
    labels: list[str] = []
    groups: list[str | None] = []
    said: dict[str, list[np.ndarray]] = {"head": [], "finetune": []}
    fold = kfold.assign_folds(rows, FOLDS, 0)
    for number in range(FOLDS):
        outside = np.flatnonzero(fold != number)
        held = outside[kfold.assign_folds([rows[i] for i in outside], FOLDS, 0) == 0]
        split = np.where(fold == number, "test", "train")
        split[held] = "val"
        name = f"{Path(table).stem}-{number}.csv"
        with open(config.parent / name, "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(("path", "label", "split"))
            writer.writerows((row.path, row.label, s) for row, s in zip(rows, split, strict=True))
        model = train(config, size, block, SEEDS[:1], "--set", f"data.table={name}")
        heads = ask(
            "run", "head", "logistic", "-c", config, "--set", f"extract.size={size}", "--set", f"data.table={name}"
        )
        by_path = {row.path: row for row in rows}
        paths: list[list[str]] = []
        for kind, path in (("head", heads["heads"]["logistic"]["path"]), ("finetune", model["path"])):
            with open(Path(path) / "predictions.csv", newline="") as file:
                test = sorted(
                    (line for line in csv.DictReader(file) if line["split"] == "test"), key=lambda x: x["path"]
                )
            said[kind].append(np.array([[float(line[f"p_{c}"]) for c in CLASSES] for line in test]))
            paths.append([line["path"] for line in test])
        assert paths[0] == paths[1]
        labels += [by_path[path].label or "" for path in paths[0]]
        groups += [by_path[path].group for path in paths[0]]
    p = [np.concatenate(said[kind]) for kind in ("head", "finetune")]
    frozen, tuned, difference = paired_tests.compare(labels, p[0], p[1], CLASSES, groups)
    for title, figures in (("frozen head", frozen), ("fine-tuned", tuned)):
        print(f"| {title} | {len(labels):,} | {shown(figures.to_json(), 'auroc', 'accuracy')} |")
    gaps = " | ".join(above(difference.figures[name].to_json()) for name in ("auroc", "accuracy"))
    print(f"| difference | | {gaps} |", flush=True)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--splits", type=Path, required=True)
    options.add_argument("--folder", type=Path, required=True)
    asked = options.parse_args()
    asked.folder.mkdir(parents=True, exist_ok=True)
    config = project(asked.folder.resolve(), asked.splits)
    size, block = choose(config)
    print(f"\nchosen by val: size {size}, {block}")
    published(config, size, block)
    for title, table in (("images at random", "splits.csv"), ("modules kept together", "modules.csv")):
        print(f"\n| {FOLDS} folds, {title} | images | AUROC (95 %) | accuracy (95 %) |\n|---|---|---|---|", flush=True)
        out_of_fold(config, size, block, table)


if __name__ == "__main__":
    main()
