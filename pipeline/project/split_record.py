"""Owns splits.csv, which remembers drawn splits: reading it, adding lines, redrawing. Not the draw (stages/data).

A run only adds lines to it; the user and `pipeline splits redraw` change them.
"""

from __future__ import annotations

import csv
import io
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from cache import atomic_files, keys, regular_files
from cache.errors import Unusable, Unwritable
from pipeline.config.data_schema import Split
from stages.data import splits
from stages.data.manifest import SPLITS, Manifest, Row
from stages.data.spreadsheet_text import escape_formula
from stages.targets.classes import Classes
from stages.targets.target import Target

log = logging.getLogger(__name__)

SPLITS_CSV = "splits.csv"
_MOST_BYTES = 1_000_000_000
_MARK = "# method="
_COLUMNS = ("id", "split", "path")
_REDRAW = "draw all splits anew: pipeline splits redraw"
_PAUSE_S = 0.05
_TOLD_AFTER = 40
"""So many pauses in a row are no race: whoever holds the file was killed."""


class Line(NamedTuple):
    """What is remembered of an image. `path`, where its file was when it was drawn, is for those who edit the file."""

    split: str
    path: str


@dataclass(frozen=True)
class Redrawn:
    """What a redraw wrote to `path`: how many images, of which so many `moved`; all images by class and split."""

    path: Path
    images: int
    moved: int
    counts: dict[str, dict[str, int]]
    target: type[Target]

    def to_json(self) -> dict[str, Any]:
        return {**vars(self), "path": str(self.path), "target": self.target.kind}


