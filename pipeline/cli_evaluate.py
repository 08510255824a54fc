"""Owns the commands that judge models: compare. The rest of the command line is in cli.py."""

from __future__ import annotations

from pathlib import Path

import rich_click as click

from pipeline import compare, show_evaluate
from pipeline.command import finish, guarded, log_to_stderr, shared
from pipeline.graph import Options
from pipeline.progress import reporter
from pipeline.show import ERR


@click.command("compare")
@click.argument("a")
@click.argument("b")
@shared
def compare_command(
    a: str, b: str, config: Path, overrides: tuple[str, ...], offline: bool, as_json: bool, verbose: bool
) -> None:
    """Say whether model B is better than model A, on images that neither was fitted or chosen on.

    Today's images and labels count, and rows that are in the cache; the models may stand on different bases and sizes.
    A and B are head/NAME (the latest of that name), tags, or the first digits of keys.
    """
    log_to_stderr(not verbose, verbose)
    options = Options(overrides, offline=offline)
    found, error = guarded(lambda: compare.compare(config, options, reporter(ERR, as_json), a, b), verbose)
    finish("compare", "compare", found, error, show_evaluate.show_comparison, config, as_json, verbose)


COMMANDS = (compare_command,)
