"""Owns the commands on results: models, show, tag, reproduce. Not their work (registry.py, reproduce.py)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import rich_click as click

from pipeline.cli.options import (
    do_and_finish,
    finish,
    log_to_stderr,
    report_errors,
    results_folder,
    results_options,
    run_options,
)
from pipeline.evaluation.reproduce import reproduce
from pipeline.evaluation.reproduction_report import Reproduction
from pipeline.project.project import Options
from pipeline.results import registry
from pipeline.results.model import SHORT
from pipeline.runs import retention
from pipeline.show import model_tables
from pipeline.show.console import ERR, echo
from pipeline.show.progress import make_progress


@click.command("models")
@results_options
def models_command(config: Path, as_json: bool, verbose: bool) -> None:
    """List the models by name, the latest first, with their figures."""
    log_to_stderr(not verbose, verbose)
    do_and_finish(lambda: registry.list_models(results_folder(config)), model_tables.show_models)


@click.command("show")
@click.argument("model")
@results_options
def show_command(model: str, config: Path, as_json: bool, verbose: bool) -> None:
    """Show the figures of MODEL, and what made it: settings, data, keys, versions, machine.

    MODEL is head/NAME (as pipeline.yaml made it, without --set; of a sweep, the best), a tag, or the first digits of a
    key; `pipeline models` lists them.
    """
    log_to_stderr(not verbose, verbose)
    do_and_finish(lambda: registry.find(results_folder(config), model).details(), model_tables.show_model)


@click.command("tag")
@click.argument("model", required=False)
@click.argument("name", required=False)
@click.option("--force", is_flag=True, help="Move the tag if another model has it.")
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
        retention.register_tags(config, make_progress(ERR, True), tagged.record["config"]["cache"].get("dir"))
        return {"tag": name, "name": tagged.name, "key": tagged.key}

    if (delete is None) != (model is not None and name is not None) or (delete is not None and model is not None):
        raise click.UsageError("expected MODEL and NAME, or --delete NAME alone")
    do_and_finish(work, _show_tag)


@click.command("reproduce")
@click.argument("model")
@run_options
@click.option("--recompute", is_flag=True, help="Compute all rows again, in a temporary cache.")
@click.option("-q", "--quiet", is_flag=True, help="No progress; only errors on stderr.")
def reproduce_command(
    model: str, config: Path, overrides: tuple[str, ...], recompute: bool, offline: bool, as_json: bool, quiet: bool,
    verbose: bool,
) -> None:  # fmt: skip
    """Train MODEL again from its record, and compare: exit 0 if weights and figures are bitwise the same, else 1.

    Images are found by their bytes below today's data.root. Nothing under models/ is written.
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


def _show_tag(done: Mapping[str, str]) -> None:
    if "deleted" in done:
        echo(f"deleted the tag {done['deleted']}")
    else:
        echo(f"{done['tag']} names {done['name']} {done['key'][:SHORT]}")
