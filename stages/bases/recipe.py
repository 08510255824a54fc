"""Owns what decides a row's value, and so its extract key. Not how rows are computed (engines/)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from cache.shards import ShardLayout
from cache.store import key_of
from stages.bases.catalogue import Base, Preprocess
from stages.data.augment import View
from stages.data.images import PixelSpec

SCHEMA = 1
VERSION = 1
"""Of the extraction arithmetic as a whole. Raise it, with a line in CHANGELOG.md, when rows come out different."""

Pooling = Literal["avg", "max", "none", "cls", "mean", "cls+mean"]
"""Of maps avg, max or none; of tokens cls (the class token), mean (of the patches), both joined, or none."""

Layout = Literal["nchw", "nhwc"]
StoredDtype = Literal["float32", "float16"]


@dataclass(frozen=True)
class Tap:
    """A layer of the base whose output is a feature: `output` (what include_top=False returns) or any layer's name.

    dtype: as stored; None for the recipe's. layout: of maps; None where their shape says it. prefix: how many tokens
    stand before those of patches (class and register tokens); None where the patches are a square.
    """

    layer: str = "output"
    pooling: Pooling = "avg"
    dtype: StoredDtype | None = None
    layout: Layout | None = None
    prefix: int | None = None


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a row's value, but for the tap.

    numerics: f32, in which all engines agree to 1e-4 of the features' scale, or another arithmetic that an engine
    offers (engines/select.py). dtype: as stored, unless the tap has its own. view: which augmented view of each image;
    None for the image itself.
    """

    base: str
    base_version: int
    output_layer: str
    weights_sha256: str
    preprocess: Preprocess
    pixels: PixelSpec
    numerics: str = "f32"
    dtype: StoredDtype = "float32"
    view: View | None = None

    @classmethod
    def of(cls, base: Base, weights_sha256: str, pixels: PixelSpec, numerics: str, dtype: StoredDtype) -> Recipe:
        return cls(base.name, base.version, base.output, weights_sha256, base.preprocess, pixels, numerics, dtype)

    def components(self, tap: Tap) -> dict[str, Any]:
        """The readable parts of the key. `output` and the name of that layer are the same tap."""
        return {
            "schema": SCHEMA,
            "version": VERSION,
            "base": {"name": self.base, "version": self.base_version, "weights": self.weights_sha256},
            "preprocess": self.preprocess.components(),
            "pixels": self.pixels.components(),
            "tap": {
                "layer": "output" if tap.layer == self.output_layer else tap.layer,
                "pooling": tap.pooling,
                "layout": tap.layout,
                "prefix": tap.prefix,
            },
            "numerics": self.numerics,
            "dtype": self.stored(tap),
            **({} if self.view is None else {"view": self.view.components()}),
        }

    def stored(self, tap: Tap) -> StoredDtype:
        """The dtype in which rows of that tap are stored."""
        return tap.dtype or self.dtype

    def key(self, tap: Tap) -> str:
        return key_of(self.components(tap))


@dataclass(frozen=True)
class FeatureSpec:
    """What a stored row is: a tap of a base, computed by a recipe. It stands for one extract key."""

    recipe: Recipe
    tap: Tap

    def components(self) -> dict[str, Any]:
        """The readable parts of the key."""
        return self.recipe.components(self.tap)

    @cached_property
    def key(self) -> str:
        return self.recipe.key(self.tap)


Specs = Mapping[str, FeatureSpec]
"""By extract key."""


@dataclass(frozen=True)
class FrozenBase:
    """A base to run: what decides its rows, taps by name, and the file of its weights.

    tail: trained arrays by layer and number among its weights (`head_conv/0`), assigned after those in the file.
    """

    recipe: Recipe
    taps: Mapping[str, Tap]
    weights: Path
    tail: Mapping[str, np.ndarray] = field(default_factory=dict)


def find_fault(components: Mapping[str, Any], layout: ShardLayout) -> str:
    """What is wrong with rows of those components, or nothing."""
    dtype, tap = components.get("dtype"), components.get("tap")
    if dtype is not None and layout.dtype.name != dtype:
        return f"their key is of {dtype}"
    pooled = isinstance(tap, dict) and tap.get("pooling") in ("avg", "max")
    return "their key is of pooled vectors" if pooled and len(layout.shape) != 2 else ""
