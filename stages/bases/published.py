"""Owns the preprocessing that is published beside a model file, as transformers writes it, or within one of ours. Not
applying it.

Read are the fields of `preprocessor_config.json` that image processors of transformers have in common:
https://huggingface.co/docs/transformers/main_classes/image_processor
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args
from xml.etree import ElementTree

from cache import regular_files
from cache.errors import Unusable
from stages.bases.catalogue import Preprocess
from stages.data.images import Fit, PixelSpec, Resize

FILE = "preprocessor_config.json"
OWN = "frozenbase"
"""The element of an OpenVINO file's rt_info that has facts of this package."""

_MOST_BYTES = 1_000_000
_RESAMPLE: dict[Any, Resize] = {2: "bilinear", 3: "bicubic", "bilinear": "bilinear", "bicubic": "bicubic"}
"""By Pillow's numbers. Others have no name here: nearest and Lanczos."""

_CROP_SIDE = 384
"""From this size on, ConvNeXt's processor squashes pictures, and cuts nothing off."""


@dataclass(frozen=True)
class Published:
    """Where it was read, and what it says; None where it says nothing."""

    path: Path
    preprocess: Preprocess | None
    size: tuple[int, int] | None
    fit: Fit | None
    resize: Resize | None
    resize_to: int | None

    def components(self) -> dict[str, Any]:
        """What it says, by the names that a key has for it."""
        pixels = {"size": self.size, "fit": self.fit, "resize": self.resize, "resize_to": self.resize_to}
        return {
            "preprocess": {} if self.preprocess is None else self.preprocess.components(),
            "pixels": {name: value for name, value in pixels.items() if value is not None},
        }


def find_published(file: Path) -> Published | None:
    """What stands in a model file that this package wrote; else beside it, or in the folder above, where the hub has
    models in a folder `onnx`.

    Raises Unusable for a file that cannot be read.
    """
    if file.suffix == ".xml" and (own := _read_own(file)):
        return own
    for folder in (file.parent, file.parent.parent):
        if (folder / FILE).is_file():
            return _read(folder / FILE)
    return None


def _read(path: Path) -> Published:
    try:
        said = json.loads(regular_files.read_bytes(path, _MOST_BYTES))
        if not isinstance(said, dict):
            raise ValueError("it holds no object")
        preprocess = _numbers(said)
        size, fit, resize_to = _sizes(said)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise Unusable(
            f"{path} cannot be read as the preprocessing of a model: {error}",
            "correct it, or remove it and set base.preprocess and extract.size yourself",
        ) from error
    resize = _RESAMPLE.get(said.get("resample")) if said.get("do_resize", True) else None
    return Published(path, preprocess, size, fit, resize, resize_to)


def own_facts(pixels: PixelSpec) -> dict[str, str]:
    """What an OpenVINO file that takes such pixels as they are says of them, below OWN."""
    said = {"size": [pixels.height, pixels.width], "fit": pixels.fit, "resize": pixels.resize}
    return {"pixels": json.dumps({**said, "resize_to": pixels.resize_to}, sort_keys=True)}


def _read_own(file: Path) -> Published | None:
    """From the end of the file, since a large one takes long to parse; None where there is nothing of ours."""
    try:
        with open(file, "rb") as stream:
            stream.seek(max(0, file.stat().st_size - _MOST_BYTES))
            end = stream.read()
        facts = ElementTree.fromstring(end[end.rindex(b"<rt_info>") : end.rindex(b"</net>")])
        node = facts.find(f"{OWN}/pixels")
        said = json.loads("null" if node is None else node.get("value", "null"))
        if said is None:
            return None
        (height, width), fit, resize, resize_to = (said[name] for name in ("size", "fit", "resize", "resize_to"))
        if fit not in get_args(Fit) or resize not in get_args(Resize):
            raise ValueError(f"{fit!r} or {resize!r} is unknown")
        return Published(file, Preprocess(), (int(height), int(width)), fit, resize, resize_to and int(resize_to))
    except (OSError, ElementTree.ParseError, ValueError, TypeError, KeyError):
        return None  # what opens the file says what is wrong with it


def _numbers(said: dict[str, Any]) -> Preprocess:
    scale = float(said.get("rescale_factor", 1 / 255)) if said.get("do_rescale", True) else 1.0
    if not said.get("do_normalize", True):
        return Preprocess(scale)
    mean, std = ([float(value) for value in said[name]] for name in ("image_mean", "image_std"))
    if len(mean) != 3 or len(std) != 3 or not all(map(math.isfinite, [scale, *mean, *std])) or min(std) <= 0:
        raise ValueError("image_mean and image_std are no three numbers")
    return Preprocess(scale, (mean[0], mean[1], mean[2]), (std[0], std[1], std[2]))


def _sizes(said: dict[str, Any]) -> tuple[tuple[int, int] | None, Fit | None, int | None]:
    """Size, fit, resize_to."""
    resized = _sides(said.get("size")) if said.get("do_resize", True) else None
    cut = _sides(said.get("crop_size")) if said.get("do_center_crop") else None
    if said.get("crop_pct") and isinstance(resized, int):  # ConvNeXt
        if resized >= _CROP_SIDE:
            return (resized, resized), "squash", None
        return (resized, resized), "crop", int(resized / float(said["crop_pct"]))
    if isinstance(resized, int):
        shape = cut or resized
        size = (shape, shape) if isinstance(shape, int) else shape
        return size, "crop", resized if resized >= max(size) else None
    if resized is not None and cut is not None and cut != resized:
        raise ValueError("it resizes to height and width and cuts another size out, which is not offered here")
    return (cut if isinstance(cut, tuple) else None) or resized, None if resized is None else "squash", None


def _sides(size: Any) -> int | tuple[int, int] | None:
    """The length of the shorter side, or (height, width)."""
    if isinstance(size, dict):
        if "shortest_edge" in size:
            return int(size["shortest_edge"])
        return (int(size["height"]), int(size["width"])) if "height" in size else None
    return None if size is None else int(size)
