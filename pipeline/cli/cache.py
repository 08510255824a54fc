"""Owns the `pipeline cache` commands: options and exit codes. Not what they do (pipeline/maintenance)."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import rich_click as click

from cache.errors import Damaged, PipelineError
from pipeline.cli.options import finish, log_to_stderr, preview_options, report_errors
from pipeline.maintenance import export_import, upkeep
from pipeline.project.project import Options, Project
from pipeline.show import cache_tables
from pipeline.show.console import ERR
from pipeline.show.progress import make_progress

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
@preview_options
def ls_command(config: Path, overrides: tuple[str, ...], as_json: bool, verbose: bool) -> None:
    """List the contents of the cache: rows, bytes, last use, the models made of them, and who needs them."""
    _do("cache ls", "contents", upkeep.list_contents, cache_tables.show_contents, config, overrides, as_json, verbose)


@group.command("verify")
@preview_options
@click.option("--subset", type=_Share(), default="100%", show_default=True, help="Share of shards to read, at random.")
def verify_command(config: Path, overrides: tuple[str, ...], as_json: bool, verbose: bool, subset: float) -> None:
    """Read shards and manifests, and compare them with their digests. Damaged ones go to quarantine; exit 1."""

    def work(project: Project) -> upkeep.Verified:
        return upkeep.verify_cache(project, subset)

    def judge(report: upkeep.Verified) -> PipelineError | None:
        return _damaged(report.damaged, "are damaged", "pipeline run extract computes their rows again")

    _do("cache verify", "verified", work, cache_tables.show_verified, config, overrides, as_json, verbose, judge)


@group.command("gc")
@preview_options
@click.option("--older-than", type=_Amount("age", _SECONDS, "30d"), metavar="AGE",
              help="Remove what is not needed and was not used for this long, e.g. 30d or 12h.")  # fmt: skip
@click.option("--max-size", type=_Amount("size", _BYTES, "10GB"), metavar="SIZE",
              help="Remove what is not needed, least recently used first, down to this size, e.g. 10GB.")  # fmt: skip
@click.option("-n", "--dry-run", is_flag=True, help="Show what would be removed; remove nothing.")
def gc_command(
    config: Path, overrides: tuple[str, ...], as_json: bool, verbose: bool,
    older_than: float | None, max_size: float | None, dry_run: bool,
) -> None:  # fmt: skip
    """Remove leftovers of killed runs that are a day old, and with the options what is not needed, by age or size.

    What a pipeline.yaml that used this cache needs, or a tagged model, or a running job, always stays.
    """
    size = None if max_size is None else int(max_size)

    def work(project: Project) -> upkeep.Tidied:
        return upkeep.collect_garbage(project, older_than, size, dry_run)

    _do("cache gc", "gc", work, cache_tables.show_gc, config, overrides, as_json, verbose)


@group.command("export")
@click.argument("folder", type=click.Path(path_type=Path))
@preview_options
def export_command(folder: Path, config: Path, overrides: tuple[str, ...], as_json: bool, verbose: bool) -> None:
    """Write pipeline.yaml, the manifest and its shards to FOLDER, to train heads there without the images."""

    def work(project: Project) -> export_import.Moved:
        return export_import.export_rows(project, folder)

    def judge(moved: export_import.Moved) -> PipelineError | None:
        return _damaged(moved.taken.refused, _LEFT_OUT, "pipeline run extract, then export again")

    _do("cache export", "moved", work, cache_tables.show_export, config, overrides, as_json, verbose, judge)


@group.command("import")
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
@preview_options
def import_command(folder: Path, config: Path, overrides: tuple[str, ...], as_json: bool, verbose: bool) -> None:
    """Copy the rows in FOLDER (an export, or a cache) into this project's cache, checking every digest.

    Where there is no pipeline.yaml yet, that of the export is written.
    """
    log_to_stderr(False, verbose)
    moved, error = report_errors(
        lambda: export_import.import_rows(folder, config, make_progress(ERR, False), overrides), verbose
    )
    if moved is not None:
        error = _damaged(moved.taken.refused, _LEFT_OUT, "export them again, or compute them")
    finish("cache import", "moved", moved, error, cache_tables.show_import, config, as_json, verbose)


def _do(
    command: str, part: str, work: Callable[[Project], T], printer: Callable[[T], None], config: Path,
    overrides: tuple[str, ...], as_json: bool, verbose: bool,
    judge: Callable[[T], PipelineError | None] = lambda report: None,
) -> NoReturn:  # fmt: skip
    """Open the project, do the work, show the result, and exit; none of these commands computes rows."""
    log_to_stderr(False, verbose)
    options, progress = Options(overrides, require_cached=True), make_progress(ERR, False)

    def checked() -> T:
        project = Project(config, options, progress)
        upkeep.check_cache_exists(project)
        return work(project)

    report, error = report_errors(checked, verbose)
    if report is not None:
        error = judge(report)
    finish(command, part, report, error, printer, config, as_json, verbose)


def _damaged(found: list[tuple[str, str]], what: str, hint: str) -> PipelineError | None:
    return Damaged(f"{len(found)} files {what}; the first: {found[0][0]}: {found[0][1]}", hint) if found else None
