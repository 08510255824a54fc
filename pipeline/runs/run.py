"""Owns a whole run: rows, then heads, and what is noted of them meanwhile. Not the work, nor how a run is shown."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from cache import registrations
from pipeline.project.project import Project
from pipeline.runs import boundary_rows, extraction, finetuning, rejects, retention, sweeps
from pipeline.runs.finetuning import Tell
from stages.data.manifest import Manifest


def run_stages(
    project: Project,
    heads: Collection[str],
    result: dict[str, Any],
    tuned: Sequence[str] = (),
    also_for: Sequence[str] = (),
    tell: Tell = lambda text: None,
) -> Manifest:
    """Compute the rows that are missing, then train what is not there; the manifest of what has its rows.

    heads and tuned: names of heads, and of fine-tunings. also_for: names of fine-tunings whose boundary is computed in
    the same pass. `result` is filled with the reports as the stages end ("extract", "heads", "finetune"), so that a
    failure still shows what was done. Raises ImagesRejected after extraction, and whatever stops a stage.
    """
    _ = project.found  # images that are not there are said before weights are fetched
    if project.options.part is not None:
        tell(project.options.part.of_all(project.manifest))
    for name in (*tuned, *also_for):
        boundary_rows.check_finetune(project, name)
    plans = {}
    for name in tuned:
        spec = project.config.finetune[name]
        tuning = finetuning.find_tuning(project, name, project.manifest)
        if tuning is None or set(spec.seeds) - tuning.all_found().keys():
            plans[name] = boundary_rows.plan_boundary(project, spec, project.manifest)
            tell(f"{name}: {plans[name]}")
    cached = [name for name, plan in plans.items() if plan.mode == "cached"]
    boundary = boundary_rows.boundary_taps(project, (*also_for, *cached))
    keys = [*project.keys.values(), *boundary_rows.extract_keys(project, (*tuned, *also_for))]
    with registrations.running_job(project.cache.root, keys), boundary_rows.advise_extraction((*also_for, *cached)):
        report, manifest = extraction.run_extraction(project, boundary)
        result["extract"] = report
        good = [] if report.manifest is None else [report.manifest]
        retention.register_project(project, [*keys, *good], also_before=report.manifest is None)
        rejects.write_rejects(project, report)
        rejects.fail_on_rejects(project, report)
        for name in also_for:
            boundary_rows.compute_missing(project, project.config.finetune[name], manifest)
        for name in heads:
            result.setdefault("heads", {})[name] = sweeps.run_sweep(project, name, manifest)
        for name in tuned:
            result.setdefault("finetune", {})[name] = finetuning.run_finetune(
                project, name, manifest, plans.get(name), tell
            )
    return manifest


def select_stages(project: Project, stage: str | None, names: Sequence[str]) -> dict[str, Sequence[str]]:
    """Which heads and which fine-tunings a run of `stage` (None: of everything but fine-tuning) has to do with.

    Raises Unusable where pipeline.yaml has none of one of these names.
    """
    if stage == "finetune":
        project.check_finetune(names)
        if not project.config.finetune:
            project.check_finetune(["last"])
        return {"head": (), "finetune": names or tuple(project.config.finetune)}
    project.check_heads(names)
    return {"head": () if stage == "extract" else names or tuple(project.config.heads), "finetune": ()}
