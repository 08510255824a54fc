"""Owns the list of all commands. Each is imported only when it runs, so that `--help` is fast."""

import ast
import importlib
from pathlib import Path

import rich_click as click

from stages.runtime.suggest import suggest

COMMANDS = {
    "init": "init:init_command",
    "run": "run:run_command",
    "status": "run:status_command",
    "splits": "splits:group",
    "models": "models:models_command",
    "show": "models:show_command",
    "predict": "predict:predict_command",
    "compare": "evaluate:compare_command",
    "crossval": "evaluate:crossval_command",
    "predictions": "evaluate:predictions_command",
    "plot": "evaluate:plot_command",
    "report": "evaluate:report_command",
    "audit": "audit:audit_command",
    "curve": "labelling:curve_command",
    "suggest": "labelling:suggest_command",
    "tag": "models:tag_command",
    "reproduce": "models:reproduce_command",
    "export": "export:export",
    "bases": "bases:group",
    "cache": "cache:group",
    "schema": "init:schema_command",
}
"""name -> module:function below pipeline.cli."""


class Commands(click.RichGroup):
    """Lists the commands from the table, and imports one when it runs."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return click.Command(cmd_name, help=summary(cmd_name)) if cmd_name in COMMANDS else None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in COMMANDS and (near := suggest(args[0], COMMANDS)):
            raise click.UsageError(f"there is no command {args[0]!r}; did you mean {near[0]}?", ctx)
        name, _, rest = super().resolve_command(ctx, args)
        assert name is not None
        return name, load_command(name), rest


def summary(name: str) -> str:
    """The first paragraph of a command's help, from its source: to import all commands takes half a second."""
    module, _, function = COMMANDS[name].partition(":")
    tree = ast.parse((Path(__file__).parent / f"{module}.py").read_text("utf-8"))
    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    return (ast.get_docstring(functions[function]) or "").partition("\n\n")[0]


def load_command(name: str) -> click.Command:
    """The command itself, with its options."""
    module, _, function = COMMANDS[name].partition(":")
    command: click.Command = getattr(importlib.import_module(f"pipeline.cli.{module}"), function)
    return command


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="frozenbase", prog_name="pipeline")
def main() -> None:
    """Extract features of images with a frozen base once, cache them, and train heads on them in seconds."""
