"""Owns the `pipeline predict` command: options and printing. Not the predictions (serving/predict.py)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import rich_click as click
from rich.cells import cell_len, set_cell_size

from pipeline.cli.options import Call, report_errors, shared_options
from pipeline.project.project import Project
from pipeline.results import csv_parquet
from pipeline.serving import recorded_model
from pipeline.serving.predict import Predicted, predict
from pipeline.show.console import ERR, echo, escape_line
from stages.metrics import calibration
from stages.runtime.counted_words import count_of


@click.command("predict")
@click.argument("model")
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
              help="A .csv or .parquet file, with the probability of each class, instead of a table.")  # fmt: skip
@click.option("--keep", is_flag=True, help="Store the rows of new images in the cache.")
@shared_options("set", "offline", "quiet")
def predict_command(call: Call, model: str, paths: tuple[str, ...], output: Path | None, keep: bool) -> None:
    """Classify images with MODEL. PATHs are files, folders or URLs (s3://...); folders are searched recursively.

    MODEL keeps the settings, base and weights it was made with; --set can change places only. Cached rows are used,
    missing ones computed and not stored. Images that cannot be used are listed on stderr, and the exit code is 3.

    predicted: the most probable class, as in `pipeline predictions` and in all figures.

    confidence: its probability, calibrated by the temperature that was fitted on val or folds, if they have enough
    images.

    at_threshold (--json, --output): the class by the threshold that was fitted there, if any.

    unknown: yes where an image is none of what MODEL knows: it is farther from the images that MODEL was fitted on than
    all but 5 % of these (heads.NAME.unknown). unknown_score (--json, --output): by how much; above 1 it is unknown.

    p_CLASS (--json, --output): probabilities without a temperature, as in `pipeline predictions`. The threshold applies
    to these.
    """

    def work() -> Predicted:
        if output is not None:
            csv_parquet.check_path(output)
        recorded_model.check_places(call.overrides)
        found = predict(Project(call.config, call.options, call.progress), model, paths, keep)
        if output is not None:
            csv_parquet.write_table(found.columns(), output)
        return found

    found, error = report_errors(work, call.verbose)
    if found is not None:
        _, error = report_errors(found.check, call.verbose)
    report: Any = found
    if call.as_json and found is not None and output is not None:
        report = {**found.to_json(), "path": str(output)}
        del report["predictions"]
    call.show(report, error, lambda shown: _show(shown, output, call.quiet))


def _show(found: Predicted, output: Path | None, quiet: bool) -> None:
    """The table, or its path, on stdout; bad images and notes on stderr."""
    if output is not None:
        echo(f"{count_of(len(found.paths), 'image')}: {output}")
    elif found.paths:
        _show_table(found)
    for reject in found.rejected[1:]:  # the error names the first
        echo(f"  rejected {reject.path}: {reject.reason}", ERR)
    if quiet:
        return
    others = f"; {count_of(found.ignored, 'other file')} ignored" if found.ignored else ""
    echo(f"{found.model}: {found.computed:,} computed, {found.reused:,} reused{others}", ERR)
    on = found.model.figures.chosen_on
    if found.confidence is not None:
        sure = "not calibrated" if found.temperature is None else f"calibrated on {on}"
        echo(f"predicted: the most probable class; confidence: its probability, {sure}", ERR)
    elif found.classes.probabilities:
        echo(f"predicted: labels of 0.5 or more; at_threshold (in files): those of their threshold on {on}", ERR)
    elif found.model.calibration.half_widths:
        echo(f"low and high: an interval that holds 95 % of images like those of {on}", ERR)
    if found.threshold is not None:
        marked = "; * marks other classes" if found.at_threshold != found.predicted else ""
        echo(f"at_threshold: {found.classes[1]} from p_{found.classes[1]} {found.threshold:.3f} on{marked}", ERR)
    if found.unknown is not None and found.model.unknown is not None:
        some = f"{found.unknown.sum():,} of {count_of(len(found.paths), 'image')}"
        echo(f"unknown: {some}, none of what the model knows; of its own kind, {found.model.unknown.rate:.2%} are", ERR)
    fitted = found.model.calibration
    for note in (*(fitted.notes or ()), *calibration.describe_limits(fitted)):
        echo(note, ERR)


def _show_table(found: Predicted) -> None:
    """One line for each image, the path last and never broken."""
    if found.confidence is None:
        hidden = ("id", "path", "at_threshold")
        columns = found.columns().items()
        shown: dict[str, Any] = {n: v for n, v in columns if n not in hidden and not n.startswith("p_")}
        shown.pop("unknown_score", None)
    else:
        both = zip(found.predicted, found.at_threshold or found.predicted, strict=True)
        marked = [name if name == other else f"{name} *" for name, other in both]
        shown = {"predicted": marked, "confidence": [f"{confidence:.3f}" for confidence in found.confidence]}
    if found.unknown is not None:
        shown["unknown"] = ["yes" if one else "" for one in found.unknown]
    cells = [_aligned(name, values, number=name == "confidence") for name, values in shown.items()]
    texts = ("  ".join(row) for row in zip(*cells, ["path", *found.paths], strict=True))
    echo("\n".join(map(escape_line, texts)), lines=True)


def _aligned(name: str, values: Sequence[Any], number: bool) -> list[str]:
    """A column with its title, of one width: numbers to the right."""
    number = number or not any(isinstance(value, str) for value in values)
    texts = [escape_line(text if isinstance(text, str) else f"{text:.4g}") for text in (name, *values)]
    width = max(map(cell_len, texts))
    return [f"{text:>{width}}" if number else set_cell_size(text, width) for text in texts]
