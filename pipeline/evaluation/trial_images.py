"""Owns the images that a base is tried on: those of a project or of a folder, as the base takes them.

Not what is done with them (quantise.py).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from cache import atomic_files
from cache.errors import Unusable
from pipeline.config import published_fields, yaml_file
from pipeline.project.project import Options, Progress, Project
from pipeline.runs import extraction
from stages.bases import catalogue
from stages.bases.recipe import Recipe
from stages.data.images import ImageRejected
from stages.data.manifest import Manifest
from stages.extract import prefetch

log = logging.getLogger(__name__)

_HELD = 200


@contextmanager
def open_project(
    config: Path, options: Options, progress: Progress, name: str, folder: Path | None, size: int | None
) -> Iterator[Project]:
    """The project, with that base and size; of a folder, a passing one with the sizes of pipeline.yaml if it is there.

    A base of that name in pipeline.yaml brings its weights and preprocessing.
    """
    named = str(Path(name).expanduser().absolute()) if catalogue.is_model_file(name) else name
    there = yaml_file.config_path(config).exists()
    sets = [] if size is None else [f"extract.size={size}"]
    if there or folder is None:
        own = yaml_file.load(config, options.overrides).base.name
        at_home = yaml_file.config_path(config).absolute().parent
        if own != name and str((at_home / Path(own).expanduser()).absolute()) != named:
            sets.append(f"base={yaml_file.format_value({'name': named})}")
        settings = replace(options, overrides=(*options.overrides, *sets))
        if folder is None:
            yield Project(config, settings, progress)
            return
        wanted = yaml_file.load(config, settings.overrides)
    else:
        default = 224 if catalogue.is_model_file(name) else catalogue.get_base(name).size
        tree = published_fields.fill({"base": {"name": named}, "extract": {"size": size} if size else {}}, Path())
        tree.setdefault("extract", {}).setdefault("size", default)
        wanted = yaml_file.override(tree, "--images", options.overrides)
    data = wanted.data.model_copy(update={"root": str(folder.absolute()), "table": None, "group_from": None})
    with atomic_files.temporary_folder() as place:
        cache = wanted.cache.model_copy(update={"dir": str(place / "cache")})
        yield Project(config, replace(options, overrides=()), progress,
                      wanted.model_copy(update={"data": data, "cache": cache}))  # fmt: skip


class Images:
    """Images of train and val, by id, as the recipe takes them."""

    def __init__(self, project: Project, recipe: Recipe) -> None:
        manifest = Manifest(tuple(row for row in project.manifest.rows if row.split != "test"))
        self._recipe, self._ids = recipe, sorted(manifest.ids)
        self._paths = extraction.image_paths(project, manifest, self._ids)

    def read(self, ids: Sequence[str]) -> tuple[list[str], np.ndarray]:
        """Those of `ids` that can be decoded, and their pixels."""
        found = {}
        for image in ids:
            try:
                (found[image],) = prefetch.read_image(image, self._paths[image], [self._recipe], [])
            except ImageRejected as why:
                log.warning("%s is left out: %s", self._paths[image][0], why)
        return list(found), np.stack(list(found.values())) if found else np.empty(0, np.uint8)

    def take(self, most: int) -> tuple[list[str], np.ndarray]:
        """The first by their hashes, to calibrate on. Raises Unusable where none can be decoded."""
        found = self.read(self._ids[:most])
        if not found[0]:
            raise Unusable("there is no image of train or val to calibrate on", "name a folder of some with --images")
        return found

    def held(self, most: int) -> list[str]:
        """Some that are not among those first; or where there are no others, the first."""
        return self._ids[most : most + _HELD] or self._ids[:_HELD]
