"""Owns the `pipeline cache` commands: options and exit codes. Not what they do (pipeline/maintenance)."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import rich_click as click

from cache.errors import Damaged, PipelineError
from pipeline.cli.options import Call, shared_options
from pipeline.maintenance import compact, export_import, team_cache, upkeep
from pipeline.maintenance.recompute import recompute_rows
from pipeline.maintenance.team_cache import Exchanged
from pipeline.project.project import Project
from pipeline.show import cache_tables

T = TypeVar("T")

_SECONDS = {"h": 3600, "d": 86_400, "w": 604_800}
_LEFT_OUT = "are damaged, and were left out"
_BYTES = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}


class _Amount(click.ParamType):
    """A number and a unit, such as 30d or 10GB."""

    def __init__(self, name: str, units: dict[str, int], example: str) -> None:
        self.name, self.units, self.example = name, units, example

    def convert(self, value: Any, param: Any, context: Any) -> float:
        match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)", str(value))
        units = {unit.lower(): size for unit, size in self.units.items()}
        if match is None or match[2].lower() not in units:
            self.fail(f"{value!r}: expected a number and one of {', '.join(filter(None, self.units))}: {self.example}")
        return float(match[1]) * units[match[2].lower()]


class _Share(click.ParamType):
    name = "percent"

    def convert(self, value: Any, param: Any, context: Any) -> float:
        match = re.fullmatch(r"(\d+(?:\.\d+)?)%", str(value))
        if match is None or not 0 < float(match[1]) <= 100:
            self.fail(f"{value!r}: expected a percentage, such as 10%")
        return float(match[1]) / 100


@click.group("cache")
def group() -> None:
    """List, verify, shrink and compact the cache; copy rows to and from other machines, and a team's cache."""


@group.command("ls")
@shared_options("set")
@click.option("--remote", is_flag=True, help="List the team's cache (cache.remote) instead.")
def ls_command(call: Call, remote: bool) -> None:
    """List the contents of the cache: rows, bytes, last use, the models made of them, and who needs them."""
    if remote:
        call.finish(_on_project(call, team_cache.list_remote), cache_tables.show_remote, "contents")
    call.finish(_with_cache(call, upkeep.list_contents), cache_tables.show_contents, "contents")


@group.command("verify")
@shared_options("set")
@click.option("--subset", type=_Share(), default="100%", show_default=True, help="Share of shards to read, at random.")
@click.option("--recompute", type=click.IntRange(1), metavar="N",
              help="Also compute the rows of N images again, drawn at random, and compare.")  # fmt: skip
def verify_command(call: Call, subset: float, recompute: int | None) -> None:
    """Read shards and manifests, and compare them with their digests. Damaged ones go to quarantine; exit 1.

    A digest proves a row's bytes, not that it was computed from its image; --recompute tries that.
    """

    def work(project: Project) -> upkeep.Verified:
        report = upkeep.verify_cache(project, subset)
        if recompute is not None:
            able = Project(call.config, call.options, call.progress)  # others here compute nothing
            report.recomputed = recompute_rows(able, recompute)
        return report

    def check(report: upkeep.Verified) -> None:
        _check_damaged(report.damaged, "are damaged", "pipeline run extract computes their rows again")
        if report.recomputed is not None:
            report.recomputed.check()

    call.finish(_with_cache(call, work), cache_tables.show_verified, "verified", check)


@group.command("gc")
@shared_options("set")
@click.option("--older-than", type=_Amount("age", _SECONDS, "30d"), metavar="AGE",
              help="Remove what is not needed and was not used for this long, e.g. 30d or 12h.")  # fmt: skip
@click.option("--max-size", type=_Amount("size", _BYTES, "10GB"), metavar="SIZE",
              help="Remove what is not needed, least recently used first, down to this size, e.g. 10GB.")  # fmt: skip
@click.option("-n", "--dry-run", is_flag=True, help="Show what would be removed; remove nothing.")
@click.option("--remote", is_flag=True,
              help="Of the team's cache, with --older-than: show what was last pushed so long ago.")  # fmt: skip
