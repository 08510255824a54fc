"""Owns the commands that judge models: compare, crossval, predictions, plot. Not the work, nor how it looks."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import rich_click as click

from pipeline.cli.options import finish, log_to_stderr, report_errors, results_folder, results_options, run_options
from pipeline.evaluation import compare, plot
from pipeline.evaluation.crossval import OutOfFold, crossval
from pipeline.project.project import Options, Project
from pipeline.results import csv_parquet, predictions, registry
from pipeline.show import evaluation_tables
from pipeline.show.console import ERR
from pipeline.show.progress import make_progress


@click.command("compare")
@click.argument("a")
@click.argument("b")
@run_options
def compare_command(
    a: str, b: str, config: Path, overrides: tuple[str, ...], offline: bool, as_json: bool, verbose: bool
) -> None:
    """Say whether model B is better than model A, on images that neither was fitted or chosen on.

    Today's images and labels count, and rows that are in the cache; the models may stand on different bases and sizes.
    A and B are head/NAME (what its last run gave; of a sweep, the best), tags, or the first digits of keys.
    """
    log_to_stderr(not verbose, verbose)
    options = Options(overrides, offline=offline)
    found, error = report_errors(lambda: compare.compare(config, options, make_progress(ERR, as_json), a, b), verbose)
    finish("compare", "compare", found, error, evaluation_tables.show_comparison, config, as_json, verbose)


@click.command("crossval")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@run_options
@click.option("--folds", type=click.IntRange(2), default=5, show_default=True, help="How many.")
@click.option("--all", "every", is_flag=True, help="Take the images of test too, which are left alone otherwise.")
def crossval_command(
    names: tuple[str, ...], config: Path, overrides: tuple[str, ...], folds: int, every: bool, offline: bool,
    as_json: bool, verbose: bool,
) -> None:  # fmt: skip
    """Judge heads by k-fold: each image of train and val by a head that was neither fitted nor chosen on its fold.

    For the heads of those names (default: all), on rows that are in the cache. Folds are stratified and keep groups
    together. Nothing is written.
    """
    log_to_stderr(False, verbose)
    options, progress = Options(overrides, offline=offline), make_progress(ERR, as_json)

    def work() -> dict[str, OutOfFold]:
        project = Project(config, options, progress)
        project.check_heads(names)
        points = {
            f"{name} {point}".strip(): spec
            for name in names or project.config.heads
            for point, spec in project.config.heads[name].points().items()
        }
        return {name: crossval(project, spec, folds, every) for name, spec in points.items()}

    found, error = report_errors(work, verbose)
    finish("crossval", "crossval", found, error, evaluation_tables.show_crossval, config, as_json, verbose)


@click.command("predictions")
@click.argument("model")
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
              help="A .csv or .parquet file, instead of CSV on stdout.")  # fmt: skip
@results_options
def predictions_command(model: str, output: Path | None, config: Path, as_json: bool, verbose: bool) -> None:
    """Write out what MODEL says of each image: id, path, label, split, group, predicted, and p_CLASS of each class.

    Paths are those of the day the model was made. One line for each labelled image; copies count once. Of a model with
    more than 10 million probabilities there are the images of val and test alone.
    """
    log_to_stderr(not verbose, verbose)
    if as_json and output is None:
        raise click.UsageError("--json tells where --output lies; name one")

    def work() -> dict[str, Any]:
        if output is not None:
            csv_parquet.check_path(output)
        found = predictions.read_predictions(registry.find(results_folder(config), model))
        if output is None:
            return {"csv": csv_parquet.as_csv(found.columns())}
        csv_parquet.write_table(found.columns(), output)
        return {"path": str(output), "images": len(found.rows)}

    found, error = report_errors(work, verbose)
    finish("predictions", "predictions", found, error, evaluation_tables.show_predictions, config, as_json, verbose)


@click.command("plot")
@click.argument("model")
@click.option("-o", "--output", type=click.Path(path_type=Path, file_okay=False), metavar="DIR",
              help="Where to.  [default: plots/NAME-KEY beside models/]")  # fmt: skip
@click.option("--format", "form", type=click.Choice(["png", "svg"]), default="png", show_default=True)
@results_options
def plot_command(
    model: str, output: Path | None, form: Literal["png", "svg"], config: Path, as_json: bool, verbose: bool
) -> None:
    """Draw what MODEL says of val and test: ROC, precision and recall, reliability, confusion matrices.

    It needs matplotlib: pip install 'frozenbase[plots]'.
    """
    log_to_stderr(not verbose, verbose)
    found, error = report_errors(lambda: plot.plot(registry.find(results_folder(config), model), output, form), verbose)
    paths = None if found is None else {"files": [str(path) for path in found]}
    finish("plot", "plot", paths, error, evaluation_tables.show_files, config, as_json, verbose)


COMMANDS = (compare_command, crossval_command, predictions_command, plot_command)
