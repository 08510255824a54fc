"""Extraction from nothing, end to end, beside what one would otherwise write: python -m benchmarks.extract.

All contenders read the same files, in alternating order; pipelines begin with nothing cached and no file hashed, but
"again" has the engine's form of the base from an earlier run. The bare limit is decoding and forward passes of the same
engine, with nothing else, and has it too. Bases whose weights no package ships have random ones. --torch names a Python
that has timm.

--base FILE.onnx or FILE.xml shows that file beside the base --native, which it should be comparable with, and an ONNX
file also beside a plain loop with onnxruntime; and then what decoding and forward passes take alone. --preprocess is
what pipeline.yaml would have for it, unless that is published with it.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shutil
import statistics
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks import floors, pictures
from benchmarks.contest import ENVIRONMENT, Command, Run, pipeline, race, report, weights_of
from pipeline.config.yaml_file import load
from stages.bases import catalogue

TIMM = {
    "efficientnet_lite0": "efficientnet_lite0",
    "mobilenet_v2": "mobilenetv2_100",
    "resnet50": "resnet50",
    "vgg16": "vgg16",
}
ENGINES = (("tensorflow", "f32"), ("openvino", "f32"), ("openvino", "openvino-bf16"))


def write_config(folder: Path, name: str) -> Path:
    base, config = catalogue.get_base(name), folder / "pipeline.yaml"
    setting = "imagenet" if base.package else weights_of(folder, name)
    config.write_text(f"base: {{name: {name}, weights: {setting}}}\nextract: {{size: {base.size}}}\n")
    return config


def run_of(config: Path, engine: str, numerics: str, converted: bool) -> list[str]:
    """A run with nothing cached; `converted`: but the engine's form of the base, from such a run before."""
    name = f"{config.stem}-{engine}-{numerics}"
    cache = config.parent / name  # of its own, so that what another run deletes is not missed here
    host = config.parent / f"host-{name}-{converted}"
    for place in (cache, *((host / "frozenbase").glob("stat-*") if converted else (host,))):
        shutil.rmtree(place) if place.is_dir() else place.unlink(missing_ok=True)
    sets = (f"extract.engine={engine}", f"extract.numerics={numerics}", f"cache.dir={cache}")
    words = pipeline("run", "extract", "-c", config, *(word for one in sets for word in ("--set", one)))
    return ["env", f"XDG_CACHE_HOME={host}", *words]


class OfFile(NamedTuple):
    """A run on a file, or on the base beside it, that has the engine's form of it; `config` is in the folder."""

    base: str
    config: str
    engine: str = "openvino"
    numerics: str = "f32"

    @property
    def title(self) -> str:
        return f"{self.base}, {self.engine if self.numerics == 'f32' else self.numerics}, again"


def of_file(file: Path, native: str) -> tuple[OfFile, ...]:
    """Runs that begin with the engine's form at hand: the base `native` first."""
    own = OfFile(file.name, "file.yaml")
    other = own._replace(engine="onnxruntime") if file.suffix == ".onnx" else own._replace(numerics="openvino-bf16")
    return OfFile(native, "pipeline.yaml"), own, other


def beside_file(folder: Path, file: Path, native: str, preprocess: str | None) -> Iterator[tuple[str, Command]]:
    """The base `native` by Keras and here, and the file."""
    own = folder / "file.yaml"
    write_config(folder, native)
    said = {"name": str(file), **({"preprocess": preprocess} if preprocess else {})}
    own.write_text(f"base: {json.dumps(said)}\n")
    loop = [sys.executable, "-m", "benchmarks.keras_loop", str(folder), native, str(weights_of(folder, native))]
    yield f"usual Keras loop, {native}", lambda: loop
    yield f"{file.name}, openvino", lambda: run_of(own, "openvino", "f32", False)
    for one in of_file(file, native):
        yield one.title, lambda one=one: run_of(folder / one.config, one.engine, one.numerics, True)
    if file.suffix == ".onnx":
        words = [sys.executable, "-m", "benchmarks.onnx_loop", str(folder), str(file), str(load(own).extract.size)]
        yield "a loop with onnxruntime", lambda: words


def report_floors(folder: Path, bases: Sequence[OfFile], runs: Mapping[str, Sequence[Run]], count: int) -> None:
    """What decoding and forward passes alone take of those runs."""
    os.environ.update(ENVIRONMENT)  # where the runs have left the engine's forms
    cache = f"cache.dir={folder / 'bare'}"
    sets = {one: (f"extract.engine={one.engine}", f"extract.numerics={one.numerics}", cache) for one in bases}
    alone = floors.measure({one.title: (folder / one.config, *sets[one]) for one in bases})
    cpu = {one.title: statistics.median(run.cpu for run in runs[one.title]) for one in bases}
    floors.report(alone, {title: 1000 * seconds / count for title, seconds in cpu.items()}, count)


def contenders(folder: Path, name: str, torch: str | None) -> Iterator[tuple[str, Command]]:
    base, weights = catalogue.get_base(name), weights_of(folder, name)
    config = write_config(folder, name)

    def ours(engine: str, numerics: str, converted: bool) -> list[str]:
        return run_of(config, engine, numerics, converted)

    loop = [sys.executable, "-m", "benchmarks.keras_loop", str(folder), name, str(weights)]
    yield "usual Keras loop", lambda: loop
    if torch:
        for dtype in ("f32", "bf16"):
            words = [torch, "-m", "benchmarks.torch_loop", str(folder), TIMM[name], str(base.size), dtype]
            yield f"timm and a DataLoader, {dtype}", lambda words=words: words
    for engine, numerics in ENGINES:
        title = engine if numerics == "f32" else numerics
        yield f"pipeline run extract, {title}", lambda e=engine, n=numerics: ours(e, n, converted=False)
        yield f"the same, {title}, again", lambda e=engine, n=numerics: ours(e, n, converted=True)
        sets = (f"extract.engine={engine}", f"extract.numerics={numerics}", f"cache.dir={folder / 'bare'}")
        bare = [sys.executable, "-m", "benchmarks.bare", str(config), *sets]
        yield f"bare limit, {title}", lambda bare=bare: bare


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--base", default="efficientnet_lite0", help=f"{', '.join(TIMM)}, or a .onnx or .xml file")
    options.add_argument("--native", choices=list(TIMM), default="efficientnet_lite0")
    options.add_argument("--preprocess", help="of a file: imagenet, unit, clip or none")
    options.add_argument("--images", choices=list(pictures.KINDS), default="cells")
    options.add_argument("--count", type=int, default=2_624)
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--torch", default=sys.executable if importlib.util.find_spec("timm") else None)
    asked = options.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder, file = Path(name), Path(asked.base).absolute()
        count = pictures.lay_out(folder, asked.images, asked.count)
        if catalogue.is_model_file(asked.base):
            runs = race(dict(beside_file(folder, file, asked.native, asked.preprocess)), asked.rounds)
            report(f"{file.name}, {count:,} images ({asked.images})", runs, count)
            report_floors(folder, of_file(file, asked.native), runs, count)
            return
        runs = race(dict(contenders(folder, asked.base, asked.torch)), asked.rounds)
        size = catalogue.get_base(asked.base).size
        report(f"{asked.base} at {size}, {count:,} images ({asked.images})", runs, count)


if __name__ == "__main__":
    main()
