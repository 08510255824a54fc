"""composite.py: a layer is looked into only where it is what the layers in it are, while it is trained too."""

from __future__ import annotations

from typing import Any

import keras
import pytest
from keras import layers

from stages.keras_models import composite
from tests.support import own_models
from tests.support.own_models import DIM


class Two(layers.Layer):
    """Two layers of its own, one after the other."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = layers.Dense(DIM), layers.Dense(DIM)

    def build(self, shape: Any) -> None:
        self.one.build(shape)
        self.other.build(shape)
        self.built = True

    def call(self, x: Any, training: bool | None = None) -> Any:
        return self.other(self.one(x, training=training))


class WithAWeight(Two):
    def build(self, shape: Any) -> None:
        super().build(shape)
        self.token = self.add_weight(shape=(1, 1, DIM))

    def call(self, x: Any, training: bool | None = None) -> Any:
        return super().call(x) + self.token


class OtherwiseInTraining(Two):
    def call(self, x: Any, training: bool | None = None) -> Any:
        return self.other(x) if training else super().call(x)


class OneLeftOut(Two):
    def call(self, x: Any, training: bool | None = None) -> Any:
        return self.one(x)


class NeedsNumbers(Two):
    def call(self, x: Any, training: bool | None = None) -> Any:
        return super().call(x) * float(keras.ops.max(x))


def opened(layer: Any) -> Any:
    x = keras.Input((16, DIM))
    layer(x)
    return composite.open_layer(layer, [x], {})


def test_an_encoder_is_the_layers_in_it() -> None:
    kinds = own_models.encoder_layers()
    inner = opened(kinds[0](2))
    assert [layer.name for layer in inner.layers[1:]] == ["blocks", "norm"]
    assert [layer.name for layer in opened(Two()).layers[1:]]


@pytest.mark.parametrize("make", [WithAWeight, OtherwiseInTraining, OneLeftOut, lambda: layers.Dense(3)])
def test_a_layer_that_is_more_or_less_than_those_in_it_is_left_whole(make: Any) -> None:
    assert opened(make()) is None


def test_a_layer_whose_code_cannot_run_without_numbers_is_left_whole() -> None:
    layer = NeedsNumbers()
    layer.build((None, 16, DIM))
    assert composite.open_layer(layer, [keras.Input((16, DIM))], {}) is None
    attention = layers.MultiHeadAttention(2, DIM)
    x = keras.Input((16, DIM))
    attention(x, x)
    assert composite.open_layer(attention, [x, x], {}) is None
