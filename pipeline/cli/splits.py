"""Owns `pipeline splits redraw`: options, output, exit codes. Not the draw, nor the file (project/split_record.py)."""

import rich_click as click

from pipeline.cli.options import Call, shared_options
from pipeline.project.project import Options, Project
from pipeline.project.split_record import Redrawn
from pipeline.show.console import echo
from pipeline.show.run_tables import show_counts


@click.group("splits")
def group() -> None:
    """Draw again which images are for training, validation and test."""


@group.command("redraw")
@shared_options()
def redraw_command(call: Call) -> None:
    """Draw all splits anew by data.split, and write splits.csv; lines that you edited are drawn again too.

    Models and rows stay; the next run trains heads on the new splits.
    """
    call.finish(lambda: Project(call.config, Options(), call.progress).redraw_splits(), _show, "splits")


def _show(done: Redrawn) -> None:
    show_counts(done.counts, done.target)
    echo(f"\nwrote {done.path}: {done.images:,} images, {done.moved:,} of them in another split than before")
