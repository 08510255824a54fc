"""Owns the images that extraction is measured on. Not the measuring."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from benchmarks.contest import demo

KINDS = {"cells": None, "web": (500, 375), "camera": (4000, 3000)}
"""cells: the demo's PNGs of 300x300, grey. Else JPEGs of that size, photographs that scikit-image and -learn ship."""

_PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "rocket")


def lay_out(folder: Path, kind: str, count: int) -> int:
    """`count` images, or as many as there are, in folder/images with a folder for each of two classes; how many."""
    size = KINDS[kind]
    if size is None:
        demo(folder)
        paths = sorted((folder / "images").rglob("*.png"))
        random.Random(0).shuffle(paths)
        for path in paths[count:]:
            path.unlink()
        return min(count, len(paths))
    photographs = list(_photographs())
    draw = random.Random(0)
    for number in range(count):
        picture = photographs[number % len(photographs)]
        width, height = picture.size
        part = draw.uniform(0.6, 1.0)  # each a part of its own, so that no two files are the same
        x, y = draw.uniform(0, width * (1 - part)), draw.uniform(0, height * (1 - part))
        box = (x, y, x + width * part, y + height * part)
        path = folder / "images" / f"class{number % 2}" / f"{number:06d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.resize(size, Image.Resampling.BICUBIC, box=box).save(path, quality=90)
    shutil.rmtree(folder / ".features", ignore_errors=True)
    return count


def _photographs() -> Iterator[Image.Image]:
    from skimage import data
    from sklearn.datasets import load_sample_images

    for name in _PHOTOGRAPHS:
        yield Image.fromarray(getattr(data, name)()[..., :3])
    for pixels in load_sample_images().images:
        yield Image.fromarray(pixels)
