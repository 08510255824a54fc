"""keras2_files.py, keras2_ops.py: files that Keras 2 wrote say here what they said there, layer by layer."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cache import atomic_files
from cache.errors import Unusable
from stages.bases import catalogue
from stages.bases.recipe import FrozenBase, Recipe, Tap
from stages.data.images import PixelSpec
from stages.engines import select
from stages.export.deployable import Deployable
from stages.heads.fitted import Head, Layer, Layers
from stages.targets.classes import Classes
from tests.support import GOLDEN

PIXELS = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), np.uint8)
FILES = (
    "walk_layers.h5", "walk_layers.keras", "walk_functions.h5", "walk_functions.keras", "caffe.h5", "tutorial.h5",
    "tutorial.keras", "classifier.h5", "classifier.keras",
)  # fmt: skip


def recipe(path: Path) -> Recipe:
    base = catalogue.choose_base(str(path), True)
    return Recipe.of(base, atomic_files.sha256_of(path), PixelSpec(32, 32), "f32", "float32")


def rows(path: Path, **taps: Tap) -> dict[str, np.ndarray]:
    return select.open_engine("tensorflow", FrozenBase(recipe(path), taps, path))(PIXELS)


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_keras_2_says_what_it_said(name: str) -> None:
    with np.load(GOLDEN / "keras2_walk.npz") as expected:
        wanted = expected[name.partition(".")[0]]
    found = rows(GOLDEN / f"keras2_{name}", t=Tap("output", "none"))["t"]
    assert found.shape == wanted.shape
    assert (np.abs(found - wanted).max(axis=tuple(range(wanted.ndim - 1))) <= 1e-4 * np.abs(wanted).max()).all()


@pytest.mark.parametrize("suffix", ["h5", "keras"])
def test_layers_of_a_tutorial_s_base_are_taps(suffix: str) -> None:
    found = rows(GOLDEN / f"keras2_tutorial.{suffix}", inner=Tap("base/out_relu"), scaled=Tap("tf.math.subtract"))
    assert {name: part.shape for name, part in found.items()} == {"inner": (4, 4), "scaled": (4, 3)}
    scaled = (PIXELS / 127.5 - 1).mean(axis=(1, 2))
    assert np.abs(found["scaled"] - scaled).max() < 1e-5


@pytest.mark.parametrize("suffix", ["h5", "keras"])
def test_a_layer_that_keras_3_has_not_is_named(suffix: str) -> None:
    with pytest.raises(Unusable, match=r"needs '[\w.]*LocallyConnected2D', which is neither in Keras nor"):
        rows(GOLDEN / f"keras2_locally_connected.{suffix}", t=Tap("output", "none"))


def test_a_model_of_keras_2_is_exported_without_our_code(tmp_path: Path) -> None:
    from stages.export import keras_network

    path = GOLDEN / "keras2_tutorial.h5"
    head = Head("ridge", Classes("abc"), Layers([Layer(np.ones((4, 3)), np.arange(3.0))]), {})
    whole = Deployable((FrozenBase(recipe(path), {"0": Tap("base/out_relu")}, path),), head)
    keras_network.save_network(keras_network.build_network(whole), "keras", tmp_path / "whole.keras")
    program: Any = f"""
import keras, numpy
model = keras.saving.load_model({str(tmp_path / "whole.keras")!r})
numpy.save({str(tmp_path / "found.npy")!r}, model(numpy.random.default_rng(0).integers(0, 256, {PIXELS.shape}, "u1")))
"""
    subprocess.run([sys.executable, "-I", "-c", program], check=True, cwd=tmp_path)
    assert np.abs(np.load(tmp_path / "found.npy") - whole.open()([PIXELS])).max() < 1e-4
