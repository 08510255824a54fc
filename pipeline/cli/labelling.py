"""Owns the commands curve and suggest. Not their work (pipeline/labelling), nor their tables."""

from pathlib import Path

import rich_click as click

from cache import atomic_files
from cache.errors import Unusable
from pipeline.cli.options import Call, shared_options
from pipeline.labelling.curve import Learned, learning_curve
from pipeline.labelling.suggest import Suggested, suggest
from pipeline.project.project import Project
from pipeline.results import csv_parquet
from pipeline.serving import recorded_model
from pipeline.show.labelling_tables import show_curve, show_suggestions
from stages.metrics import plots
from stages.metrics.plots import Format


@click.command("curve")
@click.argument("head")
@shared_options("set", "offline", "quiet")
@click.option("--repeats", type=click.IntRange(1), default=1, show_default=True,
              help="How often folds and subsets are drawn.")  # fmt: skip
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
              help="Draw the curve, into this .png or .svg file ('.[plots]').")  # fmt: skip
def curve_command(call: Call, head: str, repeats: int, output: Path | None) -> None:
    """Would more images help HEAD? Its figures against the number of images, and a forecast at twice as many.

    HEAD is the name of a head in pipeline.yaml. Heads are fitted on subsets of the images of train and val, from cached
    rows, and judged out of fold; test is not looked at. A power law through these figures gives the forecast, with an
    interval that holds 90 % for a head of twice as many images, judged on new ones. A dense head takes long.
    """

    def work() -> Learned:
        form = _form(output) if output is not None else None
        found = learning_curve(Project(call.config, call.options, call.progress), head, repeats)
        if output is not None and form is not None:
            atomic_files.publish(output.absolute(), found.draw(form))
        return found

    call.finish(work, lambda found: show_curve(found, output))


@click.command("suggest")
@click.argument("head")
@click.option("--images", "folders", multiple=True, required=True, metavar="FOLDER",
              help="Images without a label: a folder, with its subfolders, or a URL; may be given again.")  # fmt: skip
@click.option("-n", "--number", "count", type=click.IntRange(1), default=50, show_default=True, help="How many.")
@click.option("--replays", type=click.IntRange(0), default=10, show_default=True,
              help="How often suggestions are tried on the labels that are there; 0 for not.")  # fmt: skip
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
              help="Write the suggestions to this .csv or .parquet file.")  # fmt: skip
@shared_options("set", "offline", "quiet")
def suggest_command(
    call: Call, head: str, folders: tuple[str, ...], count: int, replays: int, output: Path | None
) -> None:
    """Which images to label next for HEAD: those it is unsure of, unlike each other, no copies (BADGE).

    HEAD is a head of pipeline.yaml that was trained, or any saved model's name. Rows of the images are computed and
    cached like any others. What suggestions save is measured on the labels you have: most are hidden, and rounds of
    suggestions and of random choice are replayed. It may be nothing.
    """

    def work() -> Suggested:
        if output is not None:
            csv_parquet.check_path(output)
        recorded_model.check_places(call.overrides)
        found = suggest(Project(call.config, call.options, call.progress), head, folders, count, replays)
        if output is not None:
            csv_parquet.write_table(found.columns(), output)
        return found

    call.finish(work, lambda found: show_suggestions(found, output), check=Suggested.check)


def _form(output: Path) -> Format:
    """Raises Unusable where that is no name of a picture, NotAvailable where none can be drawn."""
    with plots.style():
        forms: dict[str, Format] = {".png": "png", ".svg": "svg"}
        if output.suffix.lower() not in forms:
            raise Unusable(f"--output {output}: expected a name that ends in .png or .svg", "for example: curve.png")
        return forms[output.suffix.lower()]
