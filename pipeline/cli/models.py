"""Owns the commands on results: models, show, tag, reproduce. Not their work (registry.py, reproduce.py)."""

from collections.abc import Mapping

import rich_click as click

from pipeline.cli.options import Call, results_folder, shared_options
from pipeline.evaluation.reproduce import Reproduction, reproduce
from pipeline.project.progress import no_progress
from pipeline.results import registry
from pipeline.results.model import SHORT
from pipeline.runs import retention
from pipeline.show import model_tables
from pipeline.show.console import echo


@click.command("models")
@shared_options(warn=False)
def models_command(call: Call) -> None:
    """List the models by name, the latest first, with their figures."""
    call.finish(lambda: registry.list_models(results_folder(call.config)), model_tables.show_models)


@click.command("show")
@click.argument("model")
@shared_options(warn=False)
def show_command(call: Call, model: str) -> None:
    """Show the figures of MODEL, and what made it: settings, data, keys, versions, machine.

    MODEL is head/NAME (as pipeline.yaml made it, without --set; of a sweep, the best), a tag, or the first digits of a
    key; `pipeline models` lists them.
    """
    call.finish(lambda: registry.find(results_folder(call.config), model).details(), model_tables.show_model)


@click.command("tag")
@click.argument("model", required=False)
@click.argument("name", required=False)
@click.option("--force", is_flag=True, help="Move the tag if another model has it.")
@click.option("--delete", metavar="NAME", help="Remove a tag; the model stays.")
@shared_options(warn=False)
def tag_command(call: Call, model: str | None, name: str | None, force: bool, delete: str | None) -> None:
    """Give MODEL a NAME that stays: pipeline tag head/logistic v3."""

    def work() -> dict[str, str]:
        folder = results_folder(call.config)
        if delete is not None:
            registry.delete_tag(folder, delete)
            retention.register_tags(call.config, no_progress, None)
            return {"deleted": delete}
        assert model is not None
        assert name is not None
        tagged = registry.set_tag(folder, model, name, force)
        retention.register_tags(call.config, no_progress, tagged.record["config"]["cache"].get("dir"))
        return {"tag": name, "name": tagged.name, "key": tagged.key}

    if (delete is None) != (model is not None and name is not None) or (delete is not None and model is not None):
        raise click.UsageError("expected MODEL and NAME, or --delete NAME alone")
    call.finish(work, _show_tag)


@click.command("reproduce")
@click.argument("model")
@shared_options("set", "offline", "quiet")
@click.option("--recompute", is_flag=True, help="Compute all rows again, in a temporary cache.")
def reproduce_command(call: Call, model: str, recompute: bool) -> None:
    """Train MODEL again from its record, and compare: exit 0 if weights and figures are bitwise the same, else 1.

    Images are found by their bytes below today's data.root. Nothing under models/ is written.
    """

    def work() -> Reproduction:
        return reproduce(call.config, call.options, call.progress, model, recompute)

    call.finish(work, model_tables.show_reproduction, check=Reproduction.check)


def _show_tag(done: Mapping[str, str]) -> None:
    if "deleted" in done:
        echo(f"deleted the tag {done['deleted']}")
    else:
        echo(f"{done['tag']} names {done['name']} {done['key'][:SHORT]}")
