"""Owns the command line: options, what is printed, exit codes. The only place that prints; no work is done here."""

from __future__ import annotations

import json
import logging
import os
import shlex
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import rich_click as click
from rich.console import Console
from rich.table import Table

from cache.errors import PipelineError, Unusable
from pipeline import graph, models, start
from pipeline.graph import ExtractReport, Options, Project
from pipeline.models import HeadReport
from pipeline.progress import reporter

SCHEMA_VERSION = 1

T = TypeVar("T")

_out = Console(highlight=False, soft_wrap=True, markup=False)
_err = Console(stderr=True, highlight=False, soft_wrap=True, markup=False)


class Terminated(KeyboardInterrupt):
    """SIGTERM. Not an Exception, so that nothing on its way takes it for a failure of its own."""


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
    started, error = _guarded(lambda: start.init_demo(folder) if demo else start.init(folder, images))
    if started is None:
        assert error is not None
        _show_error(error)
        sys.exit(error.exit_code)
    for line in started.lines():
        _say(line)
    if demo:
        _say(start.DEMO_LICENCE)
    _say(f"wrote {started.config}; next: pipeline run{_config_option(started.config)}")


@main.command("run")
@click.argument("stage", type=click.Choice(["extract", "head"]), required=False)
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("-c", "--config", type=click.Path(path_type=Path), default="pipeline.yaml", show_default=True,
              envvar="PIPELINE_CONFIG", show_envvar=True, help="The file with the settings.")  # fmt: skip
@click.option("--set", "overrides", multiple=True, metavar="FIELD=VALUE",
              help="Set a field for this run, e.g. --set extract.size=160.")  # fmt: skip
@click.option("--workers", type=click.IntRange(1), envvar="PIPELINE_WORKERS", show_envvar=True,
              help="Processes to extract with.")  # fmt: skip
@click.option("--scheduler", metavar="ADDRESS", envvar="PIPELINE_SCHEDULER", show_envvar=True,
              help="A running Dask scheduler to extract on, e.g. tcp://127.0.0.1:8786.")  # fmt: skip
@click.option("--require-cached", is_flag=True, help="Exit 4 instead of computing a missing row.")
@click.option("--offline", is_flag=True, envvar="PIPELINE_OFFLINE", show_envvar=True, help="Download nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, on failure too.")
@click.option("-q", "--quiet", is_flag=True, help="No progress, only errors on stderr.")
@click.option("-v", "--verbose", is_flag=True, help="More on stderr, with tracebacks.")
def run_command(
    stage: str | None, names: tuple[str, ...], config: Path, overrides: tuple[str, ...], workers: int | None,
    scheduler: str | None, require_cached: bool, offline: bool, as_json: bool, quiet: bool, verbose: bool,
) -> None:  # fmt: skip
    """Extract features, then train the heads on them; what is unchanged is not computed again.

    `run extract` stops after the features. `run head NAME...` trains the heads of those names (default: all); their
    rows are computed first where they are missing.
    """
    if names and stage != "head":
        raise click.UsageError(f"`run {stage}` takes no names; got {names[0]!r}")
    _log_to_stderr(quiet, verbose)
    result: dict[str, Any] = {}
    options = Options(overrides, workers, scheduler, require_cached, offline)
    progress = reporter(_err, quiet)
    _, error = _guarded(lambda: _run(Project(config, options, progress), stage, names, result), verbose)
    _show(f"run {stage}" if stage else "run", result, error, as_json, config)
    sys.exit(error.exit_code if error else 0)


def _guarded(work: Callable[[], T], verbose: bool = False) -> tuple[T | None, PipelineError | None]:
    """Do the work; whatever stops it comes back as one sentence with an exit code, never as a traceback."""

    def terminate(*_: Any) -> None:
        raise Terminated

    signal.signal(signal.SIGTERM, terminate)
    try:
        return work(), None
    except PipelineError as error:
        return None, error
    except KeyboardInterrupt as error:
        stopped = PipelineError("interrupted; finished shards are kept", f"to go on: {_typed()}")
        stopped.code, stopped.exit_code = "interrupted", 143 if isinstance(error, Terminated) else 130
        return None, stopped
    except Exception as error:  # noqa: BLE001 (the last line of defence)
        if verbose:
            traceback.print_exc()
        if isinstance(error, OSError) and error.filename is not None:
            advice = "check the path, its permissions and the space"
            return None, PipelineError(f"{error.filename}: {error.strerror}", advice)
        return None, PipelineError(f"unexpected {type(error).__name__}: {error}", "run again with -v to see where")


