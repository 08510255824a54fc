"""Small Keras models as users have them, to be saved as base: a vision transformer, and a residual network."""

from __future__ import annotations

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


def _scattered(model: Any) -> Any:
    """All weights moved off what they begin as, so that none is one or zero for all channels."""
    rng = np.random.default_rng(7)
    model.set_weights([(w + rng.normal(0, 0.05, w.shape)).astype(w.dtype) for w in model.get_weights()])
    return model
