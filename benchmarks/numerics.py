"""What bfloat16 and int8 cost a head: python -m benchmarks.numerics --sets elpv fashion --kept 0 1 8

Logistic heads of one C (that folds choose on rows in f32) on rows of each arithmetic, 5 folds over 5 times; paired
differences to f32 of all images, each by heads that never saw it. int8 is EfficientNet-Lite0 calibrated on 300 of the
images by their hashes, with so many of its 49 layers in float32, first those that turn rows most for the size of
their maps. Least and mean cosine of a row with that in f32; forward passes on all cores, in turns.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import pipeline
from benchmarks import small_sets
from pipeline.evaluation import cost
from pipeline.evaluation.trial_images import Images
from pipeline.project.progress import no_progress
from pipeline.project.project import Options, Project
from pipeline.show import evaluation_tables
from stages.bases import published
from stages.bases.catalogue import choose_base
from stages.bases.recipe import FrozenBase, Recipe, Tap
from stages.data.manifest import Row
from stages.engines import quantise as int8
from stages.engines import select
from stages.engines.embed import Embed
from stages.runtime import hardware
from stages.targets.classes import Classes

BASE, PICTURES, RANKED = "efficientnet_lite0", 300, 32
NUMERICS = ("openvino-bf16", "tensorflow-bf16")


def quantised(config: Path, kept: Sequence[int]) -> Iterator[tuple[str, Path]]:
    """The int8 file with so many parts in float32, beside pipeline.yaml, of each."""
    project = Project(config, Options(), no_progress)
    spec = project.spec("pooled")
    file, recipe = project.weight_file(spec.recipe, offline=True), spec.recipe
    _, pictures = Images(project, recipe).take(PICTURES)
    quantiser = int8.Quantiser(*int8.float_model(recipe, file, ()), pictures)
    ranked = quantiser.rank(int8.RANGES[0], RANKED, lambda n: None) if any(kept) else []
    for count in kept:
        some = ranked[:count]
        model = int8.with_facts(quantiser.quantise(some, int8.RANGES[0]), published.own_facts(recipe.pixels))
        path = config.parent / f"int8-{count}.xml"
        for name, data in model.items():
            path.with_suffix(Path(name).suffix).write_bytes(data)
        layers = sum(part.layers for part in some)
        yield f"int8, {layers} of {quantiser.layers} layers in f32", path


def opened(config: Path, sets: Mapping[str, Any]) -> Embed:
    overrides = tuple(f"{name}={json.dumps(value)}" for name, value in sets.items())
    project = Project(config, Options(overrides), no_progress)
    recipe: Recipe = project.spec("pooled").recipe
    return select.open_engine("auto", FrozenBase(recipe, {"row": Tap()}, project.weight_file(recipe, offline=True)))


def measure(config: Path, title: str, asked: Sequence[str], kept: Sequence[int]) -> None:
    contenders: dict[str, dict[str, Any]] = {"f32": {}, **{name: {"extract.numerics": name} for name in asked}}
    contenders |= {name: {"base": {"name": str(path)}} for name, path in quantised(config, kept)}
    exact = pipeline.open(config).features()
    rows = [Row(i, "", label, "train", None) for i, label in zip(exact.ids, exact.y, strict=True)]
    judge = cost.Judge(rows, Classes(sorted(set(exact.y))), exact.X)
    print(f"\n{title}, {len(rows):,} images, {BASE} at {choose_base(BASE).size}, {hardware.cpu_name()}\n")
    print("| | cosine: least, mean | accuracy | to f32 (95 %) | AUROC to f32 |\n|---|---|---|---|---|")
    for name, sets in contenders.items():
        X = exact.X if name == "f32" else pipeline.open(config, sets).features().X
        cosines, found = int8.cosines(exact.X, X), judge.compare(X)
        cells = [name, f"{cosines.min():.3f}, {cosines.mean():.4f}"]
        cells.append(f"{found.figures['int8'].values['accuracy']:.4f}")
        for figure in ("accuracy", "auroc") if name != "f32" else ():
            cells.append(evaluation_tables.format_difference(found.difference[figure], 4))
        print(f"| {' | '.join([*cells, *[''] * (5 - len(cells))])} |", flush=True)
    embeds = {name: opened(config, sets) for name, sets in contenders.items() if "tensorflow" not in name}
    side = choose_base(BASE).size
    pixels = np.random.default_rng(0).integers(0, 256, (8, side, side, 3)).astype(np.uint8)
    speeds = int8.images_per_second(embeds, pixels)
    print("\nforward passes, images/s in turns: " + "; ".join(f"{name} {speed:.0f}" for name, speed in speeds.items()))


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--sets", nargs="+", choices=list(small_sets.LAY_OUT), default=["elpv"])
    options.add_argument("--numerics", nargs="*", choices=NUMERICS, default=list(NUMERICS))
    options.add_argument("--kept", nargs="*", type=int, default=[0, 1, 8], help="parts of the int8 base in float32")
    asked = options.parse_args()
    for name in asked.sets:
        with tempfile.TemporaryDirectory() as folder:
            small_sets.LAY_OUT[name](Path(folder))
            config = Path(folder) / "pipeline.yaml"
            config.write_text("data: {root: images, split: {val: 0.0, test: 0.0}}\nextract: {engine: auto}\n")
            measure(config, name, asked.numerics, asked.kept)


if __name__ == "__main__":
    main()
