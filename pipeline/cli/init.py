"""Owns `pipeline init`: options, output, exit codes. Not the work (init_project.py)."""

from pathlib import Path

import rich_click as click

from pipeline.cli.options import Call
from pipeline.config import init_project
from pipeline.config.init_project import Started
from pipeline.show.console import echo, format_config_option
from stages.sources.listing import FollowLinks


@click.command("init")
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False), default=".")
@click.option("--images", metavar="PATH|URL", help="The images: a folder or URL.  [default: FOLDER/images]")
@click.option("--table", type=click.Path(path_type=Path, dir_okay=False), help="Labels: .csv, .jsonl or .parquet.")
@click.option("--follow-links", is_flag=True, help="Follow links that lead out of the images' folder.")
@click.option("--demo", is_flag=True, help="Copy the demo dataset: 2,624 images of solar cells.")
def init_command(folder: Path, images: str | None, table: Path | None, follow_links: bool, demo: bool) -> None:
    """Look at the images, and write a commented pipeline.yaml to FOLDER (default: here)."""
    if demo and (images is not None or table is not None):
        raise click.UsageError("--demo brings its own images; leave --images and --table out")
    links: FollowLinks = "all" if follow_links else "inside"

    def work() -> Started:
        return init_project.init_demo(folder) if demo else init_project.init(folder, images, table, links)

    def show(started: Started) -> None:
        for line in started.lines():
            echo(line)
        if demo:
            echo(init_project.DEMO_LICENCE)
        echo(f"wrote {started.config}; next: pipeline run{format_config_option(started.config)}")

    Call("init").finish(work, show)
