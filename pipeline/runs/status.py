"""Owns previewing a run: HIT, PARTIAL, MISS or BLOCKED for each stage, and why. Not the reasons (miss_reasons.py)."""

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from cache.errors import NotAvailable, Unusable
from pipeline.project.project import Project
from pipeline.results.record_diff import Differences
from pipeline.runs import boundary_rows, extraction, finetuning, miss_reasons, rejects, sweeps, train_heads
from stages.bases.recipe import Recipe
from stages.data.manifest import Manifest
from stages.extract import throughput
from stages.targets.target import Target

State = Literal["HIT", "PARTIAL", "MISS", "BLOCKED"]

_Unknown = tuple[State, str, str]
"""State, reason and hint of a tap's extraction where its key is unknown, since the weights are not here."""


@dataclass(frozen=True)
class StageStatus:
    """What one stage would do.

    `rows` counts its different images, `missing` those to compute, which is an upper limit while files are not hashed
    (`at_most`). `seconds` and `bytes` are estimates for the missing ones, from earlier rows of the key, else from
    timing a sample; None if neither is possible. BLOCKED: the stage would raise an error; `hint` is that one's.
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
    hint: str = ""


@dataclass(frozen=True)
class Status:
    """What a run would do, stage by stage, and how many images each class has in each split.

    Both leave out `unhashed` files, whose ids are unknown, and `rejected` ones: images without a row that the last run
    rejected or, if files are read, all that cannot be decoded. `stops`: the run exits 3 because of them, before any
    head. `not_made`: fine-tunings that never ran; they do not count for `fresh`. `target`: the kind that is predicted.
    """

    stages: list[StageStatus]
    counts: dict[str, dict[str, int]]
    unhashed: int
    rejected: int
    stops: bool
    target: type[Target]
    not_made: list[str] = field(default_factory=list)

    @property
    def fresh(self) -> bool:
        return all(stage.state == "HIT" for stage in self.stages)

    def to_json(self) -> dict[str, Any]:
        return {**vars(self), "target": self.target.kind, "fresh": self.fresh}


def preview_run(project: Project, estimate: bool = True) -> Status:
    """The status of every stage of a run, and of the fine-tunings that ran before, though they run only when named.

    With `estimate`, some images are timed if there are no rows to estimate from.
    """
    made = [name for name in project.config.finetune if finetuning.was_started(project, name)]
    not_made = [name for name in project.config.finetune if name not in made]
    return replace(preview_stages(project, project.config.heads, made, estimate), not_made=not_made)


def preview_stages(project: Project, heads: Collection[str], tuned: Sequence[str], estimate: bool = True) -> Status:
    """The status of the rows, of `heads`, and of the fine-tunings `tuned` with the heads that these start from."""
    heads = dict.fromkeys([*heads, *(project.config.finetune[name].head for name in tuned)])
    unknown = _unknown_weights(project)
    manifest = project.manifest if unknown else project.manifest.without(_rejected(project))
    rejected = len(project.found.rejected) + len(project.manifest.rows) - len(manifest.rows)
    stages = [_extract(project, name, manifest, unknown.get(name)) for name in project.config.extract.taps]
    if estimate:
        stages = _estimate(project, stages, unknown)
    if project.config.cache.remote is not None:
        stages = [replace(s, hint=_and_remote(s.hint)) if s.missing else s for s in stages]
    blocked = {s.name for s in stages if s.state == "BLOCKED"}
    refused = rejected if project.config.data.on_bad == "fail" else 0
    for name in heads:
        taps = {tap for point in project.config.heads[name].points().values() for tap in point.taps}
        head = _head(project, name, manifest, refused, not taps.isdisjoint(unknown))
        if head.state == "MISS" and taps & blocked:
            head = replace(head, state="BLOCKED", reason="its rows cannot be computed")
        stages.append(head)
    by_head = {s.name: s for s in stages if s.stage == "head"}
    for name in () if unknown else tuned:
        stages += _finetune(project, name, manifest, by_head[project.config.finetune[name].head])
    counts, unhashed = project.count(manifest), len(project.found.unhashed)
    return Status(stages, counts, unhashed, rejected, refused > 0, project.target_kind)


def _and_remote(hint: str) -> str:
    """A preview does not ask the team's cache, so that it costs nothing and goes without credentials."""
    remote = "a run takes from the team's cache what that has of them, which is not asked here"
    return f"{hint}; {remote}" if hint else remote


