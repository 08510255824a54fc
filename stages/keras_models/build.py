"""Owns building a base in Keras and putting its weights in. Not running it (trace.py). A TensorFlow room."""

from __future__ import annotations

import contextlib
import importlib
import warnings
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras.src.backend.common import global_state

from cache.errors import Unusable
from stages.bases import catalogue
from stages.bases.catalogue import Base
from stages.keras_models import efficientnet_lite

warnings.filterwarnings("ignore", module=r"keras\.src\.saving")  # what a file lacks is checked, and said, here


def build_base(base: Base, weights: Path | None, height: int, width: int) -> keras.Model:
    """The base without its classifier, in inference form: float (batch, height, width, 3) -> maps.

    `weights` is a file that Keras wrote for this architecture, or a `.pth` for EfficientNet-Lite; None leaves the
    random initial weights. Raises Unusable where the file does not fit.
    """
    if min(height, width) < base.least:
        raise Unusable(f"extract.size: {base.name} needs at least {base.least} pixels a side; got {height}x{width}")
    with _names_from_the_start():
        model = _architecture(base, (height, width, 3))
    if weights is not None:
        _load(model, base, weights)
    model.trainable = False
    return model


def assign_weights(model: keras.Model, arrays: Mapping[str, np.ndarray]) -> None:
    """Put arrays by layer and number among its weights, such as `block16_expand_conv/0`, in the place of its own.

    Raises Unusable where one does not fit.
    """
    try:
        for name, array in arrays.items():
            layer, _, number = name.rpartition("/")
            model.get_layer(layer).weights[int(number)].assign(array)
    except (ValueError, IndexError) as error:
        raise Unusable(f"{name} does not fit {model.name}: {' '.join(str(error).split())[:200]}") from error


@contextlib.contextmanager
def _names_from_the_start() -> Iterator[None]:
    """Layers that have no name of their own (`conv2d_57`) are numbered as in a fresh process.

    Keras counts on through the process, so that a tap or a trained layer would be called otherwise in the next network.
    """
    before = global_state.get_global_attribute("object_name_uids")
    global_state.set_global_attribute("object_name_uids", defaultdict(int))
    try:
        yield
    finally:
        global_state.set_global_attribute("object_name_uids", before)


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
        efficientnet_lite.load_torch(model, weights)
        return
    if weights.suffix != ".h5":
        raise Unusable(f"weights {weights}: of no known kind; expected .weights.h5, .h5 or .pth")
    floats = [variable for variable in model.weights if variable.dtype == "float32"]
    for variable in floats:  # Keras only warns of a layer that a file leaves untouched: mark them all
        variable.assign(np.full(variable.shape, np.nan))
    try:
        model.load_weights(weights)
        for variable in floats:
            if np.isnan(variable.numpy()).any():
                raise ValueError(f"{variable.path} is not in it, or not a number")
        _check_normalization(model)
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise Unusable(
            f"weights {weights} do not fit {base.name} without its classifier: {reason}",
            "use a file saved from this architecture with include_top=False",
        ) from error


def _check_normalization(model: keras.Model) -> None:
    """EfficientNet takes the mean of its first layer from the file, and catalogue.py counts on ImageNet's."""
    for layer in model.layers:
        if isinstance(layer, keras.layers.Normalization) and layer.weights:
            mean = layer.get_weights()[0]
            if not np.allclose(mean, catalogue.IMAGENET_MEAN, atol=1e-4):
                raise ValueError(f"its {layer.name} layer has the mean {mean.tolist()}, not that of ImageNet")
