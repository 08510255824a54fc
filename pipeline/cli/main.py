"""Owns init, run and status, and the list of all commands: options, what is printed, exit codes. No work is done."""

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
from pipeline.runs.run import run_stages, select_stages
from pipeline.show.console import ERR, echo, format_config_option, show_error, show_result
from pipeline.show.finetune_tables import show_finetune
from pipeline.show.progress import make_progress

STALE = 5
"""Exit code of `status -q` where something is not fresh."""


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="frozenbase", prog_name="pipeline")
def main() -> None:
    """Run a frozen base over images once, keep what it says, and train heads on that in seconds."""


@main.command("init")
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False), default=".")
@click.option("--images", type=click.Path(path_type=Path), help="The folder of the images.  [default: FOLDER/images]")
@click.option("--demo", is_flag=True, help="Lay out the demo dataset: 2,624 images of solar cells.")
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
@click.option("-n", "--dry-run", is_flag=True, help="Say what would be computed, and why; keep nothing.")
@click.option("--hash", "read_files", is_flag=True, help="With -n: read the files that are new, to be exact.")
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
    """Extract features, then train the heads on them; what is unchanged is not computed again.

    `run extract` stops after the features. `run head NAME...` trains the heads of those names (default: all); their
    rows are computed first where they are missing. `run finetune NAME...` trains the last blocks of the base too, as
    finetune: in pipeline.yaml says (default: all there); it runs only when it is named.
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
        raise click.UsageError("--part and -n don't go together; -n tells of all images")
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
            also = [purpose.removeprefix("finetune/") for purpose in purposes]
            run_stages(project, wanted["head"], result, wanted["finetune"], also, tell)

    def tell(text: str) -> None:
        if not quiet:
            echo(text, ERR)

    _, error = report_errors(work, verbose)
    show_result(f"run {stage}" if stage else "run", result, error, as_json, config, verbose, quiet)
    if not as_json:
        show_finetune(result.get("finetune", {}))
    sys.exit(error.exit_code if error else 0)


@main.command("status")
@preview_options
@click.option("--hash", "read_files", is_flag=True, help="Read the files that are new, to be exact.")
@click.option("-q", "--quiet", is_flag=True, help="Print nothing; exit 0 if all is fresh, 5 if not.")
def status_command(
    config: Path, overrides: tuple[str, ...], as_json: bool, read_files: bool, quiet: bool,
    verbose: bool,
) -> None:  # fmt: skip
    """Say for each stage whether it is there, and if not, why not. With -v, what differs from the nearest entry.

    Fine-tunings run only when named; those that were made before are told of too, and count for -q.

    Files that are new or were touched count as missing (`at most`) unless --hash reads them. Where no rows tell how
    long extraction takes, 16 images are timed.
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
