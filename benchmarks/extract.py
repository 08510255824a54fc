"""Extraction from nothing, end to end, beside what one would otherwise write: python -m benchmarks.extract.

All contenders read the same files, in alternating order; pipelines begin with nothing cached and no file hashed, but
"again" has the engine's form of the base from an earlier run. The bare limit is decoding and forward passes of the same
engine, with nothing else, and has it too. Bases whose weights no package ships have random ones. --torch names a Python
that has timm.
"""

from __future__ import annotations

import argparse
import importlib.util
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks import pictures
from benchmarks.contest import Command, pipeline, race, report, weights_of
from stages.bases import catalogue

TIMM = {
    "efficientnet_lite0": "efficientnet_lite0",
    "mobilenet_v2": "mobilenetv2_100",
    "resnet50": "resnet50",
    "vgg16": "vgg16",
}
ENGINES = (("tensorflow", "f32"), ("openvino", "f32"), ("openvino", "openvino-bf16"))


def contenders(folder: Path, name: str, torch: str | None) -> Iterator[tuple[str, Command]]:
    base, weights, config = catalogue.get_base(name), weights_of(folder, name), folder / "pipeline.yaml"
    setting = "imagenet" if base.package else weights
    config.write_text(f"base: {{name: {name}, weights: {setting}}}\nextract: {{size: {base.size}}}\n")

    def ours(engine: str, numerics: str, converted: bool) -> list[str]:
        cache = folder / f"{engine}-{numerics}"  # of its own, so that what another run deletes is not missed here
        host = folder / f"host-{engine}-{numerics}-{converted}"
        for place in (cache, *((host / "frozenbase").glob("stat-*") if converted else (host,))):
            shutil.rmtree(place) if place.is_dir() else place.unlink(missing_ok=True)
        sets = (f"extract.engine={engine}", f"extract.numerics={numerics}", f"cache.dir={cache}")
        words = pipeline("run", "extract", "-c", config, *(word for one in sets for word in ("--set", one)))
        return ["env", f"XDG_CACHE_HOME={host}", *words]

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
    options.add_argument("--base", choices=list(TIMM), default="efficientnet_lite0")
    options.add_argument("--images", choices=list(pictures.KINDS), default="cells")
    options.add_argument("--count", type=int, default=2_624)
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--torch", default=sys.executable if importlib.util.find_spec("timm") else None)
    asked = options.parse_args()
    with tempfile.TemporaryDirectory() as name:
        count = pictures.lay_out(Path(name), asked.images, asked.count)
        runs = race(dict(contenders(Path(name), asked.base, asked.torch)), asked.rounds)
        size = catalogue.get_base(asked.base).size
        report(f"{asked.base} at {size}, {count:,} images ({asked.images})", runs, count)


if __name__ == "__main__":
    main()
