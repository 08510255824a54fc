"""Owns what is asked of a model file that is no Keras network, whatever its format. Not the formats (onnx_file.py,
openvino_xml.py).
"""

import importlib
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, cast

from cache.errors import Unusable
from stages.bases import trust
from stages.bases.formats import BaseFormat
from stages.bases.recipe import Layout
from stages.runtime import limited_process
from stages.runtime.limited_process import Exceeded, Limits
from stages.runtime.suggest import suggest

log = logging.getLogger(__name__)

MOST_NODES = 20_000
"""The largest vision transformers have some 4,000; a chain of 30,000 kept OpenVINO busy for a minute."""

_DTYPES = ("float", "float16", "uint8")


class ImageInput(NamedTuple):
    """name, dtype (float, float16 or uint8); batch, height, width: None where they are free."""

    name: str
    layout: Layout
    batch: int | None
    height: int | None
    width: int | None
    dtype: str

    def full_shape(self, batch: int, height: int, width: int) -> tuple[int, int, int, int]:
        return (batch, 3, height, width) if self.layout == "nchw" else (batch, height, width, 3)

    def check_size(self, path: Path, height: int, width: int) -> None:
        """Raises Unusable where it takes images of another size."""
        wanted = (self.height or height, self.width or width)
        if wanted != (height, width):
            square = f"{wanted[0]}" if wanted[0] == wanted[1] else f"[{wanted[0]}, {wanted[1]}]"
            raise Unusable(
                f"extract.size: {path} takes images of {wanted[0]} x {wanted[1]} pixels; got {height} x {width}",
                f"use size: {square}",
            )


def find_image_input(path: Path, inputs: Sequence[tuple[str, tuple[int | None, ...], str]]) -> ImageInput:
    """The one of (name, shape, dtype) that takes images. Raises Unusable where there is another, or several."""
    if len(inputs) != 1:
        names = ", ".join(name for name, _, _ in inputs)
        raise Unusable(
            f"base.name: {path} takes {len(inputs)} inputs ({names}); expected one, of RGB images",
            "export the part that takes the image alone",
        )
    ((name, shape, dtype),) = inputs
    if len(shape) != 4 or (3 not in (shape[1], shape[3]) and (shape[1] is not None or shape[3] is not None)):
        shown = " x ".join("?" if n is None else f"{n}" for n in shape)
        raise Unusable(
            f"base.name: {path} takes {shown}; expected n x 3 x height x width or n x height x width x 3, RGB images",
            "grayscale images are extracted as RGB too: export a network that takes three channels",
        )
    if dtype not in _DTYPES:
        raise Unusable(f"base.name: {path} takes {dtype}; expected float, float16 or uint8, of RGB images", "")
    if shape[3] == 3 and shape[1] != 3:
        return ImageInput(name, "nhwc", shape[0], shape[1], shape[2], dtype)
    return ImageInput(name, "nchw", shape[0], shape[2], shape[3], dtype)


def limits_for(files: Sequence[Path]) -> Limits:
    """What a library may take to open a model of those files: generous, since a machine may be busy."""
    size = sum(file.stat().st_size for file in files)
    return Limits(6_000_000_000 + 10 * size, 180 + size / 5_000_000)


def call_apart(
    function: str, job: Mapping[str, Any], limits: Limits, doing: str, trusted: bool, files: Sequence[Path]
) -> Any:
    """What `module:function` makes of model files, in a process with limits (limited_process.call).

    doing: what that is to them, {}, as the start of a sentence. Of trusted files limits are warnings. Raises
    Unusable where the process met a limit or crashed.
    """
    what = doing.format(", ".join(map(str, files)))

    def warn(why: str) -> None:
        log.warning("%s %s; it goes on since you trust it", what, why)

    try:
        return limited_process.call(function, job, limits, warn if trusted else None)
    except Exceeded as why:
        advice = "" if trusted else f"; {trust.advise(files[0])}, which makes warnings of the limits"
        raise Unusable(f"base.name: {what} {why}", f"use another export of the model{advice}") from why


def absent_tensor(file: Path, layer: str, names: Sequence[str]) -> Unusable:
    """The error for a tap that the file has not; `names`: those it has, the likeliest first."""
    near = suggest(layer, names, 4)
    return Unusable(
        f"extract.taps: {file} has no tensor {layer!r}",
        f"{'similar: ' + ', '.join(near) + '; ' if near else ''}pipeline bases {file} lists them",
    )


class Reader(Protocol):
    """A module that says of a file what is in it without running it. All raise Unusable for a file that is none."""

    def data_files(self, path: Path) -> list[Path]:
        """The other files that it is made of."""

    def find_input(self, path: Path) -> ImageInput:
        """Its one input, of images."""

    def count_outputs(self, path: Path) -> int:
        """How many of its layers are outputs; these are listed first."""

    def find_harm(self, path: Path) -> list[str]:
        """What else it does than compute, as phrases: that needs the user's trust."""

    def is_rough(self, path: Path) -> bool:
        """Whether it computes in fewer digits than float32."""

    def limits(self, path: Path) -> Limits:
        """What a library may take to open it."""


def open_reader(kind: BaseFormat) -> Reader:
    """The reader of files of that format, which has one."""
    assert kind.reader is not None
    return cast(Reader, importlib.import_module(kind.reader))
