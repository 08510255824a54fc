"""Owns how a recorded model becomes a Deployable: its settings, weights and arrays. Not what is done with that."""

from __future__ import annotations

from pipeline.project.project import Project
from pipeline.results.model import Model
from pipeline.serving import restored_project
from stages.bases import weights
from stages.export.deployable import Deployable


def deployable(today: Project, model: Model) -> Deployable:
    """All that decides what `model` says, by its record; weights are fetched if need be, and may be.

    Raises Unusable where today's code would make other rows, or a file of the model is not to be trusted; NotAvailable
    where its weights are not to be had.
    """
    head, tail = model.head, model.tail
    then = restored_project.restore(today, model)
    file = weights.ensure_file(then.base, then.weights, today.options.offline)
    heat = model.calibration.temperature
    taps = tuple(then.tap(tap) for tap in restored_project.head_settings(then, model).taps)
    return Deployable(then.recipe, taps, file, head, 1.0 if heat is None else heat, tail)
