"""Owns the `pipeline export` commands: options and printing. Not the files (export_features.py, export_model.py)."""

from dataclasses import replace
from pathlib import Path
from typing import get_args

import rich_click as click
from rich.filesize import decimal

from pipeline.cli.options import Call, results_folder, shared_options
from pipeline.project.project import Project
from pipeline.results import registry
from pipeline.results.model import SHORT
from pipeline.serving import export_features, export_kinds, export_model
from pipeline.serving.export_features import WRITERS, Written
from pipeline.serving.export_kinds import Kind
from pipeline.serving.export_model import Exported
from pipeline.show.console import echo
from stages.data.manifest import SPLITS
from stages.runtime.counted_words import count_of

_OUTPUT = click.option("-o", "--output", type=click.Path(path_type=Path), required=True, metavar="PATH",
                       help="The file to write.")  # fmt: skip
_FORCE = click.option("--force", is_flag=True, help="Replace PATH if it is there.")


class _Export(click.RichGroup):
    """`pipeline export NAME ...`: a name that is no command is an argument of the command MODEL."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0] not in {*self.commands, *ctx.help_option_names}:
            args = ["MODEL", *args]
        return super().parse_args(ctx, args)


@click.group("export", cls=_Export, subcommand_metavar="MODEL|features ...")
def export() -> None:
    """Write a model, or features, as a file for other programs.

    pipeline export head/logistic -o model.onnx

    pipeline export features -o features.parquet
    """


@export.command("MODEL")
@click.argument("model", metavar="", required=False)  # the command's name shows as MODEL already
@shared_options("set", "offline", "quiet")
@click.option("--format", "kind", type=click.Choice(get_args(Kind)), help="The kind of file.  [default: by its name]")
@_OUTPUT
@_FORCE
def model_command(call: Call, model: str | None, kind: Kind | None, output: Path, force: bool) -> None:
    """Write MODEL as one network: uint8 RGB pictures of any size in, predictions out.

    MODEL is head/NAME or finetune/NAME (as pipeline.yaml made it; of a sweep, the best), a tag, or a key.
    PATH ends in .keras, .onnx or .xml (OpenVINO). PATH.json has classes, threshold, input and licences. Before the file
    is published, a fresh process without this package runs it on 32 original images: its predictions must be the
    model's, to 0.005.
    """
    if model is None:
        raise click.UsageError("Missing argument 'MODEL'.")

    def work() -> Exported:
        return export_model.export_model(call.config, call.options, call.progress, model, kind, output, force)

    replace(call, name="export").finish(work, _print_model, "written")


@export.command("features")
@shared_options("set", "offline", "quiet")
@click.option("--format", "kind", type=click.Choice(list(WRITERS)), help="The kind of file.  [default: by its name]")
@_OUTPUT
@click.option("--tap", default="pooled", show_default=True, metavar="NAME", help="The tap to take.")
@click.option("--split", type=click.Choice(SPLITS), help="Images of one split only.  [default: all]")
@click.option("--model", metavar="MODEL", help="Add what this model predicts, to Parquet.")
@_FORCE
def features_command(
    call: Call, kind: str | None, output: Path, tap: str, split: str | None, model: str | None, force: bool
) -> None:
    """Write ids, labels, splits, groups, paths and features to one file, a row for each image.

    Rows that are missing are computed first. The file is published whole or not at all.
    """

    def work() -> Written:
        project = Project(call.config, call.options, call.progress)
        chosen = None if model is None else registry.find(results_folder(call.config), model)
        return export_features.export_features(project, kind, output, tap, split, force, chosen)

    call.finish(work, _print, "written")


def _print(written: Written) -> None:
    shape = " x ".join(f"{n:,}" for n in written.shape)
    echo(f"wrote {written.file}: {shape} {written.dtype}, {decimal(written.bytes)}")
    echo(f"  tap {written.tap}, extract key {written.key[:SHORT]}")


def _print_model(written: Exported) -> None:
    about, check = written.about, written.about["check"]
    beside = [f"{data['file']} ({decimal(data['bytes'])})"] if (data := about["data"]) else []
    beside.append(export_kinds.description_path(written.file).name)
    echo(f"wrote {written.file}: {decimal(about['bytes'])}, and {', '.join(beside)}")
    echo(f"  model {about['model']['name']} {about['model']['key'][:SHORT]}")
    images = count_of(check["images"], "image")
    in_scales = "" if about["output"]["name"] == "probabilities" else " standard deviations"
    echo(
        f"  {images} in a fresh process ({check['runtime']}): "
        f"predictions differ by at most {check['max_difference']:.1e}{in_scales}"
    )
    if check["decode_scaled_adds"] is not None:
        echo(f"  decode: scaled, which the file cannot do, changes them by at most {check['decode_scaled_adds']:.1e}")
