"""Owns what is told of a model file before it is a base: input, preprocessing, tensors, what it sees in photographs.

Not reading the file (stages/bases), nor whether its rows may be kept (stages/engines/proof.py).
"""

from __future__ import annotations

import contextlib
import importlib.util
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cache.errors import Unusable
from stages.bases import catalogue, trust, weights
from stages.bases.foreign_file import ImageInput, open_reader
from stages.bases.formats import LayerInfo, load_function
from stages.bases.pooling import plan_pooling
from stages.bases.published import Published, find_published
from stages.bases.recipe import FrozenBase, Pooling, Recipe, Tap
from stages.data.images import PixelSpec
from stages.engines import select

SIZE = 224
"""Pixels a side where neither the file nor what is published says another."""

_IMAGENET = 1000
_PHOTOGRAPHS = (
    ("chelsea", "a cat", range(281, 288)),
    ("coffee", "a cup of coffee", (504, 967, 968)),
    ("rocket", "a rocket", (657, 744, 812)),
)
"""Of scikit-image: name, what it shows, and the classes of ImageNet that are right."""


class Answer(NamedTuple):
    """A photograph, what it shows, the class of the largest of 1,000 outputs, and whether that is right."""

    photograph: str
    shows: str
    answer: int
    right: bool


@dataclass(frozen=True)
class FileFacts:
    """harm: why it needs the user's trust. layers: the first `outputs` are its outputs. answers: of one that ends in
    ImageNet's classes.
    """

    file: str
    format: str
    sha256: str
    data: list[str]
    input: ImageInput
    harm: list[str]
    published: Published | None
    size: tuple[int, int]
    layers: list[LayerInfo]
    outputs: int
    answers: list[Answer]

    @property
    def pooling(self) -> Pooling | None:
        """One that suits its first output; None where none does."""
        tokens_or_maps: tuple[Pooling, ...] = ("avg", "cls+mean", "mean", "none")
        for pooling in tokens_or_maps if self.layers and self.layers[0].shape is not None else ():
            shape = tuple(
                n or 257 for n in self.layers[0].shape or ()
            )  # where the size decides: most have a class token
            with contextlib.suppress(Unusable):
                plan_pooling(Tap(pooling=pooling), shape, self.size, self.input.layout)
                return pooling
        return None

    def to_json(self) -> dict[str, Any]:
        found = {**vars(self), "input": self.input._asdict(), "layers": [layer._asdict() for layer in self.layers]}
        found["pooling"] = self.pooling
        published = None if self.published is None else {**vars(self.published), "path": str(self.published.path)}
        return {**found, "published": published, "answers": [answer._asdict() for answer in self.answers]}


def describe_file(name: str, trusted: bool) -> FileFacts:
    """What the ONNX or OpenVINO file `name` says, and, where it is harmless or trusted, what it sees.

    Raises Unusable where it is not there, damaged, or does not take images.
    """
    base, file = catalogue.choose_base(name, trusted), Path(name)
    kind = base.format
    if not file.is_file():
        raise Unusable(f"{file} is not there", "name a model file, or a base that pipeline bases lists")
    assert kind.layers is not None
    reader = open_reader(kind)
    image, sha256, harm = reader.find_input(file), weights.digest_of(base, file), reader.find_harm(file)
    published = find_published(file)
    height, width = published.size if published and published.size else (SIZE, SIZE)
    size = image.height or height, image.width or width
    layers, outputs, answers = [], 0, []
    base = replace(base, trusted=trusted or trust.is_trusted(sha256))
    if not harm or base.trusted:
        layers, outputs = load_function(kind.layers)(base, file, size[0]), reader.count_outputs(file)
        if published is not None and layers and layers[0].shape == (_IMAGENET,):
            answers = _classify(file, kind.name, sha256, published, size)
    data = [str(part) for part in reader.data_files(file)]
    return FileFacts(name, kind.name, sha256, data, image, harm, published, size, layers, outputs, answers)


def _classify(file: Path, kind: str, sha256: str, published: Published, size: tuple[int, int]) -> list[Answer]:
    """The answers to photographs of scikit-image; none where that is not installed."""
    if importlib.util.find_spec("skimage") is None:
        return []
    import skimage.data
    from PIL import Image

    from stages.data.images import fit_pixels

    pixels = PixelSpec(*size, published.fit or "squash", published.resize or "bilinear", resize_to=published.resize_to)
    numbers = published.preprocess or catalogue.Preprocess()
    recipe = Recipe(kind, 1, "output", sha256, numbers, pixels)
    embed = select.open_engine(select.AUTO, FrozenBase(recipe, {"output": Tap(pooling="none")}, file))
    found = []
    for photograph, shows, right in _PHOTOGRAPHS:
        picture = Image.fromarray(getattr(skimage.data, photograph)())
        row = embed(fit_pixels(picture, pixels)[None])["output"][0]
        answer = int(np.argmax(row))
        found.append(Answer(photograph, shows, answer, answer in right))
    return found
