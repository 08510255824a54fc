"""Owns the proof that a foreign base may be cached: engines agree, and a row of a known picture is kept with the key.

That row is stored as that of an image is, so other engines, versions and devices are compared with it (parity.py); it
goes where the cache goes. Not whether rows depend on others (embed.check_independence), nor what is in a file (bases/).
"""

import hashlib
import importlib.util
import logging
from functools import cache
from pathlib import Path

import numpy as np

from cache.errors import PipelineError, Unusable
from stages.bases import catalogue
from stages.bases.foreign_file import open_reader
from stages.bases.recipe import FrozenBase, Recipe
from stages.data import images
from stages.engines import parity, select
from stages.engines.embed import Embed, embed_all

log = logging.getLogger(__name__)

PICTURE = Path(__file__).with_name("golden.png")
"""Drawn for this purpose: coloured areas, lines and noise."""

_PICTURES = 3
"""That engines are compared on: the known one, and noise."""


@cache
def golden_id() -> str:
    """The id of PICTURE."""
    return hashlib.sha256(PICTURE.read_bytes()).hexdigest()


def golden_pixels(recipe: Recipe) -> np.ndarray:
    """PICTURE as that recipe takes it: uint8 (height, width, 3)."""
    return images.decode(PICTURE.read_bytes(), recipe.pixels)


def is_foreign(recipe: Recipe) -> bool:
    """Whether its base is one that has to be proved."""
    return catalogue.base_of(recipe.base).format.reader is not None


def golden_rows(base: FrozenBase, embed: Embed) -> dict[str, np.ndarray]:
    """By tap, float32 (1, ...), of `embed`, which has opened `base`, if other engines that are here compute the same.

    Raises Unusable where one does not.
    """
    known = golden_pixels(base.recipe)
    noise = np.random.default_rng(0).integers(0, 256, (_PICTURES - 1, *known.shape), np.uint8)
    pixels = np.concatenate([known[None], noise])
    rows = embed_all(embed, pixels)
    kind = catalogue.base_of(base.recipe.base).format
    others = select.ENGINES.values() if base.recipe.numerics == "f32" else ()  # else an arithmetic of one engine
    for engine in others:
        here = engine.package is not None and importlib.util.find_spec(engine.package) is not None
        if engine.name == embed.provenance["engine"] or not here or engine.opener(kind) is None:
            continue
        try:
            theirs = embed_all(select.open_engine(engine.name, base, embed.batch), pixels)
        except PipelineError as error:
            log.info("%s cannot run %s, so engines are not compared: %s", engine.name, base.weights, error)
            continue
        _compare(base, rows, theirs, (embed.provenance["engine"], engine.name))
    return {name: values[:1] for name, values in rows.items()}


def is_rough(recipe: Recipe, file: Path) -> bool:
    """Whether that file computes in fewer digits than float32: machines differ by more than in float32 then."""
    kind = catalogue.base_of(recipe.base).format
    return kind.reader is not None and open_reader(kind).is_rough(file)


def _compare(
    base: FrozenBase, ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray], names: tuple[str, str]
) -> None:
    allowed = parity.BF16 if is_rough(base.recipe, base.weights) else parity.F32
    for name, tap in base.taps.items():
        apart, scale = float(np.abs(ours[name] - theirs[name]).max()), float(np.abs(ours[name]).max())
        log.info("%s and %s differ by %.2g of %.3g at %s", *names, apart, scale, tap.layer)
        if not apart <= allowed * scale:
            raise Unusable(
                f"base.name: {names[0]} and {names[1]} give other rows of {base.weights} at {tap.layer}: they differ "
                f"by {apart:.2g}; {allowed * scale:.2g} is allowed ({allowed:.0e} of their largest value)",
                "one of them computes the file wrongly: export it again, with another opset or in float32",
            )
