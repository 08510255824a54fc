"""Owns `pipeline audit`: options, output, exit codes. Not what it finds (evaluation/audit.py)."""

from pathlib import Path

import rich_click as click

from cache.errors import Unusable
from pipeline.cli.options import Call, shared_options
from pipeline.evaluation.audit import audit
from pipeline.evaluation.audit_findings import Audit
from pipeline.project.project import Project
from pipeline.results import csv_parquet
from pipeline.show.audit_tables import show_audit

_PATH = click.Path(path_type=Path, dir_okay=False)


@click.command("audit")
@shared_options("set", "offline")
@click.option("--tap", metavar="NAME", help="Whose rows are compared.  [default: the first in pipeline.yaml]")
@click.option("-o", "--output", type=_PATH, metavar="FILE", help="Write all findings to this .csv or .parquet file.")
@click.option("--sample", type=click.IntRange(min=1), metavar="N",
              help="Look at N images, drawn at random, instead of all.")  # fmt: skip
@click.option("--write-groups", "groups", type=_PATH, metavar="FILE",
              help="Write a table for data.table, in which copies are a group; yours is kept otherwise.")  # fmt: skip
def audit_command(call: Call, tap: str | None, output: Path | None, sample: int | None, groups: Path | None) -> None:
    """Look for copies, suspect labels and odd images, by cached rows and the pictures.

    Copies: pictures that agree all over, though resized, recompressed, brighter or mirrored. Suspect labels: heads that
    never saw the image confidently say another class (confident learning). Odd images: much farther from their nearest
    neighbours of their class than others are. Odd pictures: of one colour, tiny, of an odd shape, blurred, dark, pale.
    It also tells whether the class can be told from size, format or folder alone.
    """
    written = [path for path in (output, groups) if path is not None]

    def work() -> Audit:
        if output is not None:
            csv_parquet.check_path(output)
        if output is not None and output == groups:
            raise Unusable(f"{output} is named twice", "name two files")
        found = audit(Project(call.config, call.options, call.progress), tap, groups, sample)
        if output is not None:
            csv_parquet.write_table(found.columns(), output)
        return found

    call.finish(work, lambda found: show_audit(found, written, output is not None))
