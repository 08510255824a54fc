"""Owns which blocks of a model file can be trained, as the cache remembers them. Not finding them (keras_models/tails).

To find them is to open the file, which takes the user's trust and TensorFlow. So what was found is noted in the cache,
under `blocks/`, by the SHA-256 of the file: `status` and heads need not open it.
"""

import contextlib
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from cache import atomic_files, keys, records
from cache.errors import NotAvailable, Unusable
from pipeline.project.project import Project
from stages.bases import weights
from stages.bases.blocks import FoundBlock
from stages.bases.formats import load_function
from stages.runtime.silent_imports import without_banners

_FOUND_BY = 1
"""Which way of finding them the notes are of; notes of another one are left aside."""

_FIELDS = {"by": int, "weights": str, "layer": str, "size": int, "blocks": list}


def find_blocks(project: Project, tap: str) -> Sequence[FoundBlock]:
    """What of the model file under a tap can be trained, up to its layer; the file is opened if the cache has no note.

    Raises NotAvailable where the file is not here, Unusable where it is not to be trusted, or no such model.
    """
    about = _about(project, tap)
    noted = _noted(project, about)
    if noted is None:
        noted = _open(project, tap)
        note = {**about, "blocks": [list(asdict(block).values()) for block in noted]}
        with contextlib.suppress(OSError):  # a cache that is only read
            project.cache.put_named("blocks", keys.canonical(note), ".json")
    project.known_blocks[keys.digest("blocks", about)] = noted
    return noted


def are_known(project: Project, tap: str) -> bool:
    """Whether `find_blocks` need not open the file."""
    return _noted(project, _about(project, tap)) is not None


def _open(project: Project, tap: str) -> Sequence[FoundBlock]:
    spec, choice = project.spec(tap), project.choice(tap)
    found = project.weights(choice)
    if found.path is None:
        raise NotAvailable(
            f"the layers to train are in the model file {found.setting}, which is not on this machine",
            "give its path as base.name",
        )
    file = weights.ensure_file(choice.base, found, offline=True)
    if atomic_files.sha256_of(file) != found.sha256:  # what is trusted is the file of that digest
        raise Unusable(f"{file} was changed since it was hashed", "run again")
    of = choice.base.format.blocks
    assert of is not None
    with without_banners():
        list_blocks = load_function(of)
    blocks: Sequence[FoundBlock] = list_blocks(file, spec.recipe.pixels.height, spec.tap.layer)
    return blocks


def _about(project: Project, tap: str) -> dict[str, Any]:
    spec = project.spec(tap)
    recipe = spec.recipe
    return {
        "by": _FOUND_BY,
        "weights": recipe.weights_sha256,
        "layer": spec.tap.layer,
        "size": recipe.pixels.height,
    }


def _noted(project: Project, about: dict[str, Any]) -> Sequence[FoundBlock] | None:
    if (name := keys.digest("blocks", about)) in project.known_blocks:
        return project.known_blocks[name]
    for path in sorted(project.cache.root.glob("blocks/*.json")):
        note = records.load(path, _FIELDS)
        if note is not None and {**note, **about} == note:
            with contextlib.suppress(TypeError, ValueError, OverflowError):
                return [_read(*block) for block in note["blocks"]]
    return None


def _read(layers: list[Any], boundary: Any, maps: list[Any], count: Any, obstacle: Any) -> FoundBlock:
    """Whoever can write to the cache may have written it. Raises ValueError, TypeError or OverflowError."""
    if not layers or not all(0 < int(side) < 2**31 for side in maps):
        raise ValueError("no block of layers")
    return FoundBlock(
        [str(layer) for layer in layers], str(boundary), [int(side) for side in maps], int(count), str(obstacle)
    )
