"""Owns the list of all commands. Each is imported when it runs: `--help` takes a tenth of a second, not half a one."""

from __future__ import annotations

import importlib

import rich_click as click

from stages.runtime.suggest import suggest

COMMANDS = {
    "init": ("init:init_command", "Look at the images, and write a commented pipeline.yaml to FOLDER (default: here)."),
    "run": (
        "run:run_command",
        "Extract features, then train the heads on them; only new or changed inputs are computed.",
    ),
    "status": ("run:status_command", "Show for each stage what a run would compute, and why."),
    "splits": ("splits:group", "Draw again which images are for training, validation and test."),
    "models": ("models:models_command", "List the models by name, the latest first, with their figures."),
    "show": (
        "models:show_command",
        "Show the figures of MODEL, and what made it: settings, data, keys, versions, machine.",
    ),
    "predict": ("predict:predict_command", "Classify images with MODEL."),
    "compare": (
        "evaluate:compare_command",
        "Compare models A and B on today's labelled images that are in the train or val set of neither.",
    ),
    "crossval": (
        "evaluate:crossval_command",
        "Cross-validate heads: each image of train and val is predicted by a head not fitted or chosen on its fold.",
    ),
    "predictions": (
        "evaluate:predictions_command",
        "Write the predictions of MODEL: id, path, label, split, group, predicted, and p_CLASS for each class.",
    ),
    "plot": (
        "evaluate:plot_command",
        "Plot MODEL on val and test: ROC, precision and recall, reliability, confusion matrices.",
    ),
    "tag": ("models:tag_command", "Give MODEL a NAME that stays: pipeline tag head/logistic v3."),
    "reproduce": (
        "models:reproduce_command",
        "Train MODEL again from its record, and compare: exit 0 if weights and figures are bitwise the same, else 1.",
    ),
    "export": ("export:export", "Write a model, or features, as a file for other programs."),
    "bases": (
        "bases:bases_command",
        "List all bases; of NAME, the blocks that fine-tuning can start from, and the size of their boundary maps.",
    ),
    "cache": ("cache:group", "List, verify and shrink the cache; copy rows to and from other machines."),
}
"""name -> (module:function below pipeline.cli, first sentence of its help)."""


class Commands(click.RichGroup):
    """A group that knows its commands by the table alone, until one is to run."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return click.Command(cmd_name, help=COMMANDS[cmd_name][1]) if cmd_name in COMMANDS else None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in COMMANDS and (near := suggest(args[0], COMMANDS)):
            raise click.UsageError(f"there is no command {args[0]!r}; did you mean {near[0]}?", ctx)
        name, _, rest = super().resolve_command(ctx, args)
        assert name is not None
        return name, load_command(name), rest


def load_command(name: str) -> click.Command:
    """The command itself, with its options."""
    module, _, function = COMMANDS[name][0].partition(":")
    command: click.Command = getattr(importlib.import_module(f"pipeline.cli.{module}"), function)
    return command


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="frozenbase", prog_name="pipeline")
def main() -> None:
    """Extract features of images with a frozen base once, cache them, and train heads on them in seconds."""