def _unknown_weights(project: Project) -> dict[str, _Unknown]:
    """The taps whose weights are not known, and so the keys of their rows."""
    found: dict[str, _Unknown] = {}
    for tap in project.config.extract.taps:
        try:
            project.spec(tap)
        except NotAvailable as error:
            downloaded: _Unknown = ("MISS", "the weights are not here: a run downloads them first", "")
            blocked: _Unknown = ("BLOCKED", error.message, error.hint)
            choice = project.choice(tap)
            found[tap] = downloaded if choice.setting == "imagenet" else blocked
    return found


def _rejected(project: Project) -> Collection[str]:
    """Ids of images that a run would reject; if no file may be read, those without a row that the last one rejected."""
    if project.options.read_files:
        return extraction.find_rejects(project)
    before, ids = rejects.read_ids(project), project.manifest.ids
    stores = map(project.store, project.config.extract.taps) if before else ()
    return before & {image for store in stores for image in store.missing(ids)}


def _extract(project: Project, tap: str, manifest: Manifest, unknown: _Unknown | None) -> StageStatus:
    ids, unhashed = manifest.ids, len(project.found.unhashed)
    if not ids and not unhashed:
        return StageStatus("extract", tap, "BLOCKED", "no image can be read", 0, 0)
    if unknown:
        total = len(ids) + unhashed
        state, reason, hint = unknown
        return StageStatus("extract", tap, state, reason, total, total, at_most=unhashed > 0, hint=hint)
    store = project.store(tap)
    without_row = store.missing(ids)
    missing, total = len(without_row) + unhashed, len(ids) + unhashed
    if missing == 0:
        return StageStatus("extract", tap, "HIT", "all rows are there", total, 0)
    try:
        extraction.image_paths(project, manifest, without_row)
    except NotAvailable as error:
        return StageStatus("extract", tap, "BLOCKED", error.message, total, missing, hint=error.hint)
    shards = store.shard_records()
    rows = sum(record["rows"] for record in shards)
    pace = throughput.seconds_per_image(shards)
    seconds = None if pace is None else round(pace * missing, 1)
    size = sum(record["bytes"] for record in shards) // rows * missing if rows else None
    if missing < total or unhashed:
        state = "PARTIAL" if missing < total else "MISS"
        reason = _unhashed(unhashed) if unhashed else f"{missing} of {total} images have no row"
        return StageStatus("extract", tap, state, reason, total, missing, seconds, size, unhashed > 0)
    none_of_these = miss_reasons.Why("rows are there, but none of these images'", {})
    why = none_of_these if rows else miss_reasons.explain_rows(project, tap)
    return StageStatus("extract", tap, "MISS", why.reason, total, missing, seconds, size, False, why.differences)


def _estimate(project: Project, stages: list[StageStatus], unknown: Collection[str]) -> list[StageStatus]:
    """`stages` with missing estimates from timing a sample; BLOCKED if weights or taps do not fit the base."""
    by_recipe: dict[Recipe, list[str]] = defaultdict(list)
    for s in stages:
        if s.missing and s.seconds is None and s.state != "BLOCKED" and s.name not in unknown:
            by_recipe[project.spec(s.name).recipe].append(s.name)
    for names in by_recipe.values():
        stages = _timed(project, stages, names)
    return stages


def _timed(project: Project, stages: list[StageStatus], names: Collection[str]) -> list[StageStatus]:
    """`stages` with estimates for the taps `names`, which one network computes."""
    try:
        trial = extraction.time_sample(project, names)
    except NotAvailable:  # the weights are not here, and a preview downloads none
        return stages
    except Unusable as error:
        return [
            replace(s, state="BLOCKED", reason=error.message, hint=error.hint) if s.name in names else s for s in stages
        ]
    if trial is None:
        return stages

    def timed(s: StageStatus) -> StageStatus:
        seconds, size = trial.startup + trial.seconds * s.missing, trial.bytes[project.store(s.name).key] * s.missing
        return replace(s, seconds=round(seconds, 1), bytes=size)

    return [timed(s) if s.name in names else s for s in stages]


def _unhashed(n: int) -> str:
    return f"{n} files are not hashed yet (--hash makes it exact)"


