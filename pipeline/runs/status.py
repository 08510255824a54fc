"""Owns saying what a run would do, and why: HIT, PARTIAL or MISS for each stage. Computes no row, trains nothing."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from cache.errors import NotAvailable, Unusable
from pipeline.project.project import Project
from pipeline.results.record_diff import Differences
from pipeline.runs import boundary_rows, extraction, finetuning, miss_reasons, rejects, sweeps, train_heads
from stages.data.manifest import Manifest
from stages.extract import throughput
from stages.heads import labelled_rows

State = Literal["HIT", "PARTIAL", "MISS", "BLOCKED"]

FEW = 5
"""A class with fewer images in a split is warned of."""


@dataclass(frozen=True)
class StageStatus:
    """What one stage would do.

    `rows` counts the different images it covers, `missing` those it has to compute: at most, where files are not hashed
    yet. `seconds` and `bytes` are estimates for these, from what rows of the same kind took before, else from a
    trial; None where neither is to be had. BLOCKED: it would refuse.
    """

    stage: Literal["extract", "head", "finetune"]
    name: str
    state: State
    reason: str
    rows: int
    missing: int
    seconds: float | None = None
    bytes: int | None = None
    at_most: bool = False
    differences: Differences = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return dict(vars(self))


@dataclass(frozen=True)
class Status:
    """What a run would do, stage by stage, and how many images each class has in each split.

    `unhashed` files are in neither: which images they are is not known yet. Nor are `rejected` ones: those that lack a
    row and that the last run rejected, or, where files are read, all that cannot be decoded. `stops`: a run exits 3
    over them before any head. `not_made`: fine-tunings that nobody has run yet, which none but a run of them makes.
    """

    stages: list[StageStatus]
    counts: dict[str, dict[str, int]]
    unhashed: int
    rejected: int
    stops: bool
    not_made: list[str] = field(default_factory=list)

    @property
    def fresh(self) -> bool:
        return all(stage.state == "HIT" for stage in self.stages)

    def to_json(self) -> dict[str, Any]:
        return {**vars(self), "fresh": self.fresh}


def preview_run(project: Project, estimate: bool = True) -> Status:
    """The status of all that a run goes through, and of those fine-tunings, run only when named, that were made before.

    With `estimate`, some images are taken through the base where no rows tell how long it takes.
    """
    made = [name for name in project.config.finetune if finetuning.was_started(project, name)]
    not_made = [name for name in project.config.finetune if name not in made]
    return replace(_status(project, project.config.heads, made, estimate), not_made=not_made)


def preview_stage(project: Project, stage: str | None = None, names: Sequence[str] = ()) -> Status:
    """The status of all that a run of `stage` (None: of all but fine-tuning), or of `names` there, would go through."""
    if stage != "finetune":
        return _status(project, () if stage == "extract" else names or project.config.heads, (), True)
    tuned = names or tuple(project.config.finetune)
    first = dict.fromkeys(project.config.finetune[name].head for name in tuned)
    return _status(project, first, tuned, True)


def _status(project: Project, of: Collection[str], tuned: Sequence[str], estimate: bool) -> Status:
    """Of the rows, the heads `of`, and the fine-tunings `tuned`, whose heads are among these."""
    manifest = project.manifest.without(_rejected(project))
    rejected = len(project.found.rejected) + len(project.manifest.rows) - len(manifest.rows)
    stages = [_extract(project, name, manifest) for name in project.config.extract.taps]
    if estimate:
        stages = _tried(project, stages)
    blocked = {s.name for s in stages if s.state == "BLOCKED"}
    refused = rejected if project.config.data.on_bad == "fail" else 0
    for name in of:
        head = _head(project, name, manifest, refused)
        taps = {tap for point in project.config.heads[name].points().values() for tap in point.taps}
        if head.state == "MISS" and taps & blocked:
            head = replace(head, state="BLOCKED", reason="its rows cannot be computed")
        stages.append(head)
    of_heads = {s.name: s for s in stages if s.stage == "head"}
    for name in tuned:
        stages += _tuned(project, name, manifest, of_heads[project.config.finetune[name].head])
    return Status(stages, manifest.counts(), len(project.found.unhashed), rejected, refused > 0)


def _rejected(project: Project) -> Collection[str]:
    """Ids of images that a run would reject, as it seems where no file is to be read."""
    if project.options.read_files:
        return extraction.find_rejects(project)
    before, ids = rejects.read_ids(project), project.manifest.ids
    return before & {image for tap in project.taps for image in project.store(tap).missing(ids)} if before else ()


def _extract(project: Project, tap: str, manifest: Manifest) -> StageStatus:
    store, ids, unhashed = project.store(tap), manifest.ids, len(project.found.unhashed)
    lacking = store.missing(ids)
    missing, total = len(lacking) + unhashed, len(ids) + unhashed
    if missing == 0:
        return StageStatus("extract", tap, "HIT", "all rows are there", total, 0)
    try:
        extraction.image_paths(project, manifest, dict.fromkeys(lacking, ()))
    except NotAvailable as error:
        return StageStatus("extract", tap, "BLOCKED", error.message, total, missing)
    made = store.shard_records()
    rows = sum(record["rows"] for record in made)
    pace = throughput.seconds_per_image(made)
    seconds = None if pace is None else round(pace * missing, 1)
    size = sum(record["bytes"] for record in made) // rows * missing if rows else None
    if missing < total or unhashed:
        state: State = "PARTIAL" if missing < total else "MISS"
        reason = _unhashed(unhashed) if unhashed else f"{missing} of {total} images have no row"
        return StageStatus("extract", tap, state, reason, total, missing, seconds, size, unhashed > 0)
    none_of_these = miss_reasons.Why("rows are there, but none of these images'", {})
    why = none_of_these if rows else miss_reasons.explain_rows(project, store.components)
    return StageStatus("extract", tap, "MISS", why.reason, total, missing, seconds, size, False, why.differences)


def _tried(project: Project, stages: list[StageStatus]) -> list[StageStatus]:
    """`stages` with the estimates that are lacking, from a trial; BLOCKED where weights or taps turn out not to fit."""
    lacking = [s.name for s in stages if s.missing and s.seconds is None and s.state != "BLOCKED"]
    if not lacking:
        return stages
    try:
        tried = extraction.time_sample(project, lacking)
    except NotAvailable:  # no weights here; a look downloads none
        return stages
    except Unusable as error:
        return [replace(s, state="BLOCKED", reason=error.message) if s.name in lacking else s for s in stages]
    if tried is None:
        return stages
    out = []
    for s in stages:
        if s.name in lacking:
            size = tried.bytes[project.store(s.name).key] * s.missing
            s = replace(s, seconds=round(tried.startup + tried.seconds * s.missing, 1), bytes=size)
        out.append(s)
    return out


def _unhashed(n: int) -> str:
    return f"{n} files are not hashed yet (--hash makes it exact)"


def _head(project: Project, name: str, manifest: Manifest, refused: int) -> StageStatus:
    samples, unhashed = len(manifest.samples), len(project.found.unhashed)
    if refused:
        reason = f"{refused} {'image is' if refused == 1 else 'images are'} rejected (data.on_bad: fail)"
        return StageStatus("head", name, "BLOCKED", reason, samples, samples)
    if unhashed:
        total = samples + unhashed
        return StageStatus("head", name, "MISS", _unhashed(unhashed), total, total, at_most=True)
    try:
        train_heads.check_leaks(project, manifest)
        classes = labelled_rows.check_classes(manifest, project.config.data.classes)
    except Unusable as error:
        return StageStatus("head", name, "BLOCKED", error.message, samples, samples)
    points = project.config.heads[name].points()
    found = sweeps.find_points(project, name, manifest, classes)
    if len(found.points) == len(points):
        reason = f"all {len(points)} points are there" if len(points) > 1 else "the very same head is there"
        return StageStatus("head", name, "HIT", reason, samples, 0)
    if len(found.diverged) == len(points):
        return StageStatus("head", name, "BLOCKED", f"all {len(points)} points diverged", samples, samples)
    lost = f", {len(found.diverged)} diverged" if found.diverged else ""
    reason = f"{len(found.points)} of {len(points)} points are there{lost}"
    if not found.missing:
        return StageStatus("head", name, "HIT", reason, samples, 0)
    if found.points or found.diverged:
        return StageStatus("head", name, "PARTIAL", reason, samples, samples)
    point, folder = next(iter(found.missing.items()))
    why = miss_reasons.explain_head(project, name, points[point], folder.parent, manifest, classes)
    return StageStatus("head", name, "MISS", why.reason, samples, samples, why.seconds, differences=why.differences)


def _tuned(project: Project, name: str, manifest: Manifest, head: StageStatus) -> list[StageStatus]:
    """Of a fine-tuning: its boundary maps, and the models of its seeds."""
    spec, unhashed = project.config.finetune[name], len(project.found.unhashed)
    samples, late = len(manifest.samples) + unhashed, unhashed > 0
    try:
        boundary_rows.check_finetune(project, name)
    except Unusable as error:
        return [StageStatus("finetune", name, "BLOCKED", error.message, samples, samples)]
    tuning = finetuning.find_tuning(project, name, manifest) if head.state == "HIT" else None
    if tuning is None:
        state: State = "BLOCKED" if head.state == "BLOCKED" else "MISS"
        reason = _unhashed(unhashed) if late else f"its head {spec.head}: {head.reason}"
        model = StageStatus("finetune", name, state, reason, samples, samples, at_most=late)
    else:
        found = tuning.all_found()
        absent = [seed for seed in spec.seeds if seed not in found]
        if not absent:
            reason = "the models of all seeds are there" if len(spec.seeds) > 1 else "the very same model is there"
            return [StageStatus("finetune", name, "HIT", reason, samples, 0)]
        why = miss_reasons.explain_finetune(tuning, absent[0])
        if found:
            why = miss_reasons.Why(f"not there: seed{'s' if len(absent) > 1 else ''} {', '.join(map(str, absent))}", {})
        unfinished = [seed for seed in absent if tuning.unfinished(seed)]
        if unfinished:
            whose = f" (seed {', '.join(map(str, unfinished))})" if len(spec.seeds) > 1 else ""
            why = miss_reasons.Why(f"its training has not ended: a run goes on from its checkpoint{whose}", {})
        state = "PARTIAL" if found else "MISS"
        model = StageStatus("finetune", name, state, why.reason, samples, samples, differences=why.differences)
    plan = boundary_rows.plan_boundary(project, spec, manifest)
    if plan.mode == "full":
        return [replace(model, reason=f"{model.reason}; mode full: {plan.why}")]
    more = unhashed * len(boundary_rows.view_recipes(project, spec))
    rows, missing = plan.rows + more, plan.missing + more
    state = "HIT" if not missing else "MISS" if missing == rows else "PARTIAL"
    boundary = StageStatus(
        "extract", f"finetune/{name}", state, plan.why, rows, missing, None, plan.each * missing, late
    )
    return [boundary, model]
