"""Owns `pipeline init`: a commented pipeline.yaml for a folder of images, and the demo dataset. Not the scan."""

import csv
import importlib.util
import os
import shutil
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any

from cache import atomic_files
from cache.errors import Unusable
from cache.hash_index import HashIndex, default_index_path
from pipeline.config import guess_target, yaml_file
from pipeline.config.data_schema import Columns
from stages.data import scan, tables
from stages.data.cells import Cells
from stages.data.scan import Found
from stages.runtime.counted_words import count_of
from stages.sources.listing import FollowLinks
from stages.sources.source import Source
from stages.targets.kinds import KINDS

DEMO_LICENCE = "ELPV dataset (Buerhop-Lutz et al. 2018, Deitsch et al. 2019), CC BY-NC-SA 4.0: not for commercial use"

_OF_NUMBERS = (
    ("logistic: {kind: logistic, tap: pooled, seed: 0}", "ridge: {kind: ridge, tap: pooled, seed: 0}   "),
    ("  # ridge: {kind: ridge, alpha: null, seed: 0}  ", "  # firm: {kind: ridge, alpha: 1000, seed: 0}   "),
    ("kinds: [logistic, ridge, knn]", "kinds: [ridge, knn]          "),
    ("{head: logistic, ", "{head: ridge, "),
)
"""What the template has for classes, and instead of it for numbers."""


@dataclass(frozen=True)
class Started:
    """The images that init found, and the pipeline.yaml that it wrote."""

    config: Path
    images: str
    found: Found
    cells: Cells | None = None
    """How the table has what is to be predicted; None: as classes."""

    def lines(self) -> list[str]:
        """Summary of the images, for printing."""
        rows = self.found.rows
        labels = Counter(row.label for row in rows if row.label is not None)
        splits = Counter(row.split for row in rows if row.split is not None)
        more = f", and {len(labels) - 8} more" if len(labels) > 8 else ""
        lines = [f"{count_of(len(rows), 'image')} in {self.images}"]
        if labels and self.cells is not None:
            kind, columns = self.cells.kind, ", ".join(self.cells.columns)
            unlabelled = sum(row.label is None for row in rows)
            lines.append(f"to predict: {kind}, by the column{'s' if ',' in columns else ''} {columns} (data.target)")
            lines += [f"without a label: {unlabelled}"] if unlabelled else []
        elif labels:
            lines.append("classes: " + ", ".join(f"{k} {n}" for k, n in sorted(labels.items())[:8]) + more)
            if loose := [row.path for row in rows if row.label is None]:
                lines.append(f"in no class folder, so without a label: {len(loose)}, such as {loose[0]}")
        else:
            lines.append("no labels: features can be extracted (pipeline run extract); a head needs labels")
        if splits:
            lines.append("splits made before: " + ", ".join(f"{k} {n}" for k, n in splits.items()))
        if self.found.ignored:
            kinds = ", ".join(f"{kind} {n}" for kind, n in self.found.ignored.most_common(5))
            lines.append(f"{self.found.ignored.total()} other files are ignored: {kinds}")
        lines += [f"cannot be used: {reject.path}: {reject.reason}" for reject in self.found.rejected[:5]]
        return lines + [f"warning: {note}" for note in self.found.notes]


def init(folder: Path, images: str | None, table: Path | None = None, follow_links: FollowLinks = "inside") -> Started:
    """Write `folder`/pipeline.yaml for the images in `images`, with the labels in `table` if there is one.

    images: a folder, an archive or a URL; by default `folder`/images, or else the folder of the table.
    Raises Unusable where there is a pipeline.yaml, or the images cannot be used.
    """
    target = _new_config(folder)
    if images is None:
        images = str(folder / "images" if table is None or (folder / "images").is_dir() else table.parent)
    source = Source(images, follow_links, index=HashIndex(default_index_path()), called="--images")
    if not (source.is_remote or source.is_one_file or os.path.isdir(images)):
        what = "is a file; expected a folder of images" if os.path.exists(images) else "is not there"
        example = folder if folder.is_dir() and folder != Path() else "PATH"
        hint = f"name the folder of the images: pipeline init --images {example}"
        raise Unusable(f"{images} {what}", hint)
    cells = None if table is None else guess_target.guess_cells(tables.read_records(table, []))
    found = _look(source, table, cells)
    different = {row.label for row in found.rows if row.label is not None}
    about = f"Written by pipeline init for {len(found.rows)} images."
    labels = None if table is None else _relative(table, folder)
    root = images if source.is_remote else _relative(Path(images), folder)
    _write(target, about, root, None, len(different) > 1, labels, follow_links, cells)
    return Started(target, images, found, cells)


