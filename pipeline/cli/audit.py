"""Owns `pipeline audit`: options, output, exit codes. Not what it finds (evaluation/audit.py)."""

from pathlib import Path

import rich_click as click

from pipeline.cli.options import Call, shared_options
from pipeline.evaluation.audit import Audit, audit
from pipeline.project.project import Project
from pipeline.results import csv_parquet
from pipeline.show.audit_tables import show_audit


@click.command("audit")
@shared_options("set", "offline")
@click.option("--tap", metavar="NAME", help="Whose rows are compared.  [default: the first in pipeline.yaml]")
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
              help="Write all findings to this .csv or .parquet file.")  # fmt: skip
def audit_command(call: Call, tap: str | None, output: Path | None) -> None:
    """Look for wrong labels and odd images, by cached rows alone.

    A label is suspected where heads that never saw the image confidently say another class (confident learning). An
    image is odd where it is much farther from its nearest neighbours of its class than others are. Nothing is changed.
    """

    def work() -> Audit:
        if output is not None:
            csv_parquet.check_path(output)
        found = audit(Project(call.config, call.options, call.progress), tap)
        if output is not None:
            csv_parquet.write_table(found.columns(), output)
        return found

    call.finish(work, lambda found: show_audit(found, output))
