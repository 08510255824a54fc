"""Owns a whole run: rows, then heads, and what is noted of them meanwhile. Not the work, nor how a run is shown."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from cache import roots
from pipeline import graph, models, needs, sweeps
from pipeline.graph import Project
from stages.manifest import Manifest


def run(project: Project, heads: Collection[str] | None, result: dict[str, Any]) -> Manifest:
    """Compute the rows that are missing, then train those heads that are not there; the manifest of what has its rows.

    heads: their names; None to stop after the rows. `result` is filled with the reports as the stages end ("extract",
    "heads"), so that a failure still shows what was done. Raises ImagesRejected after extraction, and whatever stops
    a stage.
    """
    _ = project.found  # images that are not there are said before weights are fetched
    with roots.job(project.cache.root, project.keys.values()):
        report, manifest = graph.run_extract(project)
        result["extract"] = report
        good = [] if report.manifest is None else [report.manifest]
        needs.register(project, [*report.keys.values(), *good], also_before=report.manifest is None)
        models.write_rejects(project, report.rejected)
        graph.check_rejects(project, report)
        if heads is not None:
            result["heads"] = {}
            for name in heads:
                result["heads"][name] = sweeps.run(project, name, manifest)
    return manifest
