"""Owns how a recorded model becomes a Servable: its settings, weights and arrays. Not what is done with that."""

from __future__ import annotations

import zipfile

import numpy as np

from cache import files
from cache.errors import Unusable
from pipeline import recorded, registry
from pipeline.graph import Project
from pipeline.registry import Model
from stages import weights
from stages.heads import Head
from stages.servable import Servable


def servable(today: Project, model: Model) -> Servable:
    """All that decides what `model` says, by its record; weights are fetched if need be, and may be.

    Raises Unusable where today's code would make other rows, or a file of the model is not to be trusted; NotAvailable
    where its weights are not to be had.
    """
    head, tail = _arrays(model)
    then = recorded.project(today, model)
    file = weights.at_hand(then.base, then.weights, today.options.offline)
    found = files.sha256_of(file)
    if found != then.weights.sha256:
        raise Unusable(
            f"weights {file}: SHA-256 {found[:12]}...; {model} was made with {then.weights.sha256[:12]}...",
            "give the path of the file it was made with: --set base.weights=FILE",
        )
    heat = model.read("metrics.json").get("calibration", {}).get("temperature")
    name = model.record["name"]
    of = then.config.finetune[name].head if recorded.is_tuned(model) else name
    taps = tuple(then.tap(tap) for tap in then.config.heads[of].taps)
    return Servable(then.recipe, taps, file, head, 1.0 if heat is None else heat, tail)


def _arrays(model: Model) -> tuple[Head, dict[str, np.ndarray]]:
    """The head, and the retrained layers of a fine-tuned base. No pickled object is ever loaded."""
    try:
        return registry.read_head(model.folder), registry.read_tail(model.folder)
    except (ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise Unusable(
            f"{model}: the arrays in {model.folder} are not as this package writes them, and are not trusted: {error}",
            "take a model that this package made, and whose files nobody has touched since",
        ) from error
