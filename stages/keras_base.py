"""Owns building a base in Keras and putting its weights in. Not running it (engines.py). A TensorFlow room."""

from __future__ import annotations

import importlib
import os
import warnings
from pathlib import Path
from typing import Any

import keras

from cache.errors import Unusable
from stages import keras_base_lite
from stages.bases import Base


def build(base: Base, weights: Path | None, height: int, width: int) -> keras.Model:
    """The base without its classifier, in inference form: float (batch, height, width, 3) -> maps.

    `weights` is a file that Keras wrote for this architecture, or a `.pth` for EfficientNet-Lite; None leaves the
    random initial weights. Raises Unusable where the file does not fit.
    """
    if min(height, width) < base.min_size:
        raise Unusable(f"extract.size: {base.name} needs at least {base.min_size} pixels a side; got {height}x{width}")
    model = _architecture(base, (height, width, 3))
    if weights is not None:
        _load(model, base, weights)
    model.trainable = False
    return model


def fetch_imagenet(base: Base) -> None:
    """Let Keras download the ImageNet weights to its own cache. Raises what Keras raises."""
    _builder(base)(include_top=False, weights="imagenet", input_shape=(base.size, base.size, 3))


def _architecture(base: Base, shape: tuple[int, int, int]) -> keras.Model:
    if base.builder.startswith("keras."):
        return _builder(base)(include_top=False, weights=None, input_shape=shape)
    return _builder(base)(shape)


def _builder(base: Base) -> Any:
    module, _, name = base.builder.partition(":")
    return getattr(importlib.import_module(module), name)


def _load(model: keras.Model, base: Base, weights: Path) -> None:
    if weights.suffix == ".pth":
        if base.package is None:
            raise Unusable(f"weights {weights}: {base.name} takes Keras weights (.weights.h5, .h5), not .pth")
        keras_base_lite.load_torch(model, weights)
        return
    if weights.suffix not in (".h5", ".keras"):
        raise Unusable(f"weights {weights}: of no known kind; expected .weights.h5, .h5 or .pth")
    if not os.access(weights, os.R_OK):
        raise Unusable(f"weights {weights}: cannot be read", f"check: ls -l {weights}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)  # Keras only warns of layers that a file leaves untouched
            model.load_weights(weights)
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise Unusable(
            f"weights {weights} do not fit {base.name} without its classifier: {reason}",
            "use a file saved from this architecture with include_top=False",
        ) from error
