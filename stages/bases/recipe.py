"""Owns what decides a row's value, and so its extract key. Whatever is not in here is in no extract key."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from cache.store import key_of
from stages.bases.catalogue import Base, Preprocess
from stages.data.augment import View
from stages.data.images import PixelSpec

SCHEMA = 1
VERSION = 1
"""Of the extraction arithmetic as a whole. Raise it, with a line in CHANGELOG.md, when rows come out different."""

Pooling = Literal["avg", "max", "none"]
Numerics = Literal["f32", "tensorflow-bf16", "openvino-bf16"]
StoredDtype = Literal["float32", "float16"]


@dataclass(frozen=True)
class Tap:
    """A place in the base to take features from: `output` (what include_top=False returns) or any layer's name.

    dtype: as stored; None is the recipe's.
    """

    layer: str = "output"
    pooling: Pooling = "avg"
    dtype: StoredDtype | None = None


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a row's value, but for the tap.

    numerics: f32 is a promise that every engine keeps to 1e-4 of the features' scale; any other names its engine.
    dtype: as stored, where the tap says nothing else. view: which augmented view of each image; None is the image.
    """

    base: str
    base_version: int
    output_layer: str
    weights_sha256: str
    preprocess: Preprocess
    pixels: PixelSpec
    numerics: Numerics = "f32"
    dtype: StoredDtype = "float32"
    view: View | None = None

    @classmethod
    def of(cls, base: Base, weights_sha256: str, pixels: PixelSpec, numerics: Numerics, dtype: StoredDtype) -> Recipe:
        return cls(
            base.name, base.version, base.output, weights_sha256, base.preprocess, pixels, numerics, dtype
        )  # fmt: skip

    def components(self, tap: Tap) -> dict[str, Any]:
        """The readable parts of the key; `output` and the name of the layer it stands for are the same tap."""
        return {
            "schema": SCHEMA,
            "version": VERSION,
            "base": {"name": self.base, "version": self.base_version, "weights": self.weights_sha256},
            "preprocess": self.preprocess.components(),
            "pixels": self.pixels.components(),
            "tap": {
                "layer": "output" if tap.layer == self.output_layer else tap.layer,
                "pooling": tap.pooling,
            },
            "numerics": self.numerics,
            "dtype": self.stored(tap),
            **({} if self.view is None else {"view": self.view.components()}),
        }

    def stored(self, tap: Tap) -> StoredDtype:
        """The dtype that rows of that tap are stored in."""
        return tap.dtype or self.dtype

    def key(self, tap: Tap) -> str:
        """The extract key of the components."""
        return key_of(self.components(tap))
