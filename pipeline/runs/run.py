"""Owns the order of a run: rows, then heads, then fine-tuning, with what is registered. Not the stages, nor output."""

import logging
from collections.abc import Collection, Sequence
from typing import Any

from cache import registrations
from pipeline.project.project import Project
from pipeline.runs import boundary_rows, extraction, finetuning, rejects, retention, sweeps
from pipeline.runs.finetuning import Notify
from stages.data import splits
from stages.data.manifest import Manifest

log = logging.getLogger(__name__)


def run_stages(
    project: Project,
    heads: Collection[str],
    result: dict[str, Any],
    tuned: Sequence[str] = (),
    also_for: Sequence[str] = (),
    notify: Notify = lambda text: None,
) -> Manifest:
    """Compute missing rows, then train missing models; the manifest of the images that have all rows.

    heads and tuned: names of heads and of fine-tunings. also_for: names of fine-tunings whose boundary rows are
    computed in the same pass. The report of each stage is put into `result` ("extract", "heads", "finetune") when it
    ends, so that a failure still shows what was done. Raises ImagesRejected after extraction, and errors of stages.
    """
    _ = project.found  # a missing folder of images is reported before weights are downloaded
    if project.options.part is not None:
        notify(project.options.part.describe(project.manifest))
    if heads or tuned:
        project.remember_splits()
    for name in (*tuned, *also_for):
        boundary_rows.check_finetune(project, name)
    plans = {}
    for name in tuned:
        spec = project.config.finetune[name]
        tuning = finetuning.find_tuning(project, name, project.manifest)
        if tuning is None or set(spec.seeds) - tuning.all_found().keys():
            plans[name] = boundary_rows.plan_boundary(project, spec, project.manifest)
            notify(f"{name}: {plans[name]}")
    cached = [name for name, plan in plans.items() if plan.mode == "cached"]
    specs = {f"finetune/{name}": project.config.finetune[name] for name in (*also_for, *cached)}
    boundary = {name: boundary_rows.boundary_spec(project, spec) for name, spec in specs.items()}
    keys = [*project.keys.values(), *boundary_rows.extract_keys(project, (*tuned, *also_for))]
    with registrations.running_job(project.cache.root, keys), boundary_rows.extend_hints((*also_for, *cached)):
        report, manifest = extraction.run_extraction(project, boundary)
        result["extract"] = report
        good = [] if report.manifest is None else [report.manifest]
        retention.register_project(project, [*keys, *good], also_before=report.manifest is None)
        rejects.write_rejects(project, report)
        rejects.fail_on_rejects(project, report)
        for name in also_for:
            boundary_rows.compute_missing(project, project.config.finetune[name], manifest)
        if (heads or tuned) and (few := splits.describe_few(project.count(manifest))):
            log.warning("%s", few)
        for name in heads:
            result.setdefault("heads", {})[name] = sweeps.run_sweep(project, name, manifest)
        for name in tuned:
            result.setdefault("finetune", {})[name] = finetuning.run_finetune(
                project, name, manifest, plans.get(name), notify
            )
    return manifest


def select_stages(project: Project, stage: str | None, names: Sequence[str]) -> dict[str, Sequence[str]]:
    """Names of the heads and fine-tunings of a run of `stage`; None means everything but fine-tuning.

    Raises Unusable if pipeline.yaml has none of one of these names.
    """
    if stage == "finetune":
        project.check_finetune(names)
        if not project.config.finetune:
            project.check_finetune(["last"])
        return {"head": (), "finetune": names or tuple(project.config.finetune)}
    project.check_heads(names)
    return {"head": () if stage == "extract" else names or tuple(project.config.heads), "finetune": ()}
