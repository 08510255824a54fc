"""Owns how a recorded model becomes a Servable: its settings, weights and arrays. Not what is done with that."""

from __future__ import annotations

from pipeline.project.project import Project
from pipeline.results.model import Model
from pipeline.serving import restored_project
from stages.bases import weights
from stages.export.deployable import Servable


def servable(today: Project, model: Model) -> Servable:
    """All that decides what `model` says, by its record; weights are fetched if need be, and may be.

    Raises Unusable where today's code would make other rows, or a file of the model is not to be trusted; NotAvailable
    where its weights are not to be had.
    """
    head, tail = model.head, model.tail
    then = restored_project.project(today, model)
    file = weights.at_hand(then.base, then.weights, today.options.offline)
    heat = model.calibration.get("temperature")
    taps = tuple(then.tap(tap) for tap in restored_project.head_of(then, model).taps)
    return Servable(then.recipe, taps, file, head, 1.0 if heat is None else heat, tail)
