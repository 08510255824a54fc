"""Owns `pipeline init` and `pipeline schema`: options, output, exit codes. Not their work (pipeline/config)."""

from pathlib import Path

import rich_click as click

from cache import atomic_files
from pipeline.cli.options import Call
from pipeline.config import init_project, json_schema
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


@click.command("schema")
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
              help="Write it to this file, as pipeline.schema.json beside pipeline.yaml.")  # fmt: skip
def schema_command(output: Path | None) -> None:
    """Print the JSON Schema of pipeline.yaml, by which editors complete and check it without a network.

    `pipeline init` writes it beside pipeline.yaml, and names it in the first line. After an update of this package:
    pipeline schema -o pipeline.schema.json
    """

    def work() -> bytes:
        text = json_schema.format_schema()
        if output is not None:
            atomic_files.publish(output.absolute(), text)
        return text

    def show(text: bytes) -> None:
        echo(f"wrote {output}") if output is not None else echo(text.decode().rstrip("\n"), lines=True)

    Call("schema").finish(work, show)
