"""Owns the commands on results: models, show, tag, reproduce. What they do is registry.py's and reproduce.py's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NoReturn, TypeVar

import rich_click as click

from pipeline.cli.options import finish, log_to_stderr, report_errors, results_folder, results_options, run_options
from pipeline.evaluation.reproduce import reproduce
from pipeline.evaluation.reproduction_report import Reproduction
from pipeline.project.project import Options
from pipeline.results import registry
from pipeline.results.model import SHORT
from pipeline.runs import retention
from pipeline.show import model_tables
from pipeline.show.console import ERR, echo
from pipeline.show.progress import make_progress

T = TypeVar("T")


@click.command("models")
@results_options
def models_command(config: Path, as_json: bool, verbose: bool) -> None:
    """List the models there are, by name, the latest first, with their figures."""
    log_to_stderr(not verbose, verbose)
    _do(
        "models",
        lambda: registry.list_models(results_folder(config)),
        model_tables.show_models,
        config,
        as_json,
        verbose,
    )


@click.command("show")
@click.argument("model")
@results_options
def show_command(model: str, config: Path, as_json: bool, verbose: bool) -> None:
    """Say what made MODEL: settings, data, keys, versions, machine; and its figures.

    MODEL is head/NAME (what its last run gave; of a sweep, the best), a tag, or the first digits of a key; `pipeline
    models` lists them.
    """
    log_to_stderr(not verbose, verbose)
    _do(
        "show",
        lambda: registry.find(results_folder(config), model).details(),
        model_tables.show_model,
        config,
        as_json,
        verbose,
    )


@click.command("tag")
@click.argument("model", required=False)
@click.argument("name", required=False)
@click.option("--force", is_flag=True, help="Move the tag if it names another model already.")
@click.option("--delete", metavar="NAME", help="Remove a tag; the model stays.")
@results_options
def tag_command(
    model: str | None, name: str | None, force: bool, delete: str | None, config: Path, as_json: bool, verbose: bool
) -> None:
    """Give MODEL a NAME that stays: pipeline tag head/logistic v3."""
    log_to_stderr(not verbose, verbose)

    def work() -> dict[str, str]:
        folder = results_folder(config)
        if delete is not None:
            registry.delete_tag(folder, delete)
            retention.register_tags(config, make_progress(ERR, True), None)
            return {"deleted": delete}
        assert model is not None
        assert name is not None
        tagged = registry.set_tag(folder, model, name, force)
        retention.register_tags(config, make_progress(ERR, True), tagged.record["config"]["cache"]["dir"])
        return {"tag": name, "name": tagged.name, "key": tagged.key}

    if (delete is None) != (model is not None and name is not None) or (delete is not None and model is not None):
        raise click.UsageError("expected MODEL and NAME, or --delete NAME alone")
    _do("tag", work, _say_tag, config, as_json, verbose)


@click.command("reproduce")
@click.argument("model")
@run_options
@click.option("--recompute", is_flag=True, help="Take no cached row: compute all of them again, in a temporary cache.")
@click.option("-q", "--quiet", is_flag=True, help="No progress, only errors on stderr.")
def reproduce_command(
    model: str, config: Path, overrides: tuple[str, ...], recompute: bool, offline: bool, as_json: bool, quiet: bool,
    verbose: bool,
) -> None:  # fmt: skip
    """Make MODEL again from its record, and compare: exit 0 if weights and figures are bitwise the same, else 1.

    Images are found by their bytes wherever pipeline.yaml has its images now. Nothing under models/ is touched.
    """
    log_to_stderr(quiet, verbose)
    options = Options(overrides, offline=offline)
    result: dict[str, Reproduction] = {}

    def work() -> None:
        result["reproduce"] = reproduce(config, options, make_progress(ERR, quiet), model, recompute)
        result["reproduce"].check()

    _, error = report_errors(work, verbose)
    report, printer = result.get("reproduce"), model_tables.show_reproduction
    finish("reproduce", "reproduce", report, error, printer, config, as_json, verbose)


COMMANDS = (models_command, show_command, tag_command, reproduce_command)


def _do(
    command: str, work: Callable[[], T], printer: Callable[[T], None], config: Path, as_json: bool, verbose: bool
) -> NoReturn:
    """Do the work, show what came of it, and exit."""
    found, error = report_errors(work, verbose)
    finish(command, command, found, error, printer, config, as_json, verbose)


def _say_tag(done: Mapping[str, str]) -> None:
    if "deleted" in done:
        echo(f"the tag {done['deleted']} is gone")
    else:
        echo(f"{done['tag']} names {done['name']} {done['key'][:SHORT]}")
