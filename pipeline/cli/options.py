"""Owns what all commands share: options, logging, and turning exceptions into a message and an exit code."""

import functools
import logging
import shlex
import signal
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import rich_click as click

from cache.errors import Interrupted, PipelineError, Unusable
from pipeline.project.project import Options, Progress
from pipeline.show.console import ERR, escape_controls, escape_line
from pipeline.show.progress import make_progress
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
_QUIET = click.option("-q", "--quiet", is_flag=True, help="No progress, only errors on stderr.")
_OPTIONS = {"set": _SET, "offline": _OFFLINE, "quiet": _QUIET}
_SHARED = ("config", "overrides", "offline", "as_json", "verbose", "quiet")


@dataclass(frozen=True)
class Call:
    """A command as it was called: its name in JSON, and the options that commands share."""

    name: str
    config: Path = Path("pipeline.yaml")
    overrides: tuple[str, ...] = ()
    offline: bool = False
    as_json: bool = False
    verbose: bool = False
    quiet: bool = False

    @property
    def options(self) -> Options:
        return Options(self.overrides, offline=self.offline, leave_buckets=self.offline)

    @property
    def progress(self) -> Progress:
        return make_progress(ERR, self.quiet)

    def finish(
        self, work: Callable[[], T], printer: Callable[[T], None], part: str | None = None,
        check: Callable[[T], None] = lambda report: None,
    ) -> NoReturn:  # fmt: skip
        """Do the work, `show` its report, and exit; `check` may raise an error, which is shown after the report."""
        report, error = report_errors(work, self.verbose)
        if report is not None:
            _, error = report_errors(lambda: check(report), self.verbose)
        self.show(report, error, printer, part)

    def show(
        self, report: T | None, error: PipelineError | None, printer: Callable[[T], None], part: str | None = None
    ) -> NoReturn:
        """Show the report, with `printer` or as `part` of the JSON (None: the command's name), and the error; exit."""
        if report is not None and not self.as_json:
            _, failed = report_errors(lambda: printer(report), self.verbose, "standard output")
            error = error or failed
        result = {} if report is None else {part or self.name: report}
        show_result(self.name, result, error, self.as_json, self.config, self.verbose)
        sys.exit(error.exit_code if error else 0)


def shared_options(*names: str, warn: bool = True) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command -c, --json, -v, and of _OPTIONS those of `names`; its first argument is then a Call.

    With `warn` False, warnings are logged only with -v.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(command)
        def run(**given: Any) -> None:
            shared = {name: given.pop(name) for name in _SHARED if name in given}
            call = Call(_command_name(click.get_current_context()), **shared)
            log_to_stderr(call.quiet or not (warn or call.verbose), call.verbose)
            command(call, **given)

        for option in reversed((_CONFIG, *(_OPTIONS[name] for name in names), _JSON, _VERBOSE)):
            run = option(run)
        return run

    return decorate


def _command_name(context: click.Context | None) -> str:
    """`cache ls`, without the name of the program."""
    if context is None or context.parent is None:
        return ""
    return f"{_command_name(context.parent)} {context.info_name}".strip()


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
