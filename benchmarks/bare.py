"""Decoding and forward passes with nothing else, as a limit: python -m benchmarks.bare CONFIG SETTING...

A thread per core decodes a batch and sends it through the engine. Nothing is hashed, sent through Dask or kept; a
compiled model that is stored is used.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from rich.console import Console

from pipeline.project.project import Options, Project
from pipeline.runs import extraction
from pipeline.show.progress import make_progress
from stages.bases.recipe import Recipe
from stages.data import images
from stages.engines.embed import Embed
from stages.extract.opened_bases import open_embed


def opened(config: Path, overrides: Sequence[str]) -> tuple[Embed, Recipe, list[Path]]:
    """The base of a project, what it takes, and the project's files."""
    project = Project(config, Options(overrides=tuple(overrides)), make_progress(Console(), quiet=True))
    (spec,) = project.specs.values()
    embed = open_embed(extraction.make_job(project, spec.recipe, offline=True), {spec.key: spec.tap})
    return embed, spec.recipe, sorted(path for path in Path(project.source.root).rglob("*") if path.is_file())


def main(config: Path, overrides: tuple[str, ...]) -> None:
    embed, recipe, paths = opened(config, overrides)

    def forward(start: int) -> int:
        some = [images.decode(path.read_bytes(), recipe.pixels) for path in paths[start : start + embed.batch]]
        (rows,) = embed(np.stack(some)).values()
        return len(rows)

    with ThreadPoolExecutor(os.cpu_count()) as threads:
        assert sum(threads.map(forward, range(0, len(paths), embed.batch))) == len(paths)


if __name__ == "__main__":
    main(Path(sys.argv[1]), tuple(sys.argv[2:]))
