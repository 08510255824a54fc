"""Stand-ins that need no TensorFlow: a numpy `fake_embed`, and pictures that carry their number."""

from __future__ import annotations

import io
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from stages.bases.recipe import Tap
from stages.data.manifest import Row
from stages.heads.fitted import Head, Layer, Layers
from stages.heads.matrix import FeatureMatrix
from stages.targets.target import Target


class FakeEmbed:
    """Mean and maximum of each channel, and a salt of layer and weights; maps are the pixels, eight times smaller."""

    provenance: dict[str, Any] = {"engine": "fake", "device": "none", "versions": {}}  # noqa: RUF012

    def __init__(self, job: Any, taps: Mapping[str, Tap]) -> None:
        self.taps = taps
        self.batch = job.batch or 4
        self.delay = float(os.environ.get("FAKE_DELAY", "0"))

    def __call__(self, pixels: np.ndarray) -> dict[str, np.ndarray]:
        assert pixels.dtype == np.uint8
        assert 1 <= len(pixels) <= self.batch
        time.sleep(self.delay * len(pixels))
        x = pixels.astype(np.float32)
        kinds = {
            "avg": np.concatenate([x.mean(axis=(1, 2)), x.std(axis=(1, 2))], axis=1),
            "max": x.max(axis=(1, 2)),
            "none": x[:, ::8, ::8],
        }
        return {key: kinds[tap.pooling] + (0 if tap.layer == "output" else 1000) for key, tap in self.taps.items()}


class LargeEmbed(FakeEmbed):
    """Rows that float16 cannot hold."""

    def __call__(self, pixels: np.ndarray) -> dict[str, np.ndarray]:
        return {key: rows + 1e5 for key, rows in super().__call__(pixels).items()}


class Dense:
    """In the place of stages/heads/dense.py: a head that guesses nothing."""

    @staticmethod
    def fit(spec: Any, features: FeatureMatrix, rows: Sequence[Row], target: Target) -> Head:
        layer = Layer(np.zeros((features.dim, target.outputs)), np.zeros(target.outputs))
        return Head("dense", target, Layers([layer]), {"epoch": 1})


def numbered(number: int) -> bytes:
    """A PNG of one colour that says `number`: red + 256 * green."""
    buffer = io.BytesIO()
    Image.new("RGB", (24, 16), (number % 256, number // 256, 7)).save(buffer, "PNG")
    return buffer.getvalue()


def save_png(image: Image.Image, path: Path) -> None:
    """Its folder is made; a file that is there is written over."""
    path.parent.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    path.write_bytes(buffer.getvalue())


def textured(seed: int, bright: bool, size: int = 20) -> bytes:
    """A PNG of noise, bright or dark: two classes that a head can tell apart."""
    noise = np.random.default_rng(seed).integers(0, 120, (size, size, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise + (100 if bright else 0)).save(buffer, "PNG")
    return buffer.getvalue()


def two_classes(root: Path, n: int, start: int = 0) -> None:
    """n images of class `bright` and n of class `dark` under `root`."""
    for label in ("bright", "dark"):
        (root / label).mkdir(parents=True, exist_ok=True)
        for i in range(start, start + n):
            (root / label / f"{i:04d}.png").write_bytes(textured(2 * i + (label == "dark"), label == "bright"))