def _run(project: Project, stage: str | None, names: tuple[str, ...], result: dict[str, Any]) -> None:
    """The stages asked for, in order; `result` is filled as they end, so that a failure still shows what was done."""
    for name in names:
        if name not in project.config.heads:
            raise Unusable(f"no head {name!r} in {project.path.name}; it has {', '.join(project.config.heads)}")
    report, manifest = graph.run_extract(project)
    result["extract"] = report
    models.write_rejects(project, report.rejected)
    graph.check_rejects(project, report)
    if stage != "extract":
        result["heads"] = {}
        for name in names or project.config.heads:
            result["heads"][name] = models.run_head(project, name, manifest)


def _show(command: str, result: dict[str, Any], error: PipelineError | None, as_json: bool, config: Path) -> None:
    """What was done to stdout, what went wrong to stderr; as JSON, both in one object on stdout."""
    if as_json:
        failure = {"code": error.code, "message": error.message, "hint": error.hint} if error else None
        head = {"schema_version": SCHEMA_VERSION, "command": command}
        parts = json.loads(json.dumps(result, default=lambda report: report.to_json()))
        click.echo(json.dumps({**head, "exit_code": error.exit_code if error else 0, "error": failure, **parts}))
        return
    if "extract" in result:
        _show_extract(result["extract"])
    if result.get("heads"):
        _show_heads(result["heads"])
        _say(
            "\nnext: change something; only what it touches is computed. Another split, for one, trains the heads only:"
        )
        _say(f"  pipeline run{_config_option(config)} --set data.split.seed=1")
    if error:
        _show_error(error)


def _show_extract(report: ExtractReport) -> None:
    rate = f"{report.images_per_second:.0f} images/s" if report.images_per_second else ""
    facts = {
        "images": f"{report.images:,}" + (f" ({report.unique:,} different)" if report.unique < report.images else ""),
        "computed": f"{report.computed:,}" + (f"   {rate}, {report.seconds:.1f} s" if rate else ""),
        "reused": f"{report.reused:,}",
    }
    if report.ignored:
        facts["ignored"] = f"{report.ignored:,} other files"
    if report.rejected:
        facts["rejected"] = f"{len(report.rejected):,} (listed in rejects.csv)"
    table = Table.grid(padding=(0, 2))
    for name, value in facts.items():
        table.add_row(name, value)
    _out.print(table)
    for reject in report.rejected[:5]:
        _say(f"  rejected {reject.path}: {reject.reason}", _err)


def _show_heads(heads: dict[str, HeadReport]) -> None:
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for column in ("head", "", "val accuracy", "val AUROC", "test accuracy", "test AUROC"):
        table.add_column(column, justify="left" if column in ("head", "") else "right")
    for name, head in heads.items():
        figures = [head.metrics[split][metric] for split in ("val", "test") for metric in ("accuracy", "auroc")]
        shown = ["-" if figure is None else f"{figure:.3f}" for figure in figures]
        table.add_row(name, "reused" if head.hit else "trained", *shown)
    _out.print()
    _out.print(table)
    for name, head in heads.items():
        here = os.path.relpath(head.path)
        _say(f"{name}: {head.path if here.startswith('..') else here}")


def _show_error(error: PipelineError) -> None:
    _say(f"Error: {error.message}", _err, style="red")
    if error.hint:
        _say(f"  {error.hint}", _err)


def _say(text: str, console: Console = _out, style: str | None = None) -> None:
    """Print a line; a file name that is not UTF-8 comes out escaped."""
    console.print(text.encode("utf-8", "backslashreplace").decode("utf-8"), style=style)


def _log_to_stderr(quiet: bool, verbose: bool) -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
    for name in ("cache", "stages", "pipeline"):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.setLevel(logging.ERROR if quiet else logging.INFO if verbose else logging.WARNING)


def _typed() -> str:
    return shlex.join(["pipeline", *sys.argv[1:]])


def _config_option(config: Path) -> str:
    return "" if config == Path("pipeline.yaml") else f" -c {shlex.quote(str(config))}"
