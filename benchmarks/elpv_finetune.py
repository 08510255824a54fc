"""Fine-tuning on ELPV beside the frozen head: python -m benchmarks.elpv_finetune --splits FILE --folder DIR

FILE is as for benchmarks.elpv. Which base, at which size and from which block, val chooses, with one seed; the choice
is then trained with three seeds on the published split, alone and averaged, and on five folds, images at random and
modules kept together. It takes hours on two cores; what lies in DIR is not done again, so it can be stopped, and goes
on where it was. `--only NAME` leaves the choice out; `--steps` names what follows it, and `published` alone shows test.
"""

from __future__ import annotations

import argparse
import csv
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.elpv import ask, lay_out, shown
from stages.data.manifest import Row
from stages.metrics import kfold, paired_tests

CLASSES = ("0", "1")
SEEDS = (0, 1, 2)
FOLDS = 5
FLIPS = "epochs: 12, augment: {flip: both}, views: 4"
TURNS = "epochs: 12, augment: {flip: both, turns: true}, views: 8, dtype: float16"
SETTINGS = "head: logistic, lr: 3.0e-4, schedule: cosine, weight_decay: 0.01, patience: null, average: true"
STEPS = ("published", "random", "grouped")


class Candidate(NamedTuple):
    base: str
    size: int
    block: str
    views: str


CANDIDATES = {
    "lite0_224_block11": Candidate("efficientnet_lite0", 224, "block11", FLIPS),
    "lite0_224_block6": Candidate("efficientnet_lite0", 224, "block6", FLIPS),
    "lite0_300_block11": Candidate("efficientnet_lite0", 300, "block11", FLIPS),
    "lite2_260_block8": Candidate("efficientnet_lite2", 260, "block8", TURNS),
}


def project(folder: Path, splits: Path) -> Path:
    """The project of benchmarks.elpv with the usual head alone, chosen by folds, and the fine-tunings."""
    config = lay_out(folder, splits)
    data = config.read_text().splitlines()[0]
    tuned = "".join(
        f"  {name}: {{{SETTINGS}, unfreeze_from: {of.block}, {of.views}}}\n" for name, of in CANDIDATES.items()
    )
    heads = "logistic: {kind: logistic, tap: pooled, choose: folds}"
    config.write_text(f"{data}\nheads:\n  {heads}\nfinetune:\n{tuned}")
    return config


def settings(name: str) -> tuple[str, ...]:
    of = CANDIDATES[name]
    return "--set", f"base.name={of.base}", "--set", f"extract.size={of.size}"


def train(config: Path, name: str, seeds: Sequence[int], *words: str) -> dict[str, Any]:
    """What `run finetune` says: the average over seeds and views, and `seeds`."""
    sets = (*settings(name), "--set", f"finetune.{name}.seeds={list(seeds)}")
    found: dict[str, Any] = ask("run", "finetune", name, "-c", config, *sets, *words)
    return found["finetune"][name]


def choose(config: Path, names: Sequence[str]) -> str:
    """The name of the least val log-loss, of one seed's average over views. No figure of test is shown."""
    print("| base, size, trained from | epoch | val log-loss | val AUROC | averaged: val log-loss | val AUROC | s |")
    print("|---|---|---|---|---|---|---|")
    found = {}
    for name in names:
        model = train(config, name, SEEDS[:1])
        found[name] = mean = model["metrics"]["val"]
        (seed,) = model["seeds"]
        one = seed["metrics"]["val"]
        cells = " | ".join(f"{val['log_loss']:.3f} | {shown(val, 'auroc')}" for val in (one, mean))
        print(f"| {name} | {seed['epoch']} | {cells} | {seed['seconds']:.0f} |", flush=True)
    return min(found, key=lambda name: found[name]["log_loss"])


def published(config: Path, name: str) -> None:
    """The published split: each seed beside the frozen head, their mean, and the model that averages them."""
    averaged = train(config, name, SEEDS)
    models, pooled = averaged["seeds"], averaged["pooled"]
    tests = [model["metrics"]["test"] for model in models]
    print("\n| published split, test | AUROC (95 %) | accuracy (95 %) | AUROC above the start | training, s |")
    print("|---|---|---|---|---|")
    print(f"| frozen head that it starts from | {shown(models[0]['baseline']['test'], 'auroc', 'accuracy')} | | |")
    print(f"| frozen head of train and val | {shown(pooled['test'], 'auroc', 'accuracy')} | | |")
    for model in (*models, averaged):
        title = "all seeds and views averaged" if model["seed"] is None else f"seed {model['seed']}"
        cells = (
            f"{shown(model['metrics']['test'], 'auroc', 'accuracy')} | {above(model['difference']['test']['auroc'])}"
        )
        print(f"| {title} | {cells} | {model['seconds']:.0f} |")
    print(f"averaged, AUROC above the head of train and val: {above(pooled['difference']['auroc'])}")
    for name in ("auroc", "accuracy"):
        figures = [test[name] for test in tests]
        print(f"{name}: mean {statistics.mean(figures):.3f}, standard deviation {statistics.stdev(figures):.3f}")


def above(difference: dict[str, Any]) -> str:
    low, high = difference["ci"]
    return f"{difference['value']:+.3f} ({low:+.3f} to {high:+.3f})"


def out_of_fold(config: Path, candidate: str, table: str) -> None:
    """Frozen head and one seed's average over views on rows that neither was fitted or chosen on, all folds together.

    The head is that of train and val.
    """
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
        model = train(config, candidate, SEEDS[:1], "--set", f"data.table={name}")
        words = ("run", "head", "logistic", "-c", config, *settings(candidate), "--set", f"data.table={name}")
        heads = ask(*words)
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
    options.add_argument("--only", choices=list(CANDIDATES))
    options.add_argument("--steps", nargs="*", choices=STEPS, default=STEPS)
    asked = options.parse_args()
    asked.folder.mkdir(parents=True, exist_ok=True)
    config = project(asked.folder.resolve(), asked.splits)
    name = choose(config, [asked.only] if asked.only else list(CANDIDATES))
    print(f"\nchosen by val: {name}", flush=True)
    if "published" in asked.steps:
        published(config, name)
    tables = {"random": ("images at random", "splits.csv"), "grouped": ("modules kept together", "modules.csv")}
    for step, (title, table) in tables.items():
        if step in asked.steps:
            print(
                f"\n| {FOLDS} folds, {title} | images | AUROC (95 %) | accuracy (95 %) |\n|---|---|---|---|", flush=True
            )
            out_of_fold(config, name, table)


if __name__ == "__main__":
    main()
