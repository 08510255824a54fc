"""Owns the facts of each base: its layers' builder, preprocessing and published weights. Not its blocks (blocks.py)."""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
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
    version: of the code that builds it, raised when its arithmetic changes. trusted: whether its file may be opened,
    whatever it holds; others only if trust.py knows their bytes. format: how it is opened.
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


def _efficient() -> Preprocess:
    """What EfficientNet needs before its own layers.

    Those give (x / 255 - mean) / sqrt(std): Keras's files hold the standard deviation where its Normalization takes the
    variance (tensorflow/tensorflow#49930). `weights="imagenet"` makes up for it by another layer, which a network built
    to load a file lacks. With these numbers before it, it gives (x / 255 - mean) / std, as the former does.
    """
    red, green, blue = (math.sqrt(std) for std in IMAGENET_STD)
    mean = [255 * m * (1 - root) for m, root in zip(IMAGENET_MEAN, (red, green, blue), strict=True)]
    return Preprocess(mean=(mean[0], mean[1], mean[2]), std=(red, green, blue))


CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
"""Of RGB values from 0 to 1: OpenAI's CLIP, and what is trained like it."""

_PREPROCESS = {
    "within": Preprocess(),  # the network's first layers do it
    "unit": Preprocess(mean=(127.5, 127.5, 127.5), std=(127.5, 127.5, 127.5)),
    "lite": Preprocess(mean=(127.0, 127.0, 127.0), std=(128.0, 128.0, 128.0)),
    "caffe": Preprocess(mean=(103.939, 116.779, 123.68), order="bgr"),
    "torch": Preprocess(1 / 255, IMAGENET_MEAN, IMAGENET_STD),
    "efficientnet": _efficient(),
}


PREPROCESS_WORDS = {
    "none": _PREPROCESS["within"],
    "unit": _PREPROCESS["unit"],
    "imagenet": _PREPROCESS["torch"],
    "clip": Preprocess(1 / 255, CLIP_MEAN, CLIP_STD),
}
"""Names for usual numbers in pipeline.yaml: raw pixels, -1 to 1, torchvision's mean and deviation, CLIP's."""


def _read_table() -> Iterator[Base]:
    """Families of bases, with what they share. A `url` ending in / is a folder that has the file `weights`.

    Digests are those that Keras checks its downloads by; it has none for MobileNet and MobileNetV2.
    """
    for family in json.loads(Path(__file__).with_suffix(".json").read_text()):
        shared = {**family, "preprocess": _PREPROCESS[family["preprocess"]]}
        for name, row in shared.pop("bases").items():
            url = family["url"] + (row["weights"] if family["url"].endswith("/") else "")
            yield Base(name, **{**shared, "url": url, **row})


BASES: dict[str, Base] = {base.name: base for base in _read_table()}
"""From catalogue.json, a row a base."""


def is_model_file(name: str) -> bool:
    """Whether a base's name is the path of a model file."""
    return find_file_format(name) is not None


def choose_base(name: str, trust: bool = False, preprocess: Preprocess | None = None) -> Base:
    """The base that settings mean: a row of the table, or a model file; `trust`: the command lets it be opened."""
    kind = find_file_format(name)
    if kind is None:
        return get_base(name)
    return replace(
        _file_base(kind), trusted=trust or not (kind.runs_code or kind.reader), preprocess=preprocess or Preprocess()
    )


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
