"""Owns building a base of the catalogue in Keras and loading its weights. Not tracing it. A TensorFlow room."""

import contextlib
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import keras
import numpy as np
from keras.src.backend.common import global_state

from cache.errors import Unusable
from stages.bases import catalogue
from stages.bases.catalogue import Base
from stages.bases.formats import load_function
from stages.keras_models import efficientnet_lite

warnings.filterwarnings("ignore", module=r"keras\.src\.saving")  # _load checks for itself what a file lacks


def build_base(base: Base, weights: Path | None, height: int, width: int) -> keras.Model:
    """The base without its classifier, in inference form: float (batch, height, width, 3) -> maps.

    `weights` is a file that Keras wrote for this architecture, or a `.pth` for EfficientNet-Lite; None leaves the
    random initial weights. Raises Unusable if the file does not fit.
    """
    if min(height, width) < base.least:
        raise Unusable(f"extract.size: {base.name} needs at least {base.least} pixels a side; got {height}x{width}")
    with number_names_from(0):
        build, shape = load_function(base.builder), (height, width, 3)
        if base.builder.startswith("keras."):
            model = build(include_top=False, weights=None, input_shape=shape)
        else:
            model = build(shape)
    if weights is not None:
        _load(model, base, weights)
    model.trainable = False
    return model


def assign_weights(model: keras.Model, arrays: Mapping[str, np.ndarray]) -> None:
    """`assign_arrays`, to the layers of a model."""
    assign_arrays(model.get_layer, arrays, model.name)


def assign_arrays(get_layer: Callable[[str], keras.layers.Layer], arrays: Mapping[str, np.ndarray], of: str) -> None:
    """Assign arrays by layer and number among its weights, such as `block16_expand_conv/0`.

    Raises Unusable if one does not fit.
    """
    try:
        for name, array in arrays.items():
            layer, _, number = name.rpartition("/")
            get_layer(layer).weights[int(number)].assign(array)
    except (ValueError, IndexError, KeyError) as error:
        raise Unusable(f"{name} does not fit {of}: {' '.join(str(error).split())[:200]}") from error


class _Numbers(defaultdict[str, int]):
    """The next number by name; Keras adds one to a name that is in it."""

    def __contains__(self, name: object) -> bool:
        return (self.default_factory is not None and self.default_factory() > 0) or super().__contains__(name)


@contextlib.contextmanager
def number_names_from(first: int) -> Iterator[None]:
    """Number layers without a given name (`conv2d_57`) from `first` on; 0 is as in a fresh process.

    Keras counts through the process, so taps and trained layers would have other names in the next network.
    """
    before = global_state.get_global_attribute("object_name_uids")
    global_state.set_global_attribute("object_name_uids", _Numbers(lambda: first))
    try:
        yield
    finally:
        global_state.set_global_attribute("object_name_uids", before)


def _load(model: keras.Model, base: Base, weights: Path) -> None:
    if weights.suffix == ".pth":
        if base.package is None:
            raise Unusable(f"weights {weights}: {base.name} takes Keras weights (.weights.h5, .h5), not .pth")
        efficientnet_lite.load_torch(model, weights)
        return
    if weights.suffix != ".h5":
        raise Unusable(f"weights {weights}: unknown file type; expected .weights.h5, .h5 or .pth")
    floats = [variable for variable in model.weights if variable.dtype == "float32"]
    for variable in floats:  # Keras only warns if a file lacks a layer: NaN marks what is not loaded
        variable.assign(np.full(variable.shape, np.nan))
    try:
        model.load_weights(weights)
        for variable in floats:
            if np.isnan(variable.numpy()).any():
                raise ValueError(f"{variable.path} is missing, or NaN")
        _check_normalization(model)
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise Unusable(
            f"weights {weights} do not fit {base.name} without its classifier: {reason}",
            "use a file saved from this architecture with include_top=False",
        ) from error


def _check_normalization(model: keras.Model) -> None:
    """EfficientNet reads the mean of its first layer from the file; catalogue.py assumes that it is ImageNet's."""
    for layer in model.layers:
        if isinstance(layer, keras.layers.Normalization) and layer.weights:
            mean = layer.get_weights()[0]
            if not np.allclose(mean, catalogue.IMAGENET_MEAN, atol=1e-4):
                raise ValueError(f"its layer {layer.name} has the mean {mean.tolist()}, not that of ImageNet")
