"""Small Keras models as users have them, to be saved as base: a vision transformer, and a residual network."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

SIZE = 32
DIM = 16


def vit(dropout: float = 0.0, sums: str = "layers") -> Any:
    """Patches, a class token made of weights, two blocks, and the token as (n, dim); sums: `layers` or `operators`."""
    import keras
    from keras import layers

    keras.utils.set_random_seed(0)

    def add(x: Any, y: Any, name: str) -> Any:
        return layers.Add(name=name)([x, y]) if sums == "layers" else x + y

    image = keras.Input((SIZE, SIZE, 3), name="image")
    x = layers.Rescaling(1 / 255, name="rescale")(image)
    x = layers.Conv2D(DIM, 8, 8, name="patches")(x)
    x = layers.Reshape((16, DIM), name="tokens")(x)
    for number in (1, 2):
        y = layers.LayerNormalization(name=f"b{number}_norm1")(x)
        y = layers.MultiHeadAttention(2, DIM // 2, dropout=dropout, name=f"b{number}_attention")(y, y)
        x = add(x, y, f"b{number}_add1")
        y = layers.LayerNormalization(name=f"b{number}_norm2")(x)
        y = layers.Dense(2 * DIM, activation="gelu", name=f"b{number}_mlp1")(y)
        y = layers.Dropout(dropout, name=f"b{number}_dropout")(y)
        y = layers.Dense(DIM, name=f"b{number}_mlp2")(y)
        x = add(x, y, f"b{number}_add2")
    x = layers.LayerNormalization(name="norm")(x)
    return _scattered(keras.Model(image, x, name="vit"))


def cnn(head: bool = False) -> Any:
    """Two stages, each with a residual block and BatchNormalization; with `head`, it ends in ten classes."""
    import keras
    from keras import layers

    keras.utils.set_random_seed(0)

    def conv(x: Any, filters: int, name: str, stride: int = 1, kernel: int = 3) -> Any:
        x = layers.Conv2D(filters, kernel, stride, padding="same", use_bias=False, name=f"{name}_conv")(x)
        return layers.BatchNormalization(name=f"{name}_bn")(x)

    image = keras.Input((SIZE, SIZE, 3), name="image")
    x = layers.ReLU(name="stem_relu")(conv(layers.Rescaling(1 / 127.5, -1, name="rescale")(image), 8, "stem", 2))
    for stage, filters in (("s1", 8), ("s2", 16)):
        y = layers.ReLU(name=f"{stage}_relu1")(conv(x, filters, f"{stage}_1", 2))
        y = conv(y, filters, f"{stage}_2")
        x = layers.Add(name=f"{stage}_add")([y, conv(x, filters, f"{stage}_short", 2, 1)])
        x = layers.ReLU(name=f"{stage}_relu2")(x)
    if head:
        x = layers.GlobalAveragePooling2D(name="pool")(x)
        x = layers.Dense(10, name="classes")(layers.Dropout(0.2, name="dropout")(x))
    return _scattered(keras.Model(image, x, name="cnn"))


def nested() -> Any:
    """A residual network in a Sequential model, with a layer of the same name inside and outside."""
    import keras
    from keras import layers

    outside = [layers.Conv2D(6, 1, name="s1_1_conv"), layers.GlobalAveragePooling2D(name="pool")]
    return _scattered(keras.Sequential([keras.Input((SIZE, SIZE, 3)), cnn(), *outside], name="whole"))


@functools.cache
def encoder_layers() -> tuple[type, type]:
    """Layers as other packages have them: an encoder of blocks, and a block; each only calls layers of its own."""
    import keras
    from keras import layers

    @keras.saving.register_keras_serializable("tests")
    class Block(layers.Layer):
        def build(self, shape: Any) -> None:
            self.norm1, self.norm2 = (layers.LayerNormalization(name=f"norm{i}") for i in (1, 2))
            self.attention = layers.MultiHeadAttention(2, DIM // 2, name="attention")
            self.mlp, self.dropout = layers.Dense(DIM, activation="gelu", name="mlp"), layers.Dropout(0.2)
            self.attention.build(shape, shape)
            for part in (self.norm1, self.norm2, self.mlp):
                part.build(shape)
            self.built = True

        def call(self, x: Any, training: bool | None = None) -> Any:
            y = self.norm1(x)
            x = x + self.attention(y, y, training=training)
            return x + self.dropout(self.mlp(self.norm2(x)), training=training)

    @keras.saving.register_keras_serializable("tests")
    class Encoder(layers.Layer):
        def __init__(self, depth: int, **others: Any) -> None:
            super().__init__(**others)
            self.depth = depth

        def build(self, shape: Any) -> None:
            self.blocks = keras.Sequential([Block(name=f"block{i}") for i in range(self.depth)], name="blocks")
            self.blocks.build(shape)
            self.norm = layers.LayerNormalization(name="norm")
            self.norm.build(shape)
            self.built = True

        def call(self, x: Any, training: bool | None = None) -> Any:
            return self.norm(self.blocks(x, training=training))

        def get_config(self) -> dict[str, Any]:
            return {**super().get_config(), "depth": self.depth}

    return Encoder, Block


def encoder() -> Any:
    """Patches, and an encoder in one layer, of which the first token is the output, as keras-hub has it."""
    import keras
    from keras import layers

    keras.utils.set_random_seed(0)
    image = keras.Input((SIZE, SIZE, 3), name="image")
    x = layers.Conv2D(DIM, 8, 8, name="patches")(layers.Rescaling(1 / 255, name="rescale")(image))
    x = layers.Reshape((16, DIM), name="tokens")(x)
    return _scattered(keras.Model(image, encoder_layers()[0](3, name="encoder")(x)[:, 0], name="backbone"))


def _scattered(model: Any) -> Any:
    """All weights moved off what they begin as, so that none is one or zero for all channels."""
    rng = np.random.default_rng(7)
    model.set_weights([(w + rng.normal(0, 0.05, w.shape)).astype(w.dtype) for w in model.get_weights()])
    return model
