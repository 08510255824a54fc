"""Owns `pipeline report`: options, output, exit codes. Not what is in a report (report/)."""

from pathlib import Path

import rich_click as click

from pipeline.cli.options import Call, shared_options
from pipeline.project.project import Project
from pipeline.report.report import PARTS, Written, write_report
from pipeline.show.console import echo, relative_path


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

    call.finish(work, _show)


def _show(found: Written) -> None:
    done = "is up to date" if found.reused else f"written in {found.seconds:.0f} s"
    echo(f"report on {found.model}: {relative_path(found.path)}, {found.bytes / 1e6:.1f} MB, {done}")
