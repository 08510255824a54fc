"""Decoding and forward passes with nothing else, as a limit: python -m benchmarks.bare CONFIG SETTING...

A thread per core decodes a batch and sends it through the engine. Nothing is hashed, sent through Dask or kept; a
compiled model that is stored is used.
"""

from __future__ import annotations

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from rich.console import Console

from pipeline.project.project import Options, Project
from pipeline.runs import extraction
from pipeline.show.progress import make_progress
from stages.data import images
from stages.extract.opened_bases import open_embed


def main(config: Path, overrides: tuple[str, ...]) -> None:
    project = Project(config, Options(overrides=overrides), make_progress(Console(), quiet=True))
    (spec,) = project.specs.values()
    recipe = spec.recipe
    embed = open_embed(extraction.make_job(project, recipe, offline=True), {spec.key: spec.tap})
    paths = sorted(path for path in project.root.rglob("*") if path.is_file())

    def forward(start: int) -> int:
        some = [images.decode(path.read_bytes(), recipe.pixels) for path in paths[start : start + embed.batch]]
        (rows,) = embed(np.stack(some)).values()
        return len(rows)

    with ThreadPoolExecutor(os.cpu_count()) as threads:
        assert sum(threads.map(forward, range(0, len(paths), embed.batch))) == len(paths)


if __name__ == "__main__":
    main(Path(sys.argv[1]), tuple(sys.argv[2:]))
