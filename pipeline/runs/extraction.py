"""Owns the extraction of a project: which rows are missing, having them computed. Not the tasks (stages/extract)."""

import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from cache.errors import NotAvailable
from cache.hash_index import HashIndex
from pipeline.project import remote_rows
from pipeline.project.job_shares import Part
from pipeline.project.project import Project
from pipeline.project.remote_rows import Traffic
from stages.bases import trust
from stages.bases.recipe import FeatureSpec, Recipe, Specs
from stages.data.images import ImageRejected
from stages.data.manifest import Manifest
from stages.data.scan import Reject
from stages.engines import parity
from stages.extract import prefetch, schedule, throughput
from stages.extract.opened_bases import Job
from stages.extract.shard_task import Receipt
from stages.extract.throughput import Trial
from stages.sources import places

COMPUTE_FIRST = "compute them first: pipeline run extract"


@dataclass
class ExtractReport:
    """What `run extract` did. `images` counts files, `unique` their different contents, of its part if it had one.

    remote: what went to and from the team's cache; None without one.
    """

    keys: dict[str, str]
    images: int = 0
    unique: int = 0
    computed: int = 0
    reused: int = 0
    ignored: int = 0
    rejected: list[Reject] = field(default_factory=list)
    seconds: float = 0.0
    images_per_second: float | None = None
    engine: str | None = None
    manifest: str | None = None
    part: Part | None = None
    remote: Traffic | None = None

    def to_json(self) -> dict[str, Any]:
        return {**vars(self), "rejected": [reject._asdict() for reject in self.rejected]}


def run_extraction(project: Project, more: Mapping[str, FeatureSpec]) -> tuple[ExtractReport, Manifest]:
    """Compute missing rows of the taps of pipeline.yaml and of `more`, in one pass; only of its part, if it has one.

    Returns what was done, and the manifest of the images that have all their rows. With parts, the last part to finish
    saves the manifest of all. Raises NotAvailable if rows are missing that must not, or cannot, be computed.
    """
    part, manifest, unreadable = project.options.part, project.manifest, project.found.rejected
    if part is not None:
        manifest = part.share(manifest)
        unreadable = unreadable if part.number == 1 else []  # they have no id, so part 1 lists them
    specs = {**project.specs, **more}
    keys = {name: spec.key for name, spec in specs.items()}
    report = ExtractReport(keys, part=part, remote=remote_rows.begin(project))
    started = time.perf_counter()
    receipt = fill_rows(project, manifest, specs.values(), report.remote)
    if receipt.rows:
        report.seconds = round(time.perf_counter() - started, 3)
        report.images_per_second = round(receipt.rows / report.seconds, 1)
    reasons = dict(receipt.rejected)
    report.rejected = unreadable + [Reject(r.path, reasons[r.id]) for r in manifest.rows if r.id in reasons]
    report.images = len(manifest.rows) + len(unreadable)
    report.unique, report.ignored = len(manifest.ids), project.found.ignored.total()
    report.computed, report.engine = receipt.rows, receipt.engine
    report.reused = report.unique - report.computed - len(reasons)
    good = manifest.without(reasons)
    complete = good if part is None else _of_all_parts(project, specs.values(), reasons)
    if complete.rows and (not report.rejected or project.config.data.on_bad == "skip"):
        report.manifest = project.save_manifest(complete)
    return report, good


def _of_all_parts(project: Project, specs: Iterable[FeatureSpec], rejected: Collection[str]) -> Manifest:
    """The images of all parts that have all their rows; empty while another part has rows to compute."""
    others, wanted = project.manifest.without(rejected), _by_key(specs)
    missing = schedule.find_missing(project.cache, wanted, others.ids)
    if project.config.data.on_bad == "fail" and (missing or project.found.rejected):
        return Manifest(())
    with suppress(NotAvailable):  # the files may be on the host of that part only
        if schedule.all_rejects(wanted, image_paths(project, others, missing)) is not None:
            return others.without(missing)
    return Manifest(())


def find_rejects(project: Project) -> dict[str, str]:
    """id -> reason of images that a run would reject; decodes all that miss a row, if their files exist."""
    specs = _by_key(project.specs.values())
    missing = schedule.find_missing(project.cache, specs, project.manifest.ids)
    try:
        found = image_paths(project, project.manifest, missing)
    except NotAvailable:
        return {}
    with project.progress("decoding", len(found)) as advance:
        return schedule.find_rejects(specs, found, advance)


def fill_rows(
    project: Project, manifest: Manifest, specs: Iterable[FeatureSpec], traffic: Traffic | None = None
) -> Receipt:
    """Take the rows of those specs that the images of `manifest` miss from the team's cache, and compute the others.

    `traffic` counts what goes to and from the team's cache.
    """
    wanted, traffic = _by_key(specs), traffic or remote_rows.begin(project)
    missing = schedule.find_missing(project.cache, wanted, manifest.ids)
    rejected = None
    if missing and traffic is not None:
        rejected = _rejects_here(project, manifest, wanted, missing)
        if rejected is None:
            remote_rows.pull_missing(project, wanted, missing, traffic)
            missing = schedule.find_missing(project.cache, wanted, manifest.ids)
    for spec in wanted.values():
        project.rows_of(spec).note_use()
    if rejected is not None:
        return Receipt(rejected=rejected)
    return compute_rows(project, manifest, wanted, missing, traffic) if missing else Receipt()