def _head(project: Project, name: str, manifest: Manifest, rejected: int, unknown: bool) -> StageStatus:
    samples, unhashed = len(manifest.samples), len(project.found.unhashed)

    def status(state: State, reason: str, missing: int = samples, **more: Any) -> StageStatus:
        return StageStatus("head", name, state, reason, samples, missing, **more)

    if rejected:
        are = "image is" if rejected == 1 else "images are"
        return status("BLOCKED", f"{rejected} {are} rejected (data.on_bad: fail)")
    if unhashed:
        total = samples + unhashed
        return StageStatus("head", name, "MISS", _unhashed(unhashed), total, total, at_most=True)
    try:
        train_heads.check_leaks(project, manifest)
        target = project.find_target(manifest)
        train_heads.check_rows(project, project.config.heads[name], manifest, target)
    except Unusable as error:
        return status("BLOCKED", error.message, hint=error.hint)
    if unknown:
        return status("MISS", "its rows are not there")
    found = sweeps.find_points(project, name, manifest, target)
    total = len(found.points) + len(found.diverged) + len(found.missing)
    if found.unjudged:
        return status("PARTIAL", f"all {len(found.points)} points are there; the choice among them is to be judged", 0)
    if len(found.points) == total:
        return status("HIT", f"all {total} points are there" if total > 1 else "the very same head is there", 0)
    if len(found.diverged) == total:
        return status("BLOCKED", f"all {total} points diverged")
    lost = f", {len(found.diverged)} diverged" if found.diverged else ""
    reason = f"{len(found.points)} of {total} points are there{lost}"
    if not found.missing:
        return status("HIT", reason, 0)
    if found.points or found.diverged:
        return status("PARTIAL", reason)
    point, folder = next(iter(found.missing.items()))
    spec = project.config.heads[name].points()[point]
    why = miss_reasons.explain_head(project, name, spec, folder.parent, manifest, target)
    return status("MISS", why.reason, seconds=why.seconds, differences=why.differences)


def _finetune(project: Project, name: str, manifest: Manifest, head: StageStatus) -> list[StageStatus]:
    """The status of a fine-tuning's boundary maps, and of the models of its seeds."""
    spec, unhashed = project.config.finetune[name], len(project.found.unhashed)
    samples = len(manifest.samples) + unhashed
    try:
        boundary_rows.check_finetune(project, name)
    except (Unusable, NotAvailable) as error:
        return [StageStatus("finetune", name, "BLOCKED", error.message, samples, samples, hint=error.hint)]
    model = _finetuned_models(project, name, manifest, head)
    if model.state == "HIT":
        return [model]
    plan = boundary_rows.plan_boundary(project, spec, manifest)
    if plan.mode == "full":
        return [replace(model, reason=f"{model.reason}; mode full: {plan.why}")]
    more = unhashed * len(boundary_rows.extract_keys(project, [name]))
    rows, missing = plan.rows + more, plan.missing + more
    state: State = "HIT" if not missing else "MISS" if missing == rows else "PARTIAL"
    size = plan.each * missing
    return [StageStatus("extract", f"finetune/{name}", state, plan.why, rows, missing, None, size, unhashed > 0), model]


def _finetuned_models(project: Project, name: str, manifest: Manifest, head: StageStatus) -> StageStatus:
    spec, unhashed = project.config.finetune[name], len(project.found.unhashed)
    samples = len(manifest.samples) + unhashed
    tuning = finetuning.find_tuning(project, name, manifest) if head.state == "HIT" else None
    if tuning is None:
        state: State = "BLOCKED" if head.state == "BLOCKED" else "MISS"
        reason = _unhashed(unhashed) if unhashed else f"its head {spec.head}: {head.reason}"
        return StageStatus("finetune", name, state, reason, samples, samples, at_most=unhashed > 0)
    found = tuning.all_found()
    missing = [seed for seed in tuning.models if seed not in found]
    if not missing:
        reason = "the models of all seeds are there" if len(tuning.models) > 1 else "the very same model is there"
        return StageStatus("finetune", name, "HIT", reason, samples, 0)
    if found:
        seeds = [str(seed) for seed in missing if seed is not None]
        named = [f"seed{'s' if len(seeds) > 1 else ''} {', '.join(seeds)}"] if seeds else []
        lacking = [*named, *(["the average"] if None in missing else [])]
        why = miss_reasons.Why(f"not there: {' and '.join(lacking)}", {})
    else:
        why = miss_reasons.explain_finetune(tuning, spec.seeds[0])
    if unfinished := [str(seed) for seed in missing if tuning.unfinished(seed)]:
        which = f" (seed {', '.join(unfinished)})" if len(spec.seeds) > 1 else ""
        why = miss_reasons.Why(f"its training has not ended: a run goes on from its checkpoint{which}", {})
    state = "PARTIAL" if found else "MISS"
    return StageStatus("finetune", name, state, why.reason, samples, samples, differences=why.differences)
