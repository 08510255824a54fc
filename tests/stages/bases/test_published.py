"""published.py: preprocessor_config.json of transformers, by the processors of today's models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cache.errors import Unusable
from stages.bases.catalogue import CLIP_MEAN, CLIP_STD, IMAGENET_MEAN, IMAGENET_STD, Preprocess
from stages.bases.published import Published, find_published

TORCH = Preprocess(1 / 255, IMAGENET_MEAN, IMAGENET_STD)
_RESCALED = {"do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True}
_IMAGENET = {**_RESCALED, "image_mean": IMAGENET_MEAN, "image_std": IMAGENET_STD}
_HALF = {**_RESCALED, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
DINOV2 = {
    **_IMAGENET, "do_resize": True, "size": {"shortest_edge": 256}, "resample": 3,
    "do_center_crop": True, "crop_size": {"height": 224, "width": 224},
}  # fmt: skip
CASES: dict[str, tuple[dict[str, Any], tuple[Any, ...]]] = {
    "DINOv2": (DINOV2, (TORCH, (224, 224), "crop", "bicubic", 256)),
    "CLIP": (
        {**DINOV2, "size": {"shortest_edge": 224}, "image_mean": CLIP_MEAN, "image_std": CLIP_STD},
        (Preprocess(1 / 255, CLIP_MEAN, CLIP_STD), (224, 224), "crop", "bicubic", 224),
    ),
    "SigLIP": (
        {**_HALF, "size": {"height": 256, "width": 192}, "resample": 2},
        (Preprocess(1 / 255, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)), (256, 192), "squash", "bilinear", None),
    ),
    "ConvNeXt": (
        {**_IMAGENET, "size": {"shortest_edge": 224}, "crop_pct": 0.875, "resample": 3},
        (TORCH, (224, 224), "crop", "bicubic", 256),
    ),
    "ConvNeXt at 384": (
        {**_IMAGENET, "size": {"shortest_edge": 384}, "crop_pct": 0.875, "resample": 3},
        (TORCH, (384, 384), "squash", "bicubic", None),
    ),
    "sizes as numbers": (
        {**_IMAGENET, "size": 256, "do_center_crop": True, "crop_size": 224, "resample": 2},
        (TORCH, (224, 224), "crop", "bilinear", 256),
    ),
    "an unknown filter": ({**DINOV2, "resample": 1}, (TORCH, (224, 224), "crop", None, 256)),
    "numbers alone": (
        {"do_resize": False, "do_rescale": False, "do_normalize": False}, (Preprocess(), None, None, None, None),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_what_processors_say(tmp_path: Path, name: str) -> None:
    said, expected = CASES[name]
    path = tmp_path / "preprocessor_config.json"
    path.write_text(json.dumps(said))
    assert find_published(tmp_path / "model.onnx") == Published(path, *expected)
    assert find_published(tmp_path / "onnx" / "model.onnx") == Published(path, *expected)  # as the hub has it


def test_nothing_is_published(tmp_path: Path) -> None:
    assert find_published(tmp_path / "a" / "b" / "model.onnx") is None


@pytest.mark.parametrize("text", ["{", "[]", '{"do_normalize": true}', '{"size": {"shortest_edge": "big"}}'])
def test_what_cannot_be_read_is_a_sentence(tmp_path: Path, text: str) -> None:
    (tmp_path / "preprocessor_config.json").write_text(text)
    with pytest.raises(Unusable, match="cannot be read as the preprocessing of a model"):
        find_published(tmp_path / "model.onnx")