def _look(source: Source, table: Path | None, cells: Cells | None) -> Found:
    """The images, by folders or table. Raises Unusable where init should be called in another way."""
    try:
        if table is not None:
            return tables.read_table(table, Columns().model_dump(), source, source.follow_links, cells)
        found = scan.scan_folders(source)
    except Unusable as error:
        other = "name another folder with --images" if table is None else "or write pipeline.yaml by hand"
        raise Unusable(error.message, other if table is None else f"{error.hint}, {other}") from error
    images = source.text
    if not found.rows:
        first = found.rejected[0]
        raise Unusable(
            f"{images}: no images; {len(found.rejected)} links or folders cannot be used, the first: {first.path} "
            f"{first.reason.partition(';')[0]}",
            f"if you trust where the links lead: pipeline init --images {images} --follow-links",
        )
    if source.list().names and (inner := scan.find_inner_folders(found.rows)) is not None:
        raise Unusable(f"{images}: {inner[1]}", f"if these are the classes: pipeline init --images {images}/{inner[0]}")
    return found


def _relative(path: Path, folder: Path) -> str:
    """As pipeline.yaml in `folder` names it: relative, if it is below."""
    relative = os.path.relpath(path, folder)
    return str(path.absolute()) if relative.startswith("..") else relative


def init_demo(folder: Path) -> Started:
    """Copy the ELPV solar cells to `folder`/images/functional and defective, and write pipeline.yaml for them."""
    target = _new_config(folder)
    spec = importlib.util.find_spec("elpv_dataset")
    if spec is None or not spec.submodule_search_locations:
        raise Unusable("the demo images are not installed", "in frozenbase's source folder: pip install '.[demo]'")
    source = Path(spec.submodule_search_locations[0]) / "data"
    with open(source / "labels.csv", newline="") as file:
        for path, probability, _kind in csv.reader((" ".join(line.split()) for line in file), delimiter=" "):
            label = "defective" if float(probability) >= 0.5 else "functional"
            _copy(source / path, folder / "images" / label / Path(path).name)
    _write(target, DEMO_LICENCE, "images", ["functional", "defective"], licence=DEMO_LICENCE)
    return Started(target, str(folder / "images"), scan.scan_folders(folder / "images"))


def _new_config(folder: Path) -> Path:
    """Raises Unusable where there is a pipeline.yaml already."""
    target = folder / "pipeline.yaml"
    if target.exists():
        raise Unusable(f"{target} exists already", f"edit it, or remove it first; then: pipeline run -c {target}")
    return target


def _write(
    target: Path, about: str, root: str, classes: list[str] | None, trainable: bool = True, table: str | None = None,
    follow_links: FollowLinks = "inside", cells: Cells | None = None, licence: str | None = None,
) -> None:  # fmt: skip
    """Write pipeline.yaml; with fewer than two classes, the heads are commented out."""
    listed = (
        f"classes: [{', '.join(classes)}]   # their order; with two, the second is the positive one"
        if classes
        else "# classes: null             # their order, sorted by default; with two, the second is the positive one"
    )
    labels = f"table: {yaml_file.format_value(table)}   # its paths are relative to root"
    if table is None:
        labels = "# table: null               # labels.csv, .jsonl or .parquet, or a manifest; paths relative to root"
    links = "follow_links: all           # wherever they lead | inside: only below root"
    if follow_links == "inside":
        links = "# follow_links: inside      # links out of root are rejected | all: followed, if you trust them"
    template = Template((Path(__file__).parent / "template.yaml").read_text("utf-8"))
    text = template.substitute(
        about=about, root=yaml_file.format_value(root), classes=listed, table=labels, links=links,
        target=_target_line(cells), card=_card_line(licence),
    )  # fmt: skip
    for logistic, ridge in _OF_NUMBERS if cells is not None and KINDS[cells.kind].linear == "ridge" else ():
        text = text.replace(logistic, ridge)
    if not trainable:
        none = "heads: {}                     # none yet: fewer than two classes. With labels (or data.table):"
        text = text.replace("heads:\n  logistic:", f"{none}\n  # logistic:")
    try:
        atomic_files.publish(target, text.encode("utf-8"))
    except UnicodeEncodeError as error:
        raise Unusable(f"{root!r} is not valid Unicode, as pipeline.yaml must be", "rename the folder") from error


def _target_line(cells: Cells | None) -> str:
    """The line on what is predicted."""
    if cells is None:
        return "# target: {kind: classes}   # or labels, number, soft: several columns with columns: [a, b]"
    written: dict[str, Any] = {"kind": cells.kind}
    if list(cells.columns) != ["label"]:
        written["columns"] = list(cells.columns)
    if cells.separator != ";":
        written["separator"] = cells.separator
    return f"target: {yaml_file.format_value(written)}   # guessed from the table; or classes, labels, number, soft"


def _card_line(licence: str | None) -> str:
    """The line on what only people know of a model."""
    if licence is None:
        return "# card: {intended_use: null, limits: null, data_licence: null}   # texts for pipeline report"
    return (
        f"card: {{data_licence: {yaml_file.format_value(licence)}}}   # for pipeline report; also intended_use, limits"
    )


def _copy(source: Path, target: Path) -> None:
    """A complete copy or none. Not a link: an edit would change the installed package."""
    if not target.exists():
        part = target.with_name(f".{target.name}.part")
        with atomic_files.naming_path(target, "written"):
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                shutil.copyfile(source, part)
                os.replace(part, target)
            except BaseException:
                part.unlink(missing_ok=True)
                raise