class SplitRecord:
    """splits.csv of a project with those settings. `path` None: nothing is remembered, and all splits are drawn."""

    def __init__(self, path: Path | None, settings: Split, target: type[Target] = Classes) -> None:
        self.path, self.settings, self.target, self._pauses = path, settings, target, 0
        self._latest: tuple[bytes | None, Sequence[Row], dict[str, Line], tuple[Row, ...]] | None = None
        self.header = f"method={settings.method} val={settings.val} test={settings.test} seed={settings.seed}"

    def assign(self, rows: Sequence[Row]) -> tuple[Row, ...]:
        """The rows with their splits; those without a line are drawn. Raises Unusable for a wrong file."""
        return self._look(rows)[2]

    def add(self, rows: Sequence[Row]) -> tuple[Row, ...]:
        """The same, after the lines that are lacking were written; again, where another process was faster.

        Raises Unusable where they cannot be written.
        """
        while True:
            before, lines, assigned = self._look(rows)
            new = self._new_lines(rows, assigned, lines)
            if not new or self._replace(before, {**lines, **new}, len(new)):
                return assigned

    def redraw(self, rows: Sequence[Row], classes: Sequence[str]) -> Redrawn:
        """Write what is drawn now, in place of a file that this package wrote; counts are in the order of `classes`.

        Raises Unusable where there is nothing to draw, and as `add` does.
        """
        if self.path is None or self.settings.method == "hash":
            raise Unusable(
                "data.split.method is hash, which draws each image by its bytes and remembers nothing",
                "set data.split.method: stratified in pipeline.yaml",
            )
        while True:
            before = self._read()
            assigned = self._assign(rows, {})
            new = self._new_lines(rows, assigned, {})
            if not new:
                raise Unusable(
                    "there is no split to draw: no image has a label, or each has a split of your own",
                    "label images, or leave the split of some empty",
                )
            old = self._readable_lines(before)
            if self._replace(before, new, len(new)):
                moved = sum(image in old and old[image].split != line.split for image, line in new.items())
                counts = Manifest(assigned).counts(classes, self.target.counted)
                return Redrawn(self.path, len(new), moved, counts, self.target)

    def _look(self, rows: Sequence[Row]) -> tuple[bytes | None, dict[str, Line], tuple[Row, ...]]:
        """The bytes of the file, its lines, and the rows with their splits; as before where neither has changed."""
        before = self._read()
        if self._latest is None or self._latest[0] != before or self._latest[1] is not rows:
            lines = self._lines(rows, before)
            self._latest = before, rows, lines, self._assign(rows, lines)
        return before, *self._latest[2:]

    def _assign(self, rows: Sequence[Row], lines: Mapping[str, Line]) -> tuple[Row, ...]:
        settings = self.settings
        drawn = None if settings.method == "hash" else {image: line.split for image, line in lines.items()}
        if drawn and (groups := splits.describe_disagreement(rows, drawn)):
            log.warning(
                "the lines of %s put images of one group into different splits: %s; all of a group go to test, or else "
                "to val: make its lines agree",
                SPLITS_CSV,
                groups,
            )
        shares, target = (settings.val, settings.test), self.target
        return splits.assign_splits(
            rows, *shares, settings.seed, drawn, lambda labels: target.strata(labels).names, target.each
        )

    def _new_lines(self, rows: Sequence[Row], assigned: Sequence[Row], lines: Mapping[str, Line]) -> dict[str, Line]:
        """Lines of the labelled images whose split is drawn, and that have none."""
        new: dict[str, Line] = {}
        if self.settings.method == "hash" or self.path is None:
            return new
        for row, done in zip(splits.to_draw(rows), assigned, strict=True):
            if row.split is None and row.label is not None and row.id not in lines:
                new.setdefault(row.id, Line(str(done.split), escape_formula(row.path)))
        return new

    def _read(self) -> bytes | None:
        """The bytes of the file; None where there is none."""
        try:
            return None if self.path is None else regular_files.read_bytes(self.path, _MOST_BYTES)
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            if self.settings.method == "hash":
                return None
            raise Unusable(f"{self.path} cannot be read: {error}", "make it readable, or move it away") from error

    def _lines(self, rows: Sequence[Row], data: bytes | None) -> dict[str, Line]:
        """The lines of a file that has these settings; not read where no split is drawn, as it may be a table then."""
        if data is None or all(row.split is not None for row in splits.to_draw(rows)):
            return {}
        header, records = self._parse(data)
        if header is None and self.settings.method == "hash":
            return {}  # a table of the user's, perhaps
        if header is None:
            raise Unusable(
                f"{self.path} does not begin with {_MARK}..., so it is not what this package wrote",
                "call that file otherwise: here the splits that are drawn are remembered",
            )
        if header != self.header:
            there = f"{self.path} was drawn with {header:.120}, but pipeline.yaml has {self.header}"
            if self.settings.method == "hash":
                raise Unusable(there, "hash remembers nothing: remove the file, or set data.split as it was")
            raise Unusable(there, f"set data.split as it was, or {_REDRAW}")
        return self._check(records)

    def _readable_lines(self, data: bytes | None) -> dict[str, Line]:
        """The lines of a file with any settings; none of one that has a mistake. Raises Unusable if it is not ours."""
        if data is None:
            return {}
        header, records = self._parse(data)
        if header is None:
            raise Unusable(
                f"{self.path} does not begin with {_MARK}..., so it is not what this package wrote, and is kept",
                "call that file otherwise, and redraw",
            )
        try:
            return self._check(records)
        except Unusable:
            return {}

    def _parse(self, data: bytes) -> tuple[str | None, list[tuple[int, list[str]]]]:
        """The settings in the first line, None where there are none, and the fields of the others, by line.

        As spreadsheets save it too: with a byte order mark, other separators, spaces, empty fields behind.
        """
        text = data.decode("utf-8-sig", "surrogateescape")
        first, _, rest = text.partition("\n")
        header = " ".join(first.strip(' \t\r,;"').split())
        if not header.startswith(_MARK):
            return None, []
        separator = max(",;\t", key=rest.partition("\n")[0].count)
        reader = csv.reader(io.StringIO(rest, newline=""), delimiter=separator)
        try:
            records = [(reader.line_num + 1, [field.strip() for field in fields]) for fields in reader]
        except csv.Error as error:
            raise Unusable(f"{self.path}, line {reader.line_num + 1}: {error}", f"correct it, or {_REDRAW}") from error
        return header.removeprefix("# "), [(at, fields) for at, fields in records if any(fields)]

    def _check(self, records: Sequence[tuple[int, list[str]]]) -> dict[str, Line]:
        """The lines, by id. Raises Unusable, naming its number, for one that is none."""
        number, names = records[0] if records else (2, [])
        names = [name.lower() for name in names]
        there = sorted(filter(None, names))
        if there not in (sorted(_COLUMNS), sorted(_COLUMNS[:2])):
            raise self._wrong(number, f"the columns {', '.join(there) or 'are missing'}", ", ".join(_COLUMNS))
        lines: dict[str, Line] = {}
        seen: dict[str, int] = {}
        for number, fields in records[1:]:
            found = dict(zip(names, fields, strict=False))
            image, split = found.get("id", "").lower(), found.get("split", "").lower()
            if not keys.is_digest(image):
                raise self._wrong(number, f"the id {found.get('id', '')!r}", "64 hex digits")
            if split not in SPLITS:
                raise self._wrong(number, f"the split {split!r}", "train, val or test")
            if lines.setdefault(image, Line(split, found.get("path", ""))).split != split:
                raise self._wrong(number, f"{split} for the image of line {seen[image]}", lines[image].split)
            seen.setdefault(image, number)
        return lines

    def _wrong(self, number: int, found: str, expected: str) -> Unusable:
        return Unusable(f"{self.path}, line {number}: {found:.120}; expected {expected}", f"correct it, or {_REDRAW}")

    def _replace(self, before: bytes | None, lines: Mapping[str, Line], new: int) -> bool:
        """Whether the lines were written; not where another process is writing, or the file is no longer `before`."""
        assert self.path is not None
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(_COLUMNS)
        writer.writerows([image, *line] for image, line in sorted(lines.items()))
        data = f"# {self.header}\n{out.getvalue()}".encode("utf-8", "surrogateescape")
        try:
            with atomic_files.exclusive(self.path) as held:
                if held and self._read() == before:
                    atomic_files.publish(self.path, data)
                    return True
        except Unwritable as error:
            lacking = f"{new:,} labelled images have no line in it"
            raise Unusable(f"{error.message}; {lacking}, and drawn splits must be remembered", error.hint) from error
        self._pauses += 1
        if self._pauses == _TOLD_AFTER:
            log.warning("another process holds %s, or was killed while it did; waiting a minute at most", self.path)
        time.sleep(_PAUSE_S)
        return False
