"""Owns `pipeline run` and `pipeline status`: options, output, exit codes. Not the work (runs/)."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import rich_click as click

from cache.errors import Unusable
from pipeline.cli.options import log_to_stderr, preview_options, report_errors, run_options
from pipeline.config import yaml_file
from pipeline.config.schema import RunConfig
from pipeline.project.job_shares import Part
from pipeline.project.project import Options, Project
from pipeline.runs import status
from pipeline.runs.run import run_stages, select_stages
from pipeline.show.console import ERR, echo
from pipeline.show.finetune_tables import show_finetune
from pipeline.show.progress import make_progress
from pipeline.show.run_tables import show_result
from stages.data.manifest import Manifest
from stages.heads import labelled_rows
from stages.runtime.suggest import suggest

STAGES = ("extract", "head", "finetune")

STALE = 5
"""Exit code of `status -q` where a run would compute something."""


@click.command("run")
@click.argument("stage", required=False, metavar="[extract|head|finetune]")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@run_options
@click.option("--for", "purposes", multiple=True, metavar="finetune/NAME",
              help="With extract: also the boundary of that fine-tuning, in the same pass.")  # fmt: skip
@click.option("-n", "--dry-run", is_flag=True, help="Preview what would be computed, and why; keep nothing.")
@click.option("--hash", "read_files", is_flag=True, help="With -n: read new files, for exact counts.")
@click.option("--workers", type=click.IntRange(1), envvar="PIPELINE_WORKERS", show_envvar=True,
              help="Processes to extract with.")  # fmt: skip
@click.option("--scheduler", metavar="ADDRESS", envvar="PIPELINE_SCHEDULER", show_envvar=True,
              help="A running Dask scheduler to extract on, e.g. tcp://127.0.0.1:8786.")  # fmt: skip
@click.option("--part", metavar="I/N",
              help="With extract: only part I of N, from 1 to N; for job arrays.")  # fmt: skip
@click.option("--require-cached", is_flag=True, help="Exit 4 instead of computing a missing row.")
@click.option("-q", "--quiet", is_flag=True, help="No progress, only errors on stderr.")
def run_command(
    stage: str | None, names: tuple[str, ...], config: Path, overrides: tuple[str, ...], purposes: tuple[str, ...],
    dry_run: bool, read_files: bool, workers: int | None, scheduler: str | None, part: str | None,
    require_cached: bool, offline: bool, as_json: bool, quiet: bool, verbose: bool,
) -> None:  # fmt: skip
    """Extract features, then train the heads on them; only new or changed inputs are computed.

    `run extract` stops after the features. `run head NAME...` trains these heads (default: all), after
    extracting what they lack. `run finetune NAME...` trains the last blocks of the base too, as
    set under finetune: in pipeline.yaml (default: all); plain `run` does not fine-tune.
    """
    if stage not in (None, *STAGES):
        raise click.UsageError(f"{stage!r} is no stage; expected {', '.join(STAGES)}. {_suggest_run(config, stage)}")
    if names and stage not in ("head", "finetune"):
        raise click.UsageError(f"`run {stage}` takes no names; got {names[0]!r}")
    if purposes and stage != "extract":
        raise click.UsageError("--for goes with `run extract`")
    if wrong := [purpose for purpose in purposes if not purpose.startswith("finetune/")]:
        raise click.UsageError(f"--for {wrong[0]}: expected finetune/NAME")
    if part is not None and stage != "extract":
        raise click.UsageError("--part goes with `run extract`: heads need the rows of all parts")
    if part is not None and dry_run:
        raise click.UsageError("--part and -n cannot be combined: -n previews all images")
    log_to_stderr(quiet, verbose)
    result: dict[str, Any] = {}
    options = Options(overrides, workers, scheduler, require_cached, offline or dry_run, read_files or not dry_run)
    progress = make_progress(ERR, quiet)

    def work() -> None:
        share = None if part is None else Part.parse(part)
        project = Project(config, replace(options, part=share), progress)
        wanted = select_stages(project, stage, names)
        if dry_run:
            result["status"] = status.preview_stage(project, stage, names)
        else:
            also_for = [purpose.removeprefix("finetune/") for purpose in purposes]
            if wanted["head"] and project.manifest.rows and not project.manifest.counts():
                labelled_rows.check_classes(project.manifest, None)  # raises, before extraction takes hours
            manifest = run_stages(project, wanted["head"], result, wanted["finetune"], also_for, note)
            if stage is None and not wanted["head"]:
                _check_nothing_to_train(manifest, note)

    def note(text: str) -> None:
        if not quiet:
            echo(text, ERR)

    _, error = report_errors(work, verbose)
    show_result(f"run {stage}" if stage else "run", result, error, as_json, config, verbose, quiet)
    if not as_json:
        show_finetune(result.get("finetune", {}))
    sys.exit(error.exit_code if error else 0)


def _check_nothing_to_train(manifest: Manifest, note: Callable[[str], object]) -> None:
    """Raises Unusable where pipeline.yaml has no heads though there are classes."""
    counts = manifest.counts()
    if len(counts) > 1:
        raise Unusable(
            f"no head was trained: heads is empty in pipeline.yaml, though the images have {len(counts)} classes",
            "put heads: {logistic: {}} in its place; for features alone: pipeline run extract",
        )
    note("no head was trained: heads is empty in pipeline.yaml, and there are no two classes")


def _suggest_run(config: Path, name: str) -> str:
    """The command that runs what pipeline.yaml, if it can be read, calls `name`, or nearly so."""
    try:
        settings = yaml_file.load(config)
    except Unusable:
        settings = RunConfig()
    known = {**dict.fromkeys(settings.finetune, "finetune"), **dict.fromkeys(settings.heads, "head")}
    near = suggest(name, known)
    return f"Did you mean: pipeline run {known[near[0]]} {near[0]}" if near else "Names follow the stage: run head NAME"


@click.command("status")
@preview_options
@click.option("--hash", "read_files", is_flag=True, help="Read new files, for exact counts.")
@click.option("-q", "--quiet", is_flag=True, help="Print nothing; exit 0 if all is fresh, 5 if not.")
def status_command(
    config: Path, overrides: tuple[str, ...], as_json: bool, read_files: bool, quiet: bool,
    verbose: bool,
) -> None:  # fmt: skip
    """Show for each stage what a run would compute, and why. With -v, what differs from the nearest entry.

    Fine-tunings that ran before are included, and count for -q.

    New or touched files count as missing (`at most`) unless --hash reads them. Where no cached rows give the time per
    image, 16 images are timed.
    """
    log_to_stderr(quiet, verbose)
    result: dict[str, Any] = {}
    options, progress = Options(overrides, offline=True, read_files=read_files), make_progress(ERR, quiet)
    found, error = report_errors(
        lambda: status.preview_run(Project(config, options, progress), estimate=not quiet), verbose
    )
    if found is not None and quiet:
        sys.exit(0 if found.fresh else STALE)
    if found is not None:
        result["status"] = found
    show_result("status", result, error, as_json, config, verbose)
    sys.exit(error.exit_code if error else 0)