@click.option("--yes", is_flag=True, help="With --remote: remove it.")
def gc_command(
    call: Call, older_than: float | None, max_size: float | None, dry_run: bool, remote: bool, yes: bool
) -> None:
    """Remove leftovers of killed runs that are a day old, and with the options what is not needed, by age or size.

    What a pipeline.yaml that used this cache needs, or a tagged model, or a running job, always stays.
    """
    if yes and not remote:
        raise click.UsageError("--yes goes with --remote")
    if remote:
        if older_than is None or max_size is not None:
            raise click.UsageError("--remote goes by age alone: --older-than AGE")
        age, dry = older_than, dry_run or not yes
        call.finish(
            _on_project(call, lambda project: team_cache.collect_remote(project, age, dry)),
            cache_tables.show_remote_gc, "gc",
        )  # fmt: skip
    size = None if max_size is None else int(max_size)

    def work(project: Project) -> upkeep.Tidied:
        return upkeep.collect_garbage(project, older_than, size, dry_run)

    call.finish(_with_cache(call, work), cache_tables.show_gc, "gc")


@group.command("compact")
@shared_options("set")
@click.option("-n", "--dry-run", is_flag=True, help="Show what would be merged; change nothing.")
def compact_command(call: Call, dry_run: bool) -> None:
    """Merge the small shards that many small runs leave, so that they are read as fast as large ones.

    Rows stay as they are to the last bit. It may run beside others: keys of a running job are left alone, and the old
    files stay for a day, for who is reading them; gc removes them then.
    """

    def work(project: Project) -> compact.Compaction:
        return compact.compact_cache(project, dry_run)

    call.finish(_with_cache(call, work), cache_tables.show_compaction, "compacted")


@group.command("export")
@click.argument("folder", type=click.Path(path_type=Path))
@shared_options("set")
def export_command(call: Call, folder: Path) -> None:
    """Write pipeline.yaml, the manifest and its shards to FOLDER, to train heads there without the images."""

    def work(project: Project) -> export_import.Moved:
        return export_import.export_rows(project, folder)

    def check(moved: export_import.Moved) -> None:
        _check_damaged(moved.taken.refused, _LEFT_OUT, "pipeline run extract, then export again")

    call.finish(_with_cache(call, work), cache_tables.show_export, "moved", check)


@group.command("import")
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
@shared_options("set")
def import_command(call: Call, folder: Path) -> None:
    """Copy the rows in FOLDER (an export, or a cache) into this project's cache, checking every digest.

    Where there is no pipeline.yaml yet, that of the export is written.
    """

    def work() -> export_import.Moved:
        return export_import.import_rows(folder, call.config, call.progress, call.overrides)

    def check(moved: export_import.Moved) -> None:
        _check_damaged(moved.taken.refused, _LEFT_OUT, "export them again, or compute them")

    call.finish(work, cache_tables.show_import, "moved", check)


@group.command("pull")
@shared_options("set", "quiet")
@click.option("--manifest", metavar="DIGEST",
              help="Take a manifest that was pushed, and its images' rows; its first digits are enough.")  # fmt: skip
def pull_command(call: Call, manifest: str | None) -> None:
    """Copy the rows that this project lacks from the team's cache (cache.remote in pipeline.yaml), checking each.

    A run does so by itself before it computes.
    """

    def work(project: Project) -> Exchanged:
        return team_cache.pull_rows(project, manifest)

    call.finish(_on_project(call, work), cache_tables.show_pull, "exchanged")


@group.command("push")
@shared_options("set", "quiet")
def push_command(call: Call) -> None:
    """Copy this project's rows and its manifest to the team's cache, where cache.remote.mode is read-write.

    A run pushes what it computes by itself.
    """

    def check(done: Exchanged) -> None:
        pushed = done.traffic.pushed
        if pushed.error is not None:
            raise type(pushed.error)(pushed.lost, pushed.error.hint)
        if pushed.lost:
            raise PipelineError(pushed.lost, "pipeline cache verify, then pipeline run extract, then push again")

    call.finish(_with_cache(call, team_cache.push_rows), cache_tables.show_push, "exchanged", check)


def _on_project(call: Call, work: Callable[[Project], T]) -> Callable[[], T]:
    """The work on the project; none of these commands computes rows."""
    return lambda: work(Project(call.config, replace(call.options, require_cached=True), call.progress))


def _with_cache(call: Call, work: Callable[[Project], T]) -> Callable[[], T]:
    """The same, and its cache must exist."""

    def checked(project: Project) -> T:
        upkeep.check_cache_exists(project)
        return work(project)

    return _on_project(call, checked)


def _check_damaged(found: list[tuple[str, str]], what: str, hint: str) -> None:
    if found:
        raise Damaged(f"{len(found)} files {what}; the first: {found[0][0]}: {found[0][1]}", hint)
