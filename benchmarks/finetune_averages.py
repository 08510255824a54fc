"""Averaged weights and rates by block, beside plain fine-tuning: python -m benchmarks.finetune_averages --splits FILE.

FILE is as for benchmarks.elpv; of it, images of test are left out at once. Images of a set are parted into folds: one
is held out, a fifth of the others is val, which chooses the epoch. An exponential moving average of the weights is
taken after each step of a training, which it doesn't change, so that it is judged beside the weights themselves in the
same run. Rates by block take a training of their own. All differences are paired by fold and seed. Every figure is
kept in figures.jsonl of the work folder, and a run goes on where it was stopped; --report prints what is there. A
training takes two minutes of one core; --sets, --ways (by number) and --seeds say how many there are.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks import elpv
from benchmarks.small_sets import LAY_OUT, Absent, stratified
from pipeline.project.progress import no_progress
from pipeline.project.project import Options, Project
from pipeline.runs import boundary_rows, finetune_start
from pipeline.runs.run import run_stages
from stages.bases import blocks, catalogue
from stages.data.manifest import Row
from stages.heads import labelled_rows
from stages.metrics import kfold

SETS = ("elpv", "cifar", "digits", "clipart")
IMAGES = 1_200
"""Of a set, drawn by class; a training on more takes one core many minutes."""

SIZE = 160
"""Pixels a side, for the same reason."""

FOLDS = 3
VAL = 5
"""One of so many parts of what isn't held out."""

BASE, BLOCK = "efficientnet_lite0", "block11"
DECAYS = (0.95, 0.99, 0.999)
FLIPS = {"elpv": "both"}
"""Of other sets, horizontal."""

SETTINGS = {
    "recommended": "lr: 3.0e-4, schedule: cosine, weight_decay: 0.01, epochs: 12, patience: null, {views}",
    "defaults": "",
}
"""See benchmarks.elpv_finetune; and those of the schema."""

FIGURES = ("val_log_loss", "val_auroc", "held_log_loss", "held_auroc")


class Way(NamedTuple):
    """A training. lr: None for that of the setting. block_decay: of the rate, for each block towards the input."""

    setting: str
    block_decay: float = 1.0
    lr: float | None = None

    @property
    def rates(self) -> dict[str, float]:
        """The share of the rate that each block has; nothing where all have the whole."""
        names = [block.name for block in blocks.blocks_of(catalogue.get_base(BASE))]
        trained = names[names.index(BLOCK) :]  # the last is the convolution before pooling
        shares = {name: self.block_decay ** (depth + 1) for depth, name in enumerate(reversed(trained))}
        return {} if self.block_decay == 1 else shares

    def __str__(self) -> str:
        decay = "" if self.block_decay == 1 else f", {self.block_decay:g} a block"
        return self.setting + ("" if self.lr is None else f", lr {self.lr:g}") + decay


WAYS = (
    Way("recommended"),
    Way("recommended", 0.8),
    Way("recommended", 0.65),
    Way("defaults"),
    Way("recommended", lr=1e-4),
    Way("defaults", 0.65),
)


class Point(NamedTuple):
    set: str
    way: Way
    seed: int
    fold: int
    ema: float
    """0: the weights themselves."""


