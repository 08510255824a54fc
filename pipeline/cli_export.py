"""Owns the `pipeline export` commands: options, and what is printed. What they write is exporting.py's."""

from __future__ import annotations

from pathlib import Path

import rich_click as click
from rich.filesize import decimal

from pipeline import exporting
from pipeline.command import finish, guarded, log_to_stderr, shared
from pipeline.exporting import FORMATS, Written
from pipeline.graph import Options, Project
from pipeline.progress import reporter
from pipeline.registry import SHORT
from pipeline.show import ERR, say
from stages.manifest import SPLITS


@click.group("export")
def export() -> None:
    """Write results as files for other programs."""


@export.command("features")
@shared
@click.option("--format", "kind", type=click.Choice(list(FORMATS)), required=True, help="The kind of file.")
@click.option("--output", type=click.Path(path_type=Path), required=True, metavar="FILE", help="The file to write.")
@click.option("--tap", default="pooled", show_default=True, metavar="NAME", help="The tap to take.")
@click.option("--split", type=click.Choice(SPLITS), help="Images of one split only.  [default: all]")
@click.option("--force", is_flag=True, help="Replace FILE if it is there.")
@click.option("-q", "--quiet", is_flag=True, help="No progress, only errors on stderr.")
def features_command(
    config: Path, overrides: tuple[str, ...], offline: bool, as_json: bool, verbose: bool, kind: str, output: Path,
    tap: str, split: str | None, force: bool, quiet: bool,
) -> None:  # fmt: skip
    """Write ids, labels, splits, groups, paths and features to one file, a row for each image.

    Rows that are missing are computed first. The file is published whole or not at all.
    """
    log_to_stderr(quiet, verbose)

    def work() -> Written:
        project = Project(config, Options(overrides, offline=offline), reporter(ERR, quiet))
        return exporting.export(project, kind, output, tap, split, force)

    written, error = guarded(work, verbose)
    finish("export features", "written", written, error, _say, config, as_json, verbose)


def _say(written: Written) -> None:
    shape = " x ".join(f"{n:,}" for n in written.shape)
    say(f"wrote {written.file}: {shape} {written.dtype}, {decimal(written.bytes)}")
    say(f"  tap {written.tap}, extract key {written.key[:SHORT]}")
