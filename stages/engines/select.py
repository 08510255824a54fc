"""Owns which engine runs a base here, by what is asked for and installed, and opening it. Not the engines."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from cache.errors import NotAvailable, Unusable
from stages.bases import catalogue
from stages.bases.recipe import Numerics, Recipe, Tap
from stages.engines.embed import CPU_BATCH, Embed
from stages.runtime import hardware

Engine = Literal["auto", "tensorflow", "openvino"]


def choose_engine(asked: Engine, numerics: Numerics) -> Literal["tensorflow", "openvino"]:
    """`auto` is the one that the numerics name; at f32 OpenVINO where it is installed and there is no GPU.

    Raises Unusable where the numerics are another engine's, NotAvailable where the engine is not installed.
    """
    reason = find_conflict(asked, numerics)
    if reason is not None:
        raise Unusable(f"extract.{reason}", "use engine: auto")
    wanted = engine_of(numerics) or asked
    here = importlib.util.find_spec("openvino") is not None
    if wanted == "openvino" and not here:
        raise NotAvailable(
            "the engine openvino is not installed",
            "pip install openvino, or use engine: tensorflow",
        )
    fast = here and not hardware.has_gpu()
    return "openvino" if wanted == "openvino" or (wanted == "auto" and fast) else "tensorflow"


def open_engine(
    asked: Engine, recipe: Recipe, taps: Mapping[str, Tap], weights: Path, batch: int | None, places: Sequence[Path]
) -> Embed:
    """The base in that engine; `places` are caches that may have it converted, the first keeps it.

    Raises as `choose` does, and Unusable where weights, taps or numerics do not fit the base or the machine.
    """
    if asked == "auto" and catalogue.base_of(recipe.base).own:
        asked = "tensorflow"  # a model of one's own may hold what OpenVINO cannot convert
    if choose_engine(asked, recipe.numerics) == "openvino":
        from stages.engines import openvino_convert, openvino_engine

        n = batch or CPU_BATCH
        model = openvino_convert.converted_model(recipe, taps, weights, n, places)
        return openvino_engine.OpenVINOEmbed(model, recipe.numerics, n)
    from stages.engines.tensorflow_engine import TensorFlowEmbed

    return TensorFlowEmbed(recipe, taps, weights, batch, places)


def find_conflict(asked: Engine, numerics: Numerics) -> str | None:
    """Why that engine cannot do that arithmetic; None where it can."""
    only = engine_of(numerics)
    if only is None or asked in ("auto", only):
        return None
    return f"numerics: {numerics} is the arithmetic of {only}; engine: {asked} cannot do it"


def engine_of(numerics: Numerics) -> Literal["tensorflow", "openvino"] | None:
    """The engine whose arithmetic it is; None for f32, to which all keep."""
    if numerics == "f32":
        return None
    return "openvino" if numerics == "openvino-bf16" else "tensorflow"