def lay_out(folder: Path, name: str, splits: Path) -> Path:
    """The project of a set with a table for each fold, where `test` means held out. Returns its pipeline.yaml."""
    config = folder / name / "pipeline.yaml"
    if config.exists():  # it is written last
        return config
    config.parent.mkdir(parents=True, exist_ok=True)
    if name == "elpv":
        data = elpv.lay_out(config.parent, splits).read_text().split("root: ")[1].split(",")[0]
        config.unlink()
        with open(config.parent / "splits.csv", newline="") as file:
            found = [(row["path"], row["label"]) for row in csv.DictReader(file) if row["split"] != "test"]
    else:
        data = "images"
        if not (config.parent / data).exists():
            LAY_OUT[name](config.parent)
        files = sorted((config.parent / data).glob("*/*"))
        found = [(str(path.relative_to(config.parent / data)), path.parent.name) for path in files]
    root = config.parent / data  # an absolute path stays what it is
    unique = {hashlib.sha256((root / path).read_bytes()).hexdigest(): (path, label) for path, label in found}
    labels = np.unique([label for _, label in unique.values()], return_inverse=True)[1]
    drawn = stratified(labels, min(IMAGES, len(labels)), 2, np.random.default_rng(0)).tolist()
    rows = [Row(image, *unique[image]) for image in (list(unique)[i] for i in drawn)]
    fold = kfold.assign_folds(rows, FOLDS, 0)
    for number in range(FOLDS):
        outside = np.flatnonzero(fold != number)
        split = np.where(fold == number, "test", "train")
        split[outside[kfold.assign_folds([rows[i] for i in outside], VAL, 0) == 0]] = "val"
        with open(config.parent / f"fold-{number}.csv", "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(("path", "label", "split"))
            writer.writerows((row.path, row.label, s) for row, s in zip(rows, split, strict=True))
    views = f"augment: {{flip: {FLIPS.get(name, 'horizontal')}}}, views: {4 if name in FLIPS else 2}"
    tuned = "".join(
        f"  {setting}: {{unfreeze_from: {BLOCK}, {fields.format(views=views)}}}\n"
        for setting, fields in SETTINGS.items()
    )
    config.write_text(
        f"data: {{root: {data}, table: fold-0.csv}}\nbase: {{name: {BASE}}}\nextract: {{size: {SIZE}}}\n"
        f"heads:\n  logistic: {{kind: logistic}}\nfinetune:\n{tuned}"
    )
    return config


def measure(config: Path, way: Way, seed: int, fold: int) -> dict[float, dict[str, float]]:
    """Figures of a training by the decay of the average."""
    project = Project(config, Options((f"data.table=fold-{fold}.csv",)), no_progress)
    manifest, spec = run_stages(project, (), {}), project.config.finetune[way.setting]
    start = finetune_start.train_start(project, way.setting, manifest)
    plan = boundary_rows.plan_boundary(project, spec, manifest)
    boundary, _ = boundary_rows.open_maps(project, spec, manifest.samples, manifest, plan.mode)
    from benchmarks.averaged_weights import Average, averaging, judge, put  # after extraction, which needs no training
    from stages.finetune import training
    from stages.finetune.network import Network

    train, val, held = (labelled_rows.rows_in_split(manifest.samples, split) for split in ("train", "val", "test"))
    data = training.Data(boundary, labelled_rows.encode(manifest.samples, start.target), train, val)
    assert start.head is not None
    tap = project.spec("pooled")
    file = project.weight_file(tap.recipe, offline=True)
    block = boundary_rows.first_trained_block(project, spec)
    network = Network(tap.recipe, file, block, tap.tap, start.head)
    loss, weights = judge(network, data, val)["log_loss"], [variable.numpy() for variable in network.state]
    decays = (0.0, *DECAYS) if way.block_decay == 1 else (0.0,)
    averages = [Average(decay, spec.patience, weights, loss) for decay in decays]
    asked = spec.model_copy(update={"patience": None, "lr": way.lr or spec.lr})  # an average may go on for longer
    history = training.train(asked, seed, network, data, None, partial(averaging, network, data, way.rates, averages))
    raw = averages[0].losses
    assert np.allclose(raw, history.val_log_loss[: len(raw)], atol=1e-5)
    found = {}
    for average in averages:
        put(network, average.best)
        parts = {name: judge(network, data, where) for name, where in (("val", val), ("held", held))}
        values = {f"{part}_{name}": parts[part][name] for part in parts for name in ("log_loss", "auroc")}
        found[average.decay] = {**values, "epoch": average.epoch, "start": loss}
    return found


def read(path: Path) -> dict[Point, dict[str, float]]:
    found = {}
    for line in path.read_text().splitlines() if path.exists() else ():
        row = json.loads(line)
        point = Point(row["set"], Way(*row["way"]), row["seed"], row["fold"], row["ema"])
        found[point] = row["figures"]
    return found


def run(asked: argparse.Namespace, path: Path) -> None:
    """One seed of all after another, so that what is there at any time is balanced."""
    for seed in range(asked.seeds):
        for name in asked.sets:
            try:
                config = lay_out(asked.folder.resolve(), name, asked.splits)
            except Absent as why:
                print(why)
                continue
            for way in (WAYS[number] for number in asked.ways):
                for fold in range(FOLDS):
                    if Point(name, way, seed, fold, 0.0) in read(path):
                        continue
                    found = measure(config, way, seed, fold)
                    lines = [
                        {"set": name, "way": way, "seed": seed, "fold": fold, "ema": ema, "figures": row}
                        for ema, row in found.items()
                    ]
                    with open(path, "a") as file:  # all of a training, or nothing
                        file.write("".join(json.dumps(line) + "\n" for line in lines))


def report(found: dict[Point, dict[str, float]]) -> None:
    """Figures of each setting; mean differences of rates from them, of averages from the weights of their training."""
    print("\n| set | setting | runs | epoch | val log-loss | val AUROC | held-out log-loss | held-out AUROC |")
    print(f"|{'---|' * 8}")
    kinds = {(point.set, point.way, point.ema) for point in found}
    order = [(name, way) for name in SETS for setting in SETTINGS for way in WAYS if way.setting == setting]
    for name, way in order:
        for ema in (0.0, *DECAYS):
            if (name, way, ema) not in kinds:
                continue
            title = str(way) + (f", average {ema:g}" if ema else "")
            pairs = [
                (row, found[plain])
                for point, row in found.items()
                if (point.set, point.way, point.ema) == (name, way, ema)
                if (plain := point._replace(way=way if ema else Way(way.setting), ema=0.0)) in found
            ]
            cells = []
            for figure in FIGURES:
                mine, other = (np.array([pair[side][figure] for pair in pairs]) for side in (0, 1))
                cells.append(f"{mine.mean():.4f}" if Way(way.setting) == way and not ema else shown(mine - other))
            epoch = np.mean([row["epoch"] for row, _ in pairs])
            print(f"| {name} | {title} | {len(pairs)} | {epoch:.1f} | {' | '.join(cells)} |")


def shown(differences: np.ndarray) -> str:
    error = differences.std(ddof=1) / len(differences) ** 0.5 if len(differences) > 1 else np.nan
    return f"{differences.mean():+.4f} ± {error:.4f}"


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--splits", type=Path, required=True)
    options.add_argument("--folder", type=Path, default=Path("bench-out/finetune_averages"), help="work folder, kept")
    options.add_argument("--sets", nargs="+", choices=SETS, default=["elpv", "cifar"])
    options.add_argument(
        "--ways",
        nargs="+",
        type=int,
        choices=range(len(WAYS)),
        default=range(len(WAYS)),
        help="; ".join(f"{number}: {way}" for number, way in enumerate(WAYS)),
    )
    options.add_argument("--seeds", type=int, default=1)
    options.add_argument("--report", action="store_true", help="print what is there; nothing is trained")
    asked = options.parse_args()
    path = asked.folder / "figures.jsonl"
    if not asked.report:
        asked.folder.mkdir(parents=True, exist_ok=True)
        run(asked, path)
    report(read(path))


if __name__ == "__main__":
    main()
