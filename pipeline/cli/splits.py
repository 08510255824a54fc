"""Owns `pipeline splits redraw`: options, output, exit codes. Not the draw, nor the file (project/split_record.py)."""

from __future__ import annotations

from pathlib import Path

import rich_click as click

from pipeline.cli.options import finish, log_to_stderr, report_errors, results_options
from pipeline.project.project import Options, Project
from pipeline.project.split_record import Redrawn
from pipeline.show.console import ERR, echo
from pipeline.show.progress import make_progress
from pipeline.show.run_tables import show_counts


@click.group("splits")
def group() -> None:
    """Draw again which images are for training, validation and test."""


@group.command("redraw")
@results_options
def redraw_command(config: Path, as_json: bool, verbose: bool) -> None:
    """Draw all splits anew by data.split, and write splits.csv; lines that you edited are drawn again too.

    Models and rows stay; the next run trains heads on the new splits.
    """
    log_to_stderr(False, verbose)
    report, error = report_errors(
        lambda: Project(config, Options(), make_progress(ERR, False)).redraw_splits(), verbose
    )
    finish("splits redraw", "splits", report, error, _show, config, as_json, verbose)


def _show(done: Redrawn) -> None:
    show_counts(done.counts)
    echo(f"\nwrote {done.path}: {done.images:,} images, {done.moved:,} of them in another split than before")
