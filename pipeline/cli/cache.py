"""Owns the `pipeline cache` commands: options and exit codes. Not what they do (pipeline/maintenance)."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import rich_click as click

from cache.errors import Damaged
from pipeline.cli.options import Call, shared_options
from pipeline.maintenance import export_import, upkeep
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
    """List, verify and shrink the cache; copy rows to and from other machines."""


@group.command("ls")
@shared_options("set")
def ls_command(call: Call) -> None:
    """List the contents of the cache: rows, bytes, last use, the models made of them, and who needs them."""
    call.finish(_with_cache(call, upkeep.list_contents), cache_tables.show_contents, "contents")


@group.command("verify")
@shared_options("set")
@click.option("--subset", type=_Share(), default="100%", show_default=True, help="Share of shards to read, at random.")
def verify_command(call: Call, subset: float) -> None:
    """Read shards and manifests, and compare them with their digests. Damaged ones go to quarantine; exit 1."""

    def work(project: Project) -> upkeep.Verified:
        return upkeep.verify_cache(project, subset)

    def check(report: upkeep.Verified) -> None:
        _check_damaged(report.damaged, "are damaged", "pipeline run extract computes their rows again")

    call.finish(_with_cache(call, work), cache_tables.show_verified, "verified", check)


@group.command("gc")
@shared_options("set")
@click.option("--older-than", type=_Amount("age", _SECONDS, "30d"), metavar="AGE",
              help="Remove what is not needed and was not used for this long, e.g. 30d or 12h.")  # fmt: skip
@click.option("--max-size", type=_Amount("size", _BYTES, "10GB"), metavar="SIZE",
              help="Remove what is not needed, least recently used first, down to this size, e.g. 10GB.")  # fmt: skip
@click.option("-n", "--dry-run", is_flag=True, help="Show what would be removed; remove nothing.")
def gc_command(call: Call, older_than: float | None, max_size: float | None, dry_run: bool) -> None:
    """Remove leftovers of killed runs that are a day old, and with the options what is not needed, by age or size.

    What a pipeline.yaml that used this cache needs, or a tagged model, or a running job, always stays.
    """
    size = None if max_size is None else int(max_size)

    def work(project: Project) -> upkeep.Tidied:
        return upkeep.collect_garbage(project, older_than, size, dry_run)

    call.finish(_with_cache(call, work), cache_tables.show_gc, "gc")


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


def _with_cache(call: Call, work: Callable[[Project], T]) -> Callable[[], T]:
    """The work on the project and its cache, which must exist; none of these commands computes rows."""

    def checked() -> T:
        project = Project(call.config, replace(call.options, require_cached=True), call.progress)
        upkeep.check_cache_exists(project)
        return work(project)

    return checked


def _check_damaged(found: list[tuple[str, str]], what: str, hint: str) -> None:
    if found:
        raise Damaged(f"{len(found)} files {what}; the first: {found[0][0]}: {found[0][1]}", hint)
