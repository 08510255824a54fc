"""Writes the model files of Keras 2 in tests/golden: python tests/legacy/make_keras2.py, with tf_keras installed.

In a virtual environment of its own: pip install tf_keras. What Keras 2 makes of PIXELS goes into keras2_walk.npz.
tests/stages/keras_models/test_keras2_files.py reads all of it.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["TF_USE_LEGACY_KERAS"] = "1"

import numpy as np
import tensorflow as tf
import tf_keras as keras
from tf_keras import layers as L

GOLDEN = Path(__file__).parent.parent / "golden"
PIXELS = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), np.uint8)

LAYERS: list[Callable[[], Any]] = [
    lambda: L.Activation(tf.nn.swish),
    lambda: L.ActivityRegularization(0.1),
    lambda: L.AlphaDropout(0.1),
    lambda: L.AveragePooling2D(),
    lambda: L.BatchNormalization(synchronized=True),
    lambda: L.CenterCrop(20, 20),
    lambda: L.Conv2D(3, 3, activation=tf.nn.relu6, dilation_rate=2, kernel_regularizer="l2"),
    lambda: L.Conv2D(3, 1, groups=3, activation="gelu", dtype=keras.mixed_precision.Policy("mixed_bfloat16")),
    lambda: L.Conv2DTranspose(3, 3, 2),
    lambda: L.Cropping2D(2),
    lambda: L.Dense(4, activation="softmax", kernel_initializer="he_normal"),
    lambda: L.DepthwiseConv2D(3, name="Conv/depthwise"),
    lambda: L.Dropout(0.5),
    lambda: L.ELU(),
    lambda: L.GaussianDropout(0.1),
    lambda: L.GaussianNoise(0.1),
    lambda: L.GlobalMaxPooling2D(keepdims=True),
    lambda: L.GroupNormalization(3),
    lambda: L.Identity(),
    lambda: L.LayerNormalization(),
    lambda: L.LeakyReLU(alpha=0.2),
    lambda: L.Masking(0.0),
    lambda: L.MaxPooling2D(3, 2, "same"),
    lambda: L.Normalization(mean=[1.0, 2, 3], variance=[4.0, 5, 6]),
    lambda: L.PReLU(shared_axes=[1, 2]),
    lambda: L.Permute((2, 1, 3)),
    lambda: L.RandomBrightness(0.2),
    lambda: L.RandomContrast(0.2),
    lambda: L.RandomCrop(20, 20),
    lambda: L.RandomFlip("horizontal"),
    lambda: L.RandomHeight(0.2),
    lambda: L.RandomRotation(0.2),
    lambda: L.RandomTranslation(0.1, 0.1),
    lambda: L.RandomWidth(0.2),
    lambda: L.RandomZoom(0.2),
    lambda: L.ReLU(6.0),
    lambda: L.Rescaling(1 / 127.5, offset=-1),
    lambda: L.Reshape((-1, 3)),
    lambda: L.Resizing(16, 12, crop_to_aspect_ratio=True),
    lambda: L.SeparableConv2D(4, 3, activation="relu"),
    lambda: L.Softmax(),
    lambda: L.SpatialDropout2D(0.2),
    lambda: L.TimeDistributed(L.Dense(3)),
    lambda: L.UnitNormalization(),
    lambda: L.UpSampling2D(2, interpolation="bilinear"),
    lambda: L.ZeroPadding2D(((1, 0), (2, 1))),
    lambda: keras.Sequential([L.RandomFlip("horizontal", input_shape=(32, 32, 3)), L.Rescaling(1 / 255)]),
]

MERGING = ("Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum", "Concatenate", "Attention")

FUNCTIONS: list[Callable[[Any], Any]] = [
    lambda x: keras.applications.mobilenet_v2.preprocess_input(x),
    lambda x: keras.applications.densenet.preprocess_input(x),
    lambda x: 1.0 - x / 255,
    lambda x: 255.0 / (x + 1),
    lambda x: 2.0 + x * x,
    lambda x: -(x**2),
    lambda x: x * tf.nn.relu6(x / 99 + 3) * (1 / 6),
    lambda x: tf.concat([x, x + 1], axis=-1),
    lambda x: tf.stack([x, x], 1),
    lambda x: tf.split(x, 3, axis=-1)[1],
    lambda x: tf.matmul(x, x, transpose_b=True) / 9999,
    lambda x: x[:, 1:-1, ::2],
    lambda x: x[:, 0],
    lambda x: tf.squeeze(x[:, :, :, :1], -1),
    lambda x: tf.expand_dims(x, -1),
    lambda x: tf.cast(x, tf.float32),
    lambda x: tf.clip_by_value(x, 5.0, 99.0),
    lambda x: tf.reduce_mean(x, [1, 2]),
    lambda x: tf.reduce_max(x, axis=-1, keepdims=True),
    lambda x: tf.reduce_sum(x, axis=-1) / 99,
    lambda x: tf.image.resize(x, (16, 16)),
    lambda x: tf.image.resize(x, (16, 16), method="nearest"),
    lambda x: tf.maximum(x, 9.0) + tf.minimum(x, 99.0),
    lambda x: tf.abs(x - 9) + tf.sqrt(x) + tf.square(x / 99),
    lambda x: tf.exp(-x / 99) + tf.math.log(x + 1),
    lambda x: tf.sigmoid(x / 99) + tf.tanh(x / 99) + tf.nn.silu(x / 99) + tf.nn.gelu(x / 99),
    lambda x: tf.nn.softmax(x / 99),
    lambda x: tf.nn.relu(x - 99),
    lambda x: tf.math.l2_normalize(x, axis=-1),
    lambda x: tf.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]]),
    lambda x: tf.nn.avg_pool2d(x, 2, 2, "VALID") + tf.nn.max_pool2d(x, 2, 2, "VALID"),
    lambda x: tf.transpose(tf.reshape(x, (-1, 32 * 32, 3)), [0, 2, 1]),
    lambda x: keras.Model((inner := keras.Input((32, 32, 3))), L.Conv2D(3, 3)(inner / 255))(x),
]


def flat(x: Any) -> Any:
    """(n, channels)."""
    return x if len(x.shape) == 2 else L.GlobalAveragePooling1D()(L.Reshape((-1, x.shape[-1] or 3))(x))


def walk_layers() -> Any:
    image = keras.Input((32, 32, 3))
    small = L.Rescaling(1 / 99)(image)
    found = [flat(layer()(small)) for layer in LAYERS]
    both = [L.Reshape((-1, 3))(L.AveragePooling2D(8)(x)) for x in (small, L.Conv2D(3, 1)(small))]
    found += [flat(getattr(L, name)()(both)) for name in MERGING]
    found += [flat(L.MultiHeadAttention(2, 4)(*both)), L.Dot(1)([flat(both[0]), flat(both[1])])]
    return keras.Model(image, L.Concatenate()(found))


def walk_functions() -> Any:
    image = keras.Input((32, 32, 3))
    return keras.Model(image, L.Concatenate()([flat(function(image)) for function in FUNCTIONS]))


def caffe() -> Any:
    """preprocess_input of ResNet50 and VGG, which Keras 2 can save as .h5 only."""
    image = keras.Input((32, 32, 3))
    return keras.Model(image, L.Conv2D(2, 3)(keras.applications.resnet50.preprocess_input(image)))


def tutorial() -> Any:
    """As tensorflow.org/tutorials/images/transfer_learning builds it, on a small base."""
    image = keras.Input((32, 32, 3))
    x = keras.Sequential([L.RandomFlip("horizontal"), L.RandomRotation(0.2)])(image)
    x = keras.applications.mobilenet_v2.preprocess_input(x)
    inner = keras.Input((32, 32, 3))
    base = keras.Model(inner, L.ReLU(6.0, name="out_relu")(L.BatchNormalization()(L.Conv2D(4, 3)(inner))), name="base")
    x = L.Dropout(0.2)(L.GlobalAveragePooling2D()(base(x, training=False)))
    return keras.Model(image, L.Dense(1)(x))


def classifier() -> Any:
    """As tensorflow.org/tutorials/images/classification builds it."""
    first = L.Rescaling(1 / 255, input_shape=(32, 32, 3))
    return keras.Sequential([first, L.Conv2D(4, 3, activation="relu"), L.MaxPooling2D(), L.Flatten(), L.Dense(3)])


def locally_connected() -> Any:
    """A layer that Keras 3 has no more."""
    return keras.Sequential([L.LocallyConnected2D(1, 3, 8, input_shape=(32, 32, 3))])


def compress(path: Path) -> None:
    """Keras's archive is as large as the HDF5 in it, which is mostly empty."""
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in parts.items():
            archive.writestr(name, data)


def main() -> None:
    keras.utils.set_random_seed(0)
    expected = {}
    both, old = ("h5", "keras"), ("h5",)
    for build, suffixes in (
        (walk_layers, both), (walk_functions, both), (caffe, old), (tutorial, both), (classifier, both),
        (locally_connected, both),
    ):  # fmt: skip
        keras.backend.clear_session()  # layers are numbered from 0
        model = build()
        expected[build.__name__] = np.asarray(model.predict(PIXELS.astype(np.float32), verbose=0), np.float32)
        for suffix in suffixes:
            path = GOLDEN / f"keras2_{build.__name__}.{suffix}"
            model.save(path)
            if suffix == "keras":
                compress(path)
    np.savez_compressed(GOLDEN / "keras2_walk.npz", **expected)


if __name__ == "__main__":
    main()
