"""Recipes and weights of bases, and the curves that a training logged."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from stages.bases import catalogue
from stages.bases.catalogue import Base
from stages.bases.recipe import Recipe
from stages.data.images import PixelSpec
from tests.support.pictures import photographs

SIZE = 96
BATCH = 8
DEFAULT = Recipe.of(catalogue.get_base("efficientnet_lite0"), "12" * 32, PixelSpec(224, 224), "f32", "float32")


@dataclass
class Spec:
    """Settings of a fine-tuning (training.py `Spec`)."""

    optimizer: Literal["adam", "sgd"] = "adam"
    lr: float = 1e-3
    schedule: Literal["constant", "cosine"] = "constant"
    weight_decay: float = 0.0
    class_weight: Literal["none", "balanced"] = "none"
    batch: int = BATCH
    epochs: int = 4
    patience: int | None = None
    views: int = 1
    log_dir: str | None = None


def recipe(name: str, numerics: str = "f32") -> Recipe:
    return Recipe.of(catalogue.get_base(name), "00" * 32, PixelSpec(SIZE, SIZE), numerics, "float32")


def randomise(model: Any, base: Base) -> None:
    """Random weights, and statistics of normalisation as training would leave them, taken from photographs.

    With those that Keras begins with, a deep network of random weights says the same of every image, whatever was done
    to its pixels. EfficientNet's first layer has the numbers that Keras's files have.
    """
    import keras

    from stages.keras_models.trace import preprocess

    rng = np.random.default_rng(1)
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization | keras.layers.LayerNormalization):
            layer.set_weights([w + rng.normal(0, 0.1, w.shape).clip(-0.3, 0.3) for w in layer.get_weights()])
        elif isinstance(layer, keras.layers.Normalization) and layer.weights:
            layer.set_weights(
                [np.array(catalogue.IMAGENET_MEAN), np.array(catalogue.IMAGENET_STD), *layer.get_weights()[2:]]
            )
            layer.finalize_state()
    if not norms:
        return
    before = [layer.momentum for layer in norms]
    model.trainable = True
    for layer in norms:
        layer.momentum = 0.0
    model(preprocess(photographs(model.input_shape[1], 4), base.preprocess), training=True)
    model.trainable = False
    for layer, momentum in zip(norms, before, strict=True):
        layer.momentum = momentum
        *others, mean, variance = layer.get_weights()
        layer.set_weights([*others, mean, np.maximum(variance, variance.mean())])  # or rounding is blown up


def curve(folder: Path, tag: str) -> list[float]:
    """What TensorBoard itself reads of a folder of logs."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.util.tensor_util import make_ndarray

    events = EventAccumulator(str(folder))
    events.Reload()
    return [float(make_ndarray(event.tensor_proto)) for event in events.Tensors(tag)]
