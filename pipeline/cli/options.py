"""Owns what all commands share: options, logging, and turning exceptions into a message and an exit code."""

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
from pipeline.show.console import escape_controls, escape_line
from pipeline.show.run_tables import show_result

T = TypeVar("T")

_ALWAYS_LOGGED = "stages.bases.weights"
"""Its INFO messages are shown without -v: downloads take a while."""


class Terminated(KeyboardInterrupt):
    """SIGTERM. Not an Exception, so that `except Exception` on its way doesn't catch it."""


_CONFIG = click.option("-c", "--config", type=click.Path(path_type=Path), default="pipeline.yaml", show_default=True,
                       envvar="PIPELINE_CONFIG", show_envvar=True, help="The file with the settings.")  # fmt: skip
_SET = click.option("--set", "overrides", multiple=True, metavar="FIELD=VALUE",
                    help="Set a field for this run, e.g. --set extract.size=160.")  # fmt: skip
_OFFLINE = click.option("--offline", is_flag=True, envvar="PIPELINE_OFFLINE", show_envvar=True,
                        help="Download nothing.")  # fmt: skip
_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object, on failure too.")
_VERBOSE = click.option("-v", "--verbose", is_flag=True, help="More on stderr, with tracebacks.")


def preview_options(command: Callable[..., None]) -> Callable[..., None]:
    """The options of a command that reads pipeline.yaml, computes nothing and downloads nothing."""
    return _CONFIG(_SET(_JSON(_VERBOSE(command))))


def run_options(command: Callable[..., None]) -> Callable[..., None]:
    """The options of a command that reads pipeline.yaml and may compute."""
    return _CONFIG(_SET(_OFFLINE(_JSON(_VERBOSE(command)))))


def results_options(command: Callable[..., None]) -> Callable[..., None]:
    """The options of a command that reads models, and not pipeline.yaml."""
    return _CONFIG(_JSON(_VERBOSE(command)))


def report_errors(
    work: Callable[[], T], verbose: bool = False, unnamed: str = "an open file or a connection"
) -> tuple[T | None, PipelineError | None]:
    """(result, None), or (None, error) with one message, exit code and hint for whatever was raised.

    `unnamed` stands in the message of an OSError without a file name.
    """

    def terminate(*_: Any) -> None:
        raise Terminated

    signal.signal(signal.SIGTERM, terminate)
    try:
        return work(), None
    except PipelineError as error:
        return None, error
    except KeyboardInterrupt as error:
        kept = error.args[0] if error.args else "finished work is kept"
        stopped = Interrupted(f"interrupted; {kept}", f"to go on: {shlex.join(['pipeline', *sys.argv[1:]])}")
        stopped.exit_code = 143 if isinstance(error, Terminated) else 130
        return None, stopped
    except Exception as error:  # noqa: BLE001 (whatever else: a message, no traceback)
        if verbose:
            traceback.print_exc()
        if isinstance(error, OSError) and error.strerror:
            advice = "check the path, its permissions and the space; " if error.filename else ""
            return None, PipelineError(
                f"{error.filename or unnamed}: {error.strerror}", f"{advice}-v shows where it happened"
            )
        return None, PipelineError(f"unexpected {type(error).__name__}: {error}", "run again with -v to see where")


def results_folder(config: Path) -> Path:
    """The project's folder, with or without a pipeline.yaml. Raises Unusable where it has neither that nor models/."""
    folder = (config if config.is_dir() else config.parent).absolute()
    if not (config.exists() or (folder / "models").is_dir()):
        raise Unusable(f"{folder} has neither {config.name} nor models/", "name the project's pipeline.yaml with -c")
    return folder


def finish(
    command: str, part: str, report: T | None, error: PipelineError | None, printer: Callable[[T], None],
    config: Path, as_json: bool, verbose: bool,
) -> NoReturn:  # fmt: skip
    """Show the report, with `printer` or as `part` of the JSON, and the error; then exit."""
    if report is not None and not as_json:
        _, failed = report_errors(lambda: printer(report), verbose, "standard output")
        error = error or failed
    show_result(command, {} if report is None else {part: report}, error, as_json, config, verbose)
    sys.exit(error.exit_code if error else 0)


def do_and_finish(work: Callable[[], T], printer: Callable[[T], None]) -> NoReturn:
    """Do the work of the current command, which has the options above, and `finish` it under its own name."""
    context = click.get_current_context()
    assert context is not None
    name, given = str(context.info_name), context.params
    report, error = report_errors(work, given["verbose"])
    finish(name, name, report, error, printer, given["config"], given["as_json"], given["verbose"])


class _EscapingFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return escape_controls(super().format(record))  # with a traceback, if there is one

    def formatMessage(self, record: logging.LogRecord) -> str:
        return escape_line(super().formatMessage(record))


def log_to_stderr(quiet: bool, verbose: bool) -> None:
    """Log to stderr, each warning once: several heads may have the same."""
    handler = logging.StreamHandler()
    warned: set[str] = set()

    def is_new(record: logging.LogRecord) -> bool:
        text = record.getMessage()
        repeated = record.levelno >= logging.WARNING and text in warned
        warned.add(text)
        return not repeated

    handler.addFilter(is_new)
    handler.setFormatter(_EscapingFormatter("%(levelname)s: %(message)s"))
    for name in ("cache", "stages", "pipeline"):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.setLevel(logging.ERROR if quiet else logging.INFO if verbose else logging.WARNING)
    logging.getLogger(_ALWAYS_LOGGED).setLevel(logging.ERROR if quiet else logging.INFO)
