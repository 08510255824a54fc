"""Owns the input of a network that takes images, as a model file declares it. Not the formats of files."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from cache.errors import Unusable
from stages.bases.recipe import Layout

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
