"""Owns what all commands share: options, logging, and how what stops one becomes a sentence and an exit code."""

from __future__ import annotations

import logging
import shlex
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import rich_click as click

from cache.errors import Interrupted, PipelineError, Unusable
from pipeline.show.console import show_result

T = TypeVar("T")


_TOLD = "stages.bases.weights"
"""Its notes are told without -v: a download takes a while, and nobody has asked for it in so many words."""


_UNNAMED = "something that the system does not name, as an open file or a connection"


class Terminated(KeyboardInterrupt):
    """SIGTERM. Not an Exception, so that nothing on its way takes it for a failure of its own."""


_CONFIG = click.option("-c", "--config", type=click.Path(path_type=Path), default="pipeline.yaml", show_default=True,
                       envvar="PIPELINE_CONFIG", show_envvar=True, help="The file with the settings.")  # fmt: skip
_SET = click.option("--set", "overrides", multiple=True, metavar="FIELD=VALUE",
                    help="Set a field for this run, e.g. --set extract.size=160.")  # fmt: skip
_OFFLINE = click.option("--offline", is_flag=True, envvar="PIPELINE_OFFLINE", show_envvar=True,
                        help="Download nothing.")  # fmt: skip
_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object, on failure too.")
_VERBOSE = click.option("-v", "--verbose", is_flag=True, help="More on stderr, with tracebacks.")


def preview_options(command: Callable[..., None]) -> Callable[..., None]:
    """The options of a command that reads pipeline.yaml and computes nothing, so that it downloads nothing either."""
    return _CONFIG(_SET(_JSON(_VERBOSE(command))))


def run_options(command: Callable[..., None]) -> Callable[..., None]:
    """The options of a command that reads pipeline.yaml and may compute."""
    return _CONFIG(_SET(_OFFLINE(_JSON(_VERBOSE(command)))))


def results_options(command: Callable[..., None]) -> Callable[..., None]:
    """The options of a command that reads what lies beside pipeline.yaml, and not that itself."""
    return _CONFIG(_JSON(_VERBOSE(command)))


def report_errors(
    work: Callable[[], T], verbose: bool = False, unnamed: str = _UNNAMED
) -> tuple[T | None, PipelineError | None]:
    """Do the work; whatever stops it comes back as one sentence with an exit code, never as a traceback.

    `unnamed` is what to call that of which the system refuses something without a name.
    """

    def terminate(*_: Any) -> None:
        raise Terminated

    signal.signal(signal.SIGTERM, terminate)
    try:
        return work(), None
    except PipelineError as error:
        return None, error
    except KeyboardInterrupt as error:
        kept = error.args[0] if error.args else "nothing is lost that was there"
        stopped = Interrupted(f"interrupted; {kept}", f"to go on: {_typed()}")
        stopped.exit_code = 143 if isinstance(error, Terminated) else 130
        return None, stopped
    except Exception as error:  # noqa: BLE001 (the last line of defence)
        if verbose:
            traceback.print_exc()
        if isinstance(error, OSError) and error.strerror:
            advice = "check the path, its permissions and the space; " if error.filename else ""
            return None, PipelineError(
                f"{error.filename or unnamed}: {error.strerror}", f"{advice}-v shows where it was met"
            )
        return None, PipelineError(f"unexpected {type(error).__name__}: {error}", "run again with -v to see where")


def results_folder(config: Path) -> Path:
    """Where the results of a project lie, whether or not there is a pipeline.yaml; Unusable where there is nothing."""
    folder = (config if config.is_dir() else config.parent).absolute()
    if not (config.exists() or (folder / "models").is_dir()):
        raise Unusable(f"{folder} has neither {config.name} nor models/", "name the project's pipeline.yaml with -c")
    return folder


def finish(
    command: str, part: str, report: T | None, error: PipelineError | None, printer: Callable[[T], None],
    config: Path, as_json: bool, verbose: bool,
) -> NoReturn:  # fmt: skip
    """Show what came of a command, with `printer` or as `part` of its JSON, and what stopped it; then exit."""
    if report is not None and not as_json:
        _, failed = report_errors(lambda: printer(report), verbose, "standard output")
        error = error or failed
    show_result(command, {} if report is None else {part: report}, error, as_json, config, verbose)
    sys.exit(error.exit_code if error else 0)


def log_to_stderr(quiet: bool, verbose: bool) -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
    for name in ("cache", "stages", "pipeline"):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.setLevel(logging.ERROR if quiet else logging.INFO if verbose else logging.WARNING)
    logging.getLogger(_TOLD).setLevel(logging.ERROR if quiet else logging.INFO)


def _typed() -> str:
    return shlex.join(["pipeline", *sys.argv[1:]])
