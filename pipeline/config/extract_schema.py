"""Owns the fields of pipeline.yaml on bases, pixels and taps, all that decides rows. Not on data or heads."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator
from pydantic_core import PydanticCustomError

from pipeline.config.fields import Count, Keyed, OneOf, Positive, Real, Section, Whole
from stages.bases import catalogue, published
from stages.bases.catalogue import PREPROCESS_WORDS, Base, Preprocess
from stages.bases.recipe import Layout, Pooling, StoredDtype
from stages.data.images import Decode, Fit, Resize
from stages.engines import select


class PreprocessConfig(Section, keyed="extract"):
    """The input of a user model from RGB pixels x of 0 to 255: (x * scale - mean) / std, channels in `order`."""

    scale: Positive = 1.0
    """What pixels of 0 to 255 are multiplied by."""
    mean: tuple[Real, Real, Real] = (0.0, 0.0, 0.0)
    """What is subtracted then, for each channel."""
    std: tuple[Positive, Positive, Positive] = (1.0, 1.0, 1.0)
    """What the result is divided by, for each channel."""
    order: Literal["rgb", "bgr"] = "rgb"
    """The order of the channels that the base expects; `mean` and `std` are in this order."""


def _by_word(written: Any) -> Any:
    """The numbers that a word stands for."""
    if not isinstance(written, str):
        return written
    if written not in PREPROCESS_WORDS:
        text = "expected numbers, or " + " or ".join(PREPROCESS_WORDS)
        raise PydanticCustomError("word", "{text}", {"text": text})
    return PREPROCESS_WORDS[written].components()


Word = Annotated[str, OneOf(lambda: PREPROCESS_WORDS)]


class BaseChoice(Section, keyed="extract"):
    """A base and its weights; of a tap, where they are not the project's."""

    short = "name"

    name: str = "efficientnet_lite0"
    """A base of the catalogue (`pipeline bases` lists them), or the path of a model file (.keras, .h5, .onnx, .xml)."""
    weights: str = "imagenet"
    """`imagenet`, the path of a weight file, or `sha256:DIGEST` for weights whose rows are cached. A model file has
    its own."""
    preprocess: Annotated[PreprocessConfig | None, BeforeValidator(_by_word, PreprocessConfig | Word | None)] = None
    """Of a model file: what it expects of pixels, as numbers, or as a word for them."""

    @property
    def trusted(self) -> bool:
        """Whether the command said that a model file may be opened."""
        return False

    @property
    def base(self) -> Base:
        """Raises Unusable where there is no base of that name."""
        numbers = None if self.preprocess is None else Preprocess(**self.preprocess.model_dump())
        return catalogue.choose_base(self.name, self.trusted, numbers)

    @property
    def file(self) -> str:
        """The path of its file, as in pipeline.yaml."""
        return self.name if catalogue.is_model_file(self.name) else self.weights

    @property
    def setting(self) -> str:
        """Which weights: a word, a digest or a path. The file of a user model has them."""
        return self.name if catalogue.is_model_file(self.name) and self.weights == "imagenet" else self.weights

    @model_validator(mode="after")
    def _fits_kind_of_base(self) -> BaseChoice:
        if not catalogue.is_model_file(self.name):
            if self.preprocess is not None:
                raise ValueError(f"preprocess: {self.name} has its own; set it only where base.name is a model file")
        elif self.weights != "imagenet" and not self.weights.startswith("sha256:"):
            raise ValueError(f"weights: {self.name} contains its weights; leave weights out, or give sha256:DIGEST")
        elif self.preprocess is None and catalogue.find_format(self.name).reader is not None:
            raise ValueError(
                f"preprocess: nothing beside {self.name} says what its input is ({published.FILE}); set it: imagenet, "
                "clip, unit (-1 to 1), none (0 to 255), or {scale: 0.00392, mean: [...], std: [...]}"
            )
        return self


class ProjectBase(BaseChoice):
    trust: Annotated[bool, Keyed("none")] = False
    """Whether a model file may be opened, which can run code in it. It counts only with --set and from Python; in
    pipeline.yaml it has no effect."""

    @property
    def trusted(self) -> bool:
        return self.trust


def _two(written: Any) -> Any:
    if len(written) != 2:
        raise PydanticCustomError("sides", "expected pixels a side, or [height, width]")
    return written


Side = Annotated[Whole, Field(ge=16, le=4096)]
Size = Annotated[
    Annotated[Side, Tag("one[]")] | Annotated[tuple[Side, Side], BeforeValidator(_two), Tag("two[]")],
    Discriminator(lambda written: "two[]" if isinstance(written, list | tuple) else "one[]"),
]
"""Pixels a side, or [height, width]. (A bracket in a tag keeps it out of messages: yaml_file.py.)"""
Numerics = Annotated[str, OneOf(select.numerics_names)]


class TapConfig(Section, keyed="extract"):
    """A feature of each image. Where a field is None, it is the project's: `base`, `extract.size` and so on."""

    layer: str = "output"
    """The layer, or tensor, whose output is taken; `output` is the last one of the base without its classifier."""
    pooling: Pooling = "avg"
    """How a map or a sequence of tokens becomes one row: avg or max over the places of a map, cls, mean or both of
    tokens; none keeps all of it."""
    base: BaseChoice | None = None
    """A base of this tap's own."""
    layout: Layout | None = None
    """The order of the axes of a map of a model file, where its shape does not tell."""
    prefix: Annotated[Whole, Field(ge=0)] | None = None
    """How many tokens (class, registers) come before those of the patches, where the shape does not tell."""
    size: Size | None = None
    """A size of this tap's own, as `extract.size`."""
    fit: Fit | None = None
    """As `extract.fit`, for this tap."""
    resize: Resize | None = None
    """As `extract.resize`, for this tap."""
    resize_to: Side | None = None
    """As `extract.resize_to`, for this tap."""
    numerics: Numerics | None = None
    """As `extract.numerics`, for this tap."""


class Extract(Section, keyed="extract"):
    size: Size = 224
    """Pixels a side that the base sees, or [height, width]."""
    fit: Fit = "squash"
    """How an image becomes that shape: squash changes its proportions, crop cuts out the centre, pad adds a border."""
    resize: Resize = "bilinear"
    """The filter: bilinear and bicubic are Pillow's, with antialiasing; keras resizes as the loaders of Keras do."""
    resize_to: Side | None = None
    """With `fit: crop`: pixels of the shorter side before the centre of `size` is cut out."""
    decode: Decode = "scaled"
    """JPEGs are decoded at a reduced scale, at least twice the size (scaled, faster), or in full."""
    taps: Annotated[dict[str, TapConfig], Field(min_length=1)] = {"pooled": TapConfig()}
    """The features that are taken from each image, by a name of your choice. All come out of one pass."""
    numerics: Numerics = "f32"
    """The arithmetic of the base: float32, or bfloat16 of an engine, whose rows are others."""
    engine: Annotated[str, OneOf(lambda: [select.AUTO, *select.ENGINES]), Keyed("none")] = select.AUTO
    """What computes; auto is OpenVINO where it is installed and there is no GPU, else TensorFlow."""
    batch: Annotated[Literal["auto"] | Count, Keyed("none")] = "auto"
    """Images in a batch; auto is chosen by the base and the engine."""
    shard_rows: Annotated[Literal["auto"] | Count, Keyed("none")] = "auto"
    """The most rows in a shard; auto is about 32 MB or 20 seconds."""
    dtype: StoredDtype = "float32"
    """The type in which rows are stored."""
