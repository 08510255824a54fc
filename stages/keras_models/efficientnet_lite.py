"""Owns the EfficientNet-Lite architecture in Keras, and the mapping of PyTorch's names to layers. A TensorFlow room.

EfficientNet (Tan & Le 2019) without squeeze-and-excitation, with ReLU6, a stem and head of fixed width, and a first and
last stage of fixed depth (github.com/tensorflow/tpu, models/official/efficientnet/lite). Padding is TensorFlow's
'same'.
"""

import math
from functools import partial
from pathlib import Path

import keras
from keras import layers

from cache.errors import Unusable
from stages.bases import torch_pickle

_STAGES = (  # kernel, stride, expansion, channels, repeats
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)


def _lite(name: str, width: float, depth: float, input_shape: tuple[int, int, int]) -> keras.Model:
    """The network without its classifier: float (batch, h, w, 3) -> (batch, h/32, w/32, 1280), no weights yet.

    Blocks are `block1` and so on; the last activation is `head_activation`.
    """
    image = keras.Input(input_shape, name="image")
    x = _conv(image, "stem", 32, 3, 2)
    number = 0
    for kernel, stride, expansion, channels, repeats in _STAGES:
        outer = (kernel, stride, expansion, channels, repeats) in (_STAGES[0], _STAGES[-1])
        for repeat in range(repeats if outer else math.ceil(depth * repeats)):
            number += 1
            scaled = _round_channels(width * channels)
            x = _block(x, f"block{number}", kernel, stride if repeat == 0 else 1, expansion, scaled)
    return keras.Model(image, _conv(x, "head", 1280, 1, 1), name=name)


lite0 = partial(_lite, "efficientnet_lite0", 1.0, 1.0)
lite1 = partial(_lite, "efficientnet_lite1", 1.0, 1.1)
lite2 = partial(_lite, "efficientnet_lite2", 1.1, 1.2)


def _round_channels(channels: float) -> int:
    """To the nearest multiple of 8 that takes away no more than a tenth (Tan & Le 2019, in their code)."""
    nearest = max(8, int(channels + 4) // 8 * 8)
    return nearest + 8 if nearest < 0.9 * channels else nearest


def load_torch(model: keras.Model, path: Path) -> None:
    """Load a `.pth` of the efficientnet_lite packages into the model. Raises Unusable if a tensor does not fit."""
    tensors = torch_pickle.read_tensors(path)
    for layer in model.layers:
        names = _torch_names(layer)
        if not names:
            continue
        try:
            values = [tensors[name] for name in names]
        except KeyError as error:
            raise Unusable(f"weights {path}: no tensor {error} for layer {layer.name} of {model.name}") from error
        if isinstance(layer, layers.DepthwiseConv2D):
            values = [values[0].transpose(2, 3, 0, 1)]
        elif isinstance(layer, layers.Conv2D):
            values = [values[0].transpose(2, 3, 1, 0)]
        if [v.shape for v in values] != [tuple(w.shape) for w in layer.weights]:
            raise Unusable(f"weights {path}: {names[0]} has shape {values[0].shape}, not that of {layer.name}")
        layer.set_weights(values)


def _conv(x: keras.KerasTensor, name: str, channels: int, kernel: int, stride: int) -> keras.KerasTensor:
    x = layers.Conv2D(channels, kernel, stride, "same", use_bias=False, name=f"{name}_conv")(x)
    return _norm(x, name, activate=True)


def _norm(x: keras.KerasTensor, name: str, activate: bool) -> keras.KerasTensor:
    x = layers.BatchNormalization(epsilon=1e-3, name=f"{name}_bn")(x)
    return layers.ReLU(6.0, name=f"{name}_activation")(x) if activate else x


def _block(
    x: keras.KerasTensor, name: str, kernel: int, stride: int, expansion: int, channels: int
) -> keras.KerasTensor:
    entry, width = x, x.shape[-1]
    if expansion != 1:
        x = _conv(x, f"{name}_expand", width * expansion, 1, 1)
    x = layers.DepthwiseConv2D(kernel, stride, "same", use_bias=False, name=f"{name}_depthwise_conv")(x)
    x = _norm(x, f"{name}_depthwise", activate=True)
    x = layers.Conv2D(channels, 1, use_bias=False, name=f"{name}_project_conv")(x)
    x = _norm(x, f"{name}_project", activate=False)
    return layers.Add(name=f"{name}_add")([entry, x]) if stride == 1 and width == channels else x


def _torch_names(layer: layers.Layer) -> list[str]:
    """Names of the tensors of one layer, in the order of Keras's weights; [] for a layer without weights."""
    if not layer.weights:
        return []
    block, _, part = layer.name.partition("_")
    if block == "stem":
        prefix, norm = "_conv_stem", "_bn0"
    elif block == "head":
        prefix, norm = "_conv_head", "_bn1"
    else:
        number, (part, _, _) = int(block.removeprefix("block")) - 1, part.partition("_")
        prefix = f"_blocks.{number}._{part}_conv"
        norm = f"_blocks.{number}._bn{('expand', 'depthwise', 'project').index(part)}"
    if layer.name.endswith("_conv"):
        return [f"{prefix}.weight"]
    return [f"{norm}.{part}" for part in ("weight", "bias", "running_mean", "running_var")]
