"""Owns `pipeline run` and `pipeline status`: options, output, exit codes. Not the work (runs/)."""

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import rich_click as click

from cache.errors import Unusable
from pipeline.cli.options import Call, report_errors, shared_options
from pipeline.config import yaml_file
from pipeline.config.schema import RunConfig
from pipeline.project.job_shares import Part
from pipeline.project.project import Project
from pipeline.runs import status
from pipeline.runs.run import run_stages, select_stages
from pipeline.show.console import ERR, echo
from pipeline.show.run_tables import show_result, show_status
from stages.data.manifest import Manifest
from stages.runtime.suggest import suggest

STAGES = ("extract", "head", "finetune")

STALE = 5
"""Exit code of `status -q` where a run would compute something."""


@click.command("run")
@click.argument("stage", required=False, metavar="[extract|head|finetune]")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@shared_options("set", "offline", "quiet")
@click.option("--for", "purposes", multiple=True, metavar="finetune/NAME",
              help="With extract: also the boundary of that fine-tuning, in the same pass.")  # fmt: skip
@click.option("-n", "--dry-run", is_flag=True, help="Preview what would be computed, and why; keep nothing.")
@click.option("--hash", "read_files", is_flag=True, help="With -n: read new files, for exact counts.")
@click.option("--workers", type=click.IntRange(1), envvar="PIPELINE_WORKERS", show_envvar=True,
              help="Processes to extract with.")  # fmt: skip
@click.option("--scheduler", metavar="ADDRESS", envvar="PIPELINE_SCHEDULER", show_envvar=True,
              help="A running Dask scheduler to extract on, e.g. tcp://127.0.0.1:8786.")  # fmt: skip
@click.option("--scheduler-file", type=click.Path(path_type=Path), envvar="PIPELINE_SCHEDULER_FILE", show_envvar=True,
              help="The same, by the file that `dask scheduler --scheduler-file` writes.")  # fmt: skip
@click.option("--part", metavar="I/N",
              help="With extract: only part I of N, from 1 to N; for job arrays.")  # fmt: skip
@click.option("--require-cached", is_flag=True, help="Exit 4 instead of computing a missing row.")
def run_command(
    call: Call, stage: str | None, names: tuple[str, ...], purposes: tuple[str, ...], dry_run: bool, read_files: bool,
    workers: int | None, scheduler: str | None, scheduler_file: Path | None, part: str | None, require_cached: bool,
) -> None:  # fmt: skip
    """Extract features, then train the heads on them; only new or changed inputs are computed.

    `run extract` stops after the features. `run head NAME...` trains these heads (default: all), after
    extracting what they lack. `run finetune NAME...` trains the last blocks of the base too, as
    set under finetune: in pipeline.yaml (default: all); plain `run` does not fine-tune.
    """
    if stage not in (None, *STAGES):
        raise click.UsageError(
            f"{stage!r} is no stage; expected {', '.join(STAGES)}. {_suggest_run(call.config, stage)}"
        )
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
    result: dict[str, Any] = {}

    def work() -> None:
        options = replace(
            call.options, workers=workers, scheduler=scheduler, scheduler_file=scheduler_file,
            require_cached=require_cached,
            offline=call.offline or dry_run, read_files=read_files or not dry_run,
            part=None if part is None else Part.parse(part),
        )  # fmt: skip
        project = Project(call.config, options, call.progress)
        wanted = select_stages(project, stage, names)
        if dry_run:
            result["status"] = status.preview_stages(project, wanted["head"], wanted["finetune"])
        else:
            also_for = [purpose.removeprefix("finetune/") for purpose in purposes]
            if wanted["head"] and project.manifest.rows and not project.manifest.counts():
                project.find_target(project.manifest)  # raises, before extraction takes hours
            manifest = run_stages(project, wanted["head"], result, wanted["finetune"], also_for, note)
            if stage is None and not wanted["head"]:
                _check_nothing_to_train(manifest, note)

    def note(text: str) -> None:
        if not call.quiet:
            echo(text, ERR)

    _, error = report_errors(work, call.verbose)
    name = f"run {stage}" if stage else "run"
    if "status" in result and not call.as_json:
        show_status(result["status"], call.verbose)
    show_result(name, result, error, call.as_json, call.config, call.verbose, call.quiet)
    if not call.as_json and result.get("finetune"):
        from pipeline.show.evaluation_tables import show_finetune  # a run of heads is done before it is loaded

        show_finetune(result["finetune"])
    sys.exit(error.exit_code if error else 0)


def _check_nothing_to_train(manifest: Manifest, note: Callable[[str], object]) -> None:
    """Raises Unusable where pipeline.yaml has no heads though labels differ."""
    if len(manifest.counts()) > 1:
        raise Unusable(
            "no head was trained: heads is empty in pipeline.yaml, though the images have labels",
            "remove that line, for a default head; for features alone: pipeline run extract",
        )
    note("no head was trained: heads is empty in pipeline.yaml, and there are no two labels")


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
@shared_options("set")
@click.option("--hash", "read_files", is_flag=True, help="Read new files, for exact counts.")
@click.option("-q", "--quiet", is_flag=True, help="Print nothing; exit 0 if all is fresh, 5 if not.")
def status_command(call: Call, read_files: bool) -> None:
    """Show for each stage what a run would compute, and why. With -v, what differs from the nearest entry.

    Fine-tunings that ran before are included, and count for -q.

    New or touched files count as missing (`at most`) unless --hash reads them. Where no cached rows give the time per
    image, 16 images are timed.
    """

    def work() -> status.Status:
        project = Project(call.config, replace(call.options, offline=True, read_files=read_files), call.progress)
        found = status.preview_run(project, estimate=not call.quiet)
        if call.quiet:
            sys.exit(0 if found.fresh else STALE)
        return found

    call.finish(work, lambda found: show_status(found, call.verbose))
