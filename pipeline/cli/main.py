"""Owns init, run and status, and the list of all commands: options, output, exit codes. Not the work."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import rich_click as click

from pipeline.cli import bases, cache, evaluate, export, models, predict
from pipeline.cli.options import log_to_stderr, preview_options, report_errors, run_options
from pipeline.config import init_project
from pipeline.project.job_shares import Part
from pipeline.project.project import Options, Project
from pipeline.runs import status
from pipeline.runs.run import check_trained, run_stages, select_stages
from pipeline.show.console import ERR, echo, format_config_option, show_error
from pipeline.show.finetune_tables import show_finetune
from pipeline.show.progress import make_progress
from pipeline.show.run_tables import show_result

STALE = 5
"""Exit code of `status -q` where a run would compute something."""


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="frozenbase", prog_name="pipeline")
def main() -> None:
    """Extract features of images with a frozen base once, cache them, and train heads on them in seconds."""


@main.command("init")
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False), default=".")
@click.option("--images", type=click.Path(path_type=Path), help="The folder of the images.  [default: FOLDER/images]")
@click.option("--demo", is_flag=True, help="Copy the demo dataset: 2,624 images of solar cells.")
def init_command(folder: Path, images: Path | None, demo: bool) -> None:
    """Look at the images, and write a commented pipeline.yaml to FOLDER (default: here)."""
    if demo and images is not None:
        raise click.UsageError("--demo brings its own images; leave --images out")
    started, error = report_errors(
        lambda: init_project.init_demo(folder) if demo else init_project.init(folder, images)
    )
    if started is None:
        assert error is not None
        show_error(error)
        sys.exit(error.exit_code)
    for line in started.lines():
        echo(line)
    if demo:
        echo(init_project.DEMO_LICENCE)
    echo(f"wrote {started.config}; next: pipeline run{format_config_option(started.config)}")


@main.command("run")
@click.argument("stage", type=click.Choice(["extract", "head", "finetune"]), required=False)
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
            run_stages(project, wanted["head"], result, wanted["finetune"], also_for, note)
            if stage is None:
                check_trained(project)

    def note(text: str) -> None:
        if not quiet:
            echo(text, ERR)

    _, error = report_errors(work, verbose)
    show_result(f"run {stage}" if stage else "run", result, error, as_json, config, verbose, quiet)
    if not as_json:
        show_finetune(result.get("finetune", {}))
    sys.exit(error.exit_code if error else 0)


@main.command("status")
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


for command in (
    *models.COMMANDS,
    *evaluate.COMMANDS,
    bases.bases_command,
    predict.predict_command,
    cache.group,
    export.export,
):
    main.add_command(command)
