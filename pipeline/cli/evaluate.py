"""Owns the commands compare, crossval, predictions, plot and report. Not their work, nor their tables."""

from pathlib import Path
from typing import Any, Literal

import rich_click as click

from pipeline.cli.options import Call, results_folder, shared_options
from pipeline.evaluation import compare, plot
from pipeline.evaluation.crossval import OutOfFold, crossval, join_predictions
from pipeline.project.project import Project
from pipeline.report.report import PARTS, Written, write_report
from pipeline.results import csv_parquet, predictions, registry
from pipeline.show import evaluation_tables
from pipeline.show.console import echo, relative_path


@click.command("compare")
@click.argument("a")
@click.argument("b")
@shared_options("set", "offline", warn=False)
def compare_command(call: Call, a: str, b: str) -> None:
    """Compare models A and B on today's labelled images that are in the train or val set of neither.

    Rows come from the cache; the models may have different bases and sizes. A and B are head/NAME (as pipeline.yaml
    made it; of a sweep, the best), tags, or the first digits of keys.
    """

    def work() -> compare.Comparison:
        return compare.compare(call.config, call.options, call.progress, a, b)

    call.finish(work, evaluation_tables.show_comparison)


@click.command("crossval")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@shared_options("set", "offline")
@click.option("--folds", type=click.IntRange(2), default=5, show_default=True, help="How many.")
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
              help="Write the out-of-fold predictions of all heads to this .csv or .parquet file.")  # fmt: skip
@click.option("--all", "every", is_flag=True, help="Use the images of test too.")
def crossval_command(call: Call, names: tuple[str, ...], folds: int, output: Path | None, every: bool) -> None:
    """Cross-validate heads: each image of train and val is predicted by a head not fitted or chosen on its fold.

    For the named heads (default: all), on cached rows. Folds are stratified and keep groups together. Several heads are
    ranked by log-loss. No model is written.
    """

    def work() -> dict[str, OutOfFold]:
        if output is not None:
            csv_parquet.check_path(output)
        project = Project(call.config, call.options, call.progress)
        project.check_heads(names)
        points = {
            f"{name} {point}".strip(): spec
            for name in names or project.config.heads
            for point, spec in project.config.heads[name].points().items()
        }
        found = {name: crossval(project, spec, folds, every) for name, spec in points.items()}
        if output is not None:
            csv_parquet.write_table(join_predictions({name: head.predictions for name, head in found.items()}), output)
        return found

    call.finish(work, evaluation_tables.show_crossval)


@click.command("predictions")
@click.argument("model")
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
              help="A .csv or .parquet file, instead of CSV on stdout.")  # fmt: skip
@shared_options(warn=False)
def predictions_command(call: Call, model: str, output: Path | None) -> None:
    """Write the predictions of MODEL: id, path, label, split, group, predicted, and p_CLASS for each class.

    One row for each labelled image, with its path when the model was made; copies count once. Above 10 million
    probabilities there are rows of val and test only.
    """
    if call.as_json and output is None:
        raise click.UsageError("--json prints the path of --output: give one")

    def work() -> dict[str, Any]:
        if output is not None:
            csv_parquet.check_path(output)
        found = predictions.read_predictions(registry.find(results_folder(call.config), model))
        if output is None:
            return {"csv": csv_parquet.as_csv(found.columns())}
        csv_parquet.write_table(found.columns(), output)
        return {"path": str(output), "images": len(found.rows)}

    call.finish(work, evaluation_tables.show_predictions)


@click.command("plot")
@click.argument("model")
@click.option("-o", "--output", type=click.Path(path_type=Path, file_okay=False), metavar="DIR",
              help="The folder.  [default: plots/NAME-KEY beside models/]")  # fmt: skip
@click.option("--format", "form", type=click.Choice(["png", "svg"]), default="png", show_default=True)
@shared_options(warn=False)
def plot_command(call: Call, model: str, output: Path | None, form: Literal["png", "svg"]) -> None:
    """Plot MODEL on val and test: ROC, precision and recall, reliability, confusion matrices.

    It needs matplotlib: pip install 'frozenbase[plots]'.
    """

    def work() -> dict[str, list[str]]:
        files = plot.plot(registry.find(results_folder(call.config), model), output, form)
        return {"files": [str(path) for path in files]}

    call.finish(work, evaluation_tables.show_files)


@click.command("report")
@click.argument("model", required=False)
@shared_options("set", "offline", warn=False)
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
              help="The .html file.  [default: report.html beside pipeline.yaml]")  # fmt: skip
@click.option("--without", type=click.Choice(PARTS), multiple=True, help="Leave out what takes longest.")
def report_command(call: Call, model: str | None, output: Path | None, without: tuple[str, ...]) -> None:
    """Write a page on MODEL: one file that needs no network, to look at, print and pass on.

    Figures beside a constant guess and other models, confusions and worst mistakes with pictures, curves, what the
    images hide, a map of all images, what made the model, and its card. MODEL is head/NAME, a tag, or the first digits
    of a key; by default the one that ranks best by folds or val. A file that says the same already is left as it is.
    """

    def work() -> Written:
        return write_report(Project(call.config, call.options, call.progress), model, output, without)

    call.finish(work, _show_report)


def _show_report(found: Written) -> None:
    done = "is up to date" if found.reused else f"written in {found.seconds:.0f} s"
    echo(f"report on {found.model}: {relative_path(found.path)}, {found.bytes / 1e6:.1f} MB, {done}")
