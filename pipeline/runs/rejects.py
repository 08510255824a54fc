"""Owns rejects.csv, and whether a run fails over rejected images. Not rejecting them (stages/data)."""

import csv
import io
import logging
from collections.abc import Sequence
from contextlib import suppress

from cache import atomic_files
from cache.errors import ImagesRejected, Unwritable
from pipeline.project.job_shares import Part
from pipeline.project.project import Project
from pipeline.runs.extraction import ExtractReport
from stages.data.scan import Reject
from stages.data.spreadsheet_text import escape_formula

log = logging.getLogger(__name__)

_OF_PARTS = "rejects-[0-9]*-of-[0-9]*.csv"


def file_name(part: Part | None) -> str:
    """Name of the list in the project's folder; each part has its own, since parts run at the same time."""
    return "rejects.csv" if part is None else f"rejects-{part.number}-of-{part.of}.csv"


def write_rejects(project: Project, report: ExtractReport) -> None:
    """Write the list of rejects, with the ids of readable files, or remove it if there are none.

    A run of all images also removes the lists of parts.
    """
    path = project.folder / file_name(report.part)
    try:
        if report.rejected:
            ids = {row.path: row.id for row in project.manifest.rows}
            rows = [(*map(escape_formula, reject), ids.get(reject.path, "")) for reject in report.rejected]
            text = io.StringIO(newline="")
            csv.writer(text).writerows([(*Reject._fields, "id"), *rows])
            atomic_files.publish(path, text.getvalue().encode("utf-8", "surrogateescape"))
        else:
            atomic_files.remove(path)
        atomic_files.remove(*(() if report.part else project.folder.glob(_OF_PARTS)))
    except Unwritable as error:
        log.warning("the list of rejects is not up to date: %s", error)


def read_ids(project: Project) -> set[str]:
    """Ids in the lists of the last run or its parts; empty if there is no readable list."""
    ids = set()
    for path in (project.folder / file_name(None), *project.folder.glob(_OF_PARTS)):
        with suppress(OSError, csv.Error), open(path, newline="", encoding="utf-8", errors="surrogateescape") as file:
            ids |= {row.get("id") or "" for row in csv.DictReader(file)}
    return ids - {""}


def fail_on_rejects(project: Project, report: ExtractReport) -> None:
    """Raises ImagesRejected if there are rejects under `data.on_bad: fail`, or nothing but rejects."""
    none_left = len(report.rejected) == report.images and report.part is None
    if report.rejected and (none_left or project.config.data.on_bad == "fail"):
        hint = f"repair or remove them (listed in {file_name(report.part)})"
        if none_left and project.config.data.table is not None:
            hint = f"correct data.root: the table's paths are relative to {project.source.text}"
        elif not none_left:
            hint += ", or continue without them: --set data.on_bad=skip"
        raise ImagesRejected(summarize(report.rejected, report.images), hint)


def summarize(rejected: Sequence[Reject], of: int) -> str:
    """`3 of 65 images were rejected; the first: a.png: not an image of a known format`."""
    first = f"{rejected[0].path}: {rejected[0].reason}"
    if len(rejected) == 1:
        return f"1 of {of} images was rejected: {first}"
    return f"{len(rejected)} of {of} images were rejected; the first: {first}"