def _rejects_here(
    project: Project, manifest: Manifest, specs: Specs, missing: Iterable[str]
) -> list[tuple[str, str]] | None:
    """(id, reason) of the images that miss rows if all have their bytes here and none can be decoded; else None."""
    with suppress(NotAvailable, ImageRejected):
        found = image_paths(project, manifest, missing)
        rejected = schedule.all_rejects(specs, found)
        if rejected is not None and project.config.data.table is not None:  # the bytes of a trusted id may be elsewhere
            for image, paths in found.items():
                prefetch.read_bytes(image, paths, [])
        return rejected
    return None


def _by_key(specs: Iterable[FeatureSpec]) -> dict[str, FeatureSpec]:
    return {spec.key: spec for spec in specs}


def time_sample(project: Project, names: Iterable[str]) -> Trial | None:
    """Time some images at the taps `names`, which have one recipe; None if none can be decoded. Stores nothing."""
    found, source = project.found, project.source
    rows = [*found.rows, *found.unhashed]
    some = [row.path for row in rows[:: max(1, len(rows) // throughput.IMAGES)]][: throughput.IMAGES]
    digests = source.digests(some, HashIndex())  # not the project's, which a preview leaves as it is
    images = [(digest, [source.place(path)]) for path, digest in digests.items() if isinstance(digest, str)]
    ((recipe, taps),) = schedule.by_recipe(_by_key(map(project.spec, names))).items()
    with project.progress(f"timing {len(images)} images", None):
        return throughput.time_images(make_job(project, recipe, offline=True), taps, images)


def make_job(project: Project, recipe: Recipe, offline: bool) -> Job:
    """What all tasks that compute rows of that recipe share. Raises NotAvailable if the weights cannot be had."""
    file = project.weight_file(recipe, offline)
    settings, root = project.config.extract, str(project.cache.root.absolute())
    batch = None if settings.batch == "auto" else settings.batch
    known = project.known_weights.items()
    said = any(choice.base.trusted for choice, found in known if found.sha256 == recipe.weights_sha256)
    trusted = said or trust.is_trusted(recipe.weights_sha256)
    return Job(recipe, str(file), root, batch, project.version, settings.engine, trusted=trusted)


def compute_rows(
    project: Project, manifest: Manifest, specs: Specs, missing: Mapping[str, Sequence[str]],
    traffic: Traffic | None = None,
) -> Receipt:  # fmt: skip
    """Compute the rows that `schedule.find_missing` returned, from the files that `manifest` names.

    With `traffic`, they are pushed to the team's cache as tasks end, if that may be written to; what others push
    meanwhile is taken.
    """
    found = image_paths(project, manifest, missing)
    rejected = schedule.all_rejects(specs, found)
    if rejected is not None:
        return Receipt(rejected=rejected)
    if project.options.require_cached:
        raise NotAvailable(
            f"{len(missing)} of {len(manifest.ids)} images have no feature row, and computing rows is not allowed here",
            COMPUTE_FIRST,
        )
    wanted = {key: specs[key] for key in dict.fromkeys(key for keys in missing.values() for key in keys)}
    jobs = []
    for recipe, taps in schedule.by_recipe(wanted).items():
        job, place = make_job(project, recipe, project.options.offline), project.source.place
        references = parity.choose_references(project.cache, recipe, taps, manifest.rows, place, missing)
        jobs.append((replace(job, references=references), taps))
    rows = project.config.extract.shard_rows
    work = schedule.Work(jobs, missing, found, None if rows == "auto" else rows)
    try:
        with (
            remote_rows.exchanging(project, specs, traffic) as exchange,
            project.progress("extracting", len(missing)) as advance,
        ):
            receipt = schedule.compute_missing(project.cache, work, project.cluster, advance, exchange)
    except KeyboardInterrupt as stop:
        left = schedule.find_missing(project.cache, wanted, list(missing))
        stop.args = (f"{len(missing) - len(left):,} of {len(missing):,} new rows are kept",)
        raise
    if exchange is not None and exchange.distant:
        good = [image for image in missing if image not in dict(receipt.rejected)]
        if left := schedule.find_missing(project.cache, wanted, good):
            remote_rows.pull_missing(project, wanted, left, exchange.done)
    return receipt


def image_paths(project: Project, manifest: Manifest, ids: Iterable[str]) -> dict[str, list[str]]:
    """Places of each id. Raises NotAvailable if none of the files exists that a table names for an id."""
    found = named_paths(project, manifest, ids)
    if project.config.data.table is not None:  # its ids are trusted, so its files may not exist
        there = {row.id for row in manifest.rows if row.id in found and project.source.has(row.path)}
        if no_file := [paths[0] for image, paths in found.items() if image not in there]:
            raise NotAvailable(
                f"{len(no_file)} of {len(manifest.ids)} images have neither a row nor a file; the first: "
                f"{places.text_of(no_file[0])}",
                "correct data.root, or bring their rows: pipeline cache import, or pull (other settings, other rows)",
            )
    return found


def named_paths(project: Project, manifest: Manifest, ids: Iterable[str]) -> dict[str, list[str]]:
    """Places of each id, whether there are such files or not."""
    found: dict[str, list[str]] = {image: [] for image in ids}
    for row in manifest.rows:
        if row.id in found:
            found[row.id].append(project.source.place(row.path))
    return found
