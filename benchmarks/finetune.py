"""An epoch of fine-tuning from the cached boundary beside one through the whole graph: python -m benchmarks.finetune.

Of each run the first epoch, which compiles, does not count. [--rounds N] [--base NAME]
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.contest import ENVIRONMENT, measure, pipeline, weights_of
from stages.bases import blocks, catalogue

BATCH, EPOCHS = 32, 3
CASES = {"efficientnet_lite0": ("block16", 1836, 394), "vgg16": ("block5", 192, 64)}
"""Base -> the first block that is trained, images in train and in val: a whole epoch of VGG16 takes minutes."""


def lay_out(folder: Path, name: str, block: str, train: int, val: int) -> Path:
    """Solar cells as train/ and val/ with a folder a class, and a project on them; VGG16 has random weights."""
    subprocess.run([sys.executable, "-m", "pipeline", "init", folder / "all", "--demo"], check=True, env=ENVIRONMENT,
                   stdout=subprocess.DEVNULL)  # fmt: skip
    paths = random.Random(0).sample(sorted((folder / "all" / "images").rglob("*.png")), train + val)
    for number, path in enumerate(paths):
        target = folder / "images" / ("train" if number < train else "val") / path.parent.name / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(path, target)
    weights = weights_of(folder, name)
    config = folder / "pipeline.yaml"
    config.write_text(
        f"data: {{root: images, on_leak: warn}}\nbase: {{name: {name}, weights: {weights}}}\n"
        f"extract: {{size: {catalogue.get_base(name).size}}}\nheads: {{logistic: {{C: 0.001}}}}\n"
        f"finetune: {{last: {{unfreeze_from: {block}, mode: cached, batch: {BATCH}, epochs: {EPOCHS}, "
        "patience: null}}\n"
    )
    return config


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--base", choices=list(CASES), action="append")
    asked = arguments.parse_args()
    for name in asked.base or CASES:
        block, train, val = CASES[name]
        with tempfile.TemporaryDirectory() as folder:
            compare(Path(folder), name, block, train, val, asked.rounds)


def compare(folder: Path, name: str, block: str, train: int, val: int, rounds: int) -> None:
    config, out = lay_out(folder, name, block, train, val), folder / "seconds.json"
    subprocess.run(pipeline("run", "-c", config), check=True, env=ENVIRONMENT, stdout=subprocess.DEVNULL)
    subprocess.run(pipeline("run", "extract", "-c", config, "--for", "finetune/last"), check=True, env=ENVIRONMENT,
                   stdout=subprocess.DEVNULL)  # fmt: skip
    weights = str(weights_of(folder, name))

    def usual() -> list[str]:
        words = (
            name,
            weights,
            blocks.get_block(catalogue.get_base(name), block).boundary,
            str(folder / "images"),
            str(EPOCHS),
            str(out),
        )
        return [sys.executable, "-m", "benchmarks.finetune_loop", *words]

    def ours() -> list[str]:
        shutil.rmtree(folder / "models" / "finetune", ignore_errors=True)
        return pipeline("run", "finetune", "-c", config)

    contenders = {"Keras fit through the whole graph": usual, "pipeline run finetune, cached": ours}
    seconds: dict[str, list[float]] = {title: [] for title in contenders}
    memory: dict[str, list[int]] = {title: [] for title in contenders}
    for number in range(rounds):
        for title in list(contenders) if number % 2 else list(reversed(contenders)):
            memory[title].append(measure(contenders[title]()).peak)
            found = json.loads(out.read_text()) if title.startswith("Keras") else _history(folder)
            seconds[title] += found[1:]
    print(f"\n{name} from {block}, {train:,} images to train on and {val:,} to judge by, batch {BATCH} "
          f"({os.cpu_count()} cores, {rounds} rounds of {EPOCHS - 1} epochs)\n")  # fmt: skip
    print("| one epoch | median s | min to max | times as fast | peak memory, MB |\n|---|---|---|---|---|")
    first = statistics.median(seconds["Keras fit through the whole graph"])
    for title, runs in seconds.items():
        middle = statistics.median(runs)
        cells = f"{middle:.2f} | {min(runs):.2f} to {max(runs):.2f} | {first / middle:.1f}"
        print(f"| {title} | {cells} | {max(memory[title])} |", flush=True)


def _history(folder: Path) -> list[float]:
    """Seconds of the epochs, the look at val included."""
    (found,) = (folder / "models" / "finetune" / "last").glob("*/head.json")
    return list(json.loads(found.read_text())["chosen"]["history"]["seconds"])


if __name__ == "__main__":
    main()
