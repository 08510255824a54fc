"""Owns the table of images (id, path, label, split, group), its file and its digest. Not finding images (scan.py)."""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from cache import keys
from cache.errors import Unusable
from stages.runtime.counted_words import count_of

SPLITS = ("train", "val", "test")

_SHOWN = 5  # of what a message lists


class Row(NamedTuple):
    """One image file. `id` is the SHA-256 of its bytes; `path` is relative to the data root, with slashes."""

    id: str
    path: str
    label: str | None = None
    split: str | None = None
    group: str | None = None


@dataclass(frozen=True)
class Manifest:
    """Rows in the order of their source. Saved as JSON lines, named by the SHA-256 of those bytes."""

    rows: tuple[Row, ...]

    def to_bytes(self) -> bytes:
        return b"".join(self._lines())

    def _lines(self) -> Iterator[bytes]:
        encode, names = json.JSONEncoder().encode, Row._fields
        for row in self.rows:
            line = {k: v for k, v in zip(names, row, strict=True) if v is not None}
            yield encode(line).encode("ascii") + b"\n"

    @classmethod
    def from_bytes(cls, data: bytes) -> Manifest:
        """Raises ValueError for lines that are no rows."""
        try:
            return cls(tuple(Row(**json.loads(line)) for line in data.splitlines()))
        except TypeError as error:
            raise ValueError(f"not a manifest: {error}") from error

    @cached_property
    def digest(self) -> str:
        found = hashlib.sha256()
        for line in self._lines():
            found.update(line)
        return found.hexdigest()

    @cached_property
    def ids(self) -> tuple[str, ...]:
        """Unique ids, in order of first appearance."""
        return tuple(dict.fromkeys(row.id for row in self.rows))

    @cached_property
    def samples(self) -> tuple[Row, ...]:
        """What a head is fitted and judged on: the sorted set of labelled (id, label, split, group), without paths.

        Copies count once; of several groups of an image, the first by name counts.
        """
        unique: dict[tuple[str, str, str | None], Row] = {}
        for row in sorted(self.rows, key=lambda row: row.group or "\U0010ffff"):
            if row.label is not None:
                unique.setdefault((row.id, row.label, row.split), row._replace(path=""))
        return tuple(sorted(unique.values(), key=lambda row: tuple(part or "" for part in row)))

    @cached_property
    def samples_digest(self) -> str:
        """Digest of `samples`: unchanged by renaming, moving and reordering."""
        fields = [[row.id, row.label, row.split, row.group] for row in self.samples]
        return keys.digest("samples", {"rows": fields})

    @cached_property
    def pooled(self) -> Manifest:
        """The same with val as a part of train."""
        if all(row.split != "val" for row in self.rows):
            return self
        return Manifest(tuple(row._replace(split="train") if row.split == "val" else row for row in self.rows))

    def without_val(self) -> Manifest:
        return Manifest(tuple(row for row in self.rows if row.split != "val"))

    def without(self, ids: Iterable[str]) -> Manifest:
        excluded = set(ids)
        return Manifest(tuple(row for row in self.rows if row.id not in excluded)) if excluded else self

    def counts(
        self, order: Sequence[str] = (), counted: Callable[[str], Sequence[str]] = lambda label: (label,)
    ) -> dict[str, dict[str, int]]:
        """Images per class and split: {label: {split: n}}; classes in that order, others sorted behind them.

        counted: what an image of that label counts as, where that isn't the label.
        """
        table: dict[str, Counter[str]] = defaultdict(Counter)
        for row in self.samples:
            for name in counted(row.label or ""):
                table[name][row.split or ""] += 1
        ranks = {label: rank for rank, label in enumerate(order)}
        labels = sorted(table, key=lambda label: (ranks.get(label, len(ranks)), label))
        return {label: {split: table[label][split] for split in SPLITS} for label in labels}

    def check_labels(self) -> None:
        """Raises Unusable where the same bytes have two labels (copied instead of moved, perhaps)."""
        first: dict[str, str] = {}  # and no set for each of a million
        labelled = ((row.id, row.label) for row in self.rows if row.label is not None)
        clashes = {image for image, label in labelled if first.setdefault(image, label) != label}
        if clashes:
            raise Unusable(
                f"{count_of(len(clashes), 'image')} with two labels for the same bytes: "
                f"{_pairs(self.rows, clashes, True)}",
                "remove the wrong copy of each, or correct its label in the table",
            )

    @cached_property
    def leaks(self) -> str:
        """Byte-identical images, and groups, that are in two splits, as text; empty where there are none."""
        first: dict[str, str | None] = {}
        images = {row.id for row in self.rows if first.setdefault(row.id, row.split) != row.split}
        of_group: dict[str, str | None] = {}
        grouped = ((row.group, row.split) for row in self.rows if row.group is not None)
        leaked = {group for group, split in grouped if of_group.setdefault(group, split) != split}
        groups = [f"group {group}" for group in of_group if group in leaked]
        texts = [f"{count_of(len(images), 'image')}: {_pairs(self.rows, images, False)}"] if images else []
        texts += [f"{count_of(len(groups), 'group')}: {', '.join(groups[:_SHOWN])}"] if groups else []
        return "; ".join(texts)


def _pairs(rows: Iterable[Row], ids: set[str], labels: bool) -> str:
    """`a.png (cat) = b.png (dog); ...` for the first few of `ids`: with their labels, or with their splits."""
    paths: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        if row.id in ids:
            paths[row.id].append(f"{row.path} ({row.label if labels else row.split})")
    shown = [" = ".join(found) for found in list(paths.values())[:_SHOWN]]
    return "; ".join(shown) + (f"; and {len(paths) - _SHOWN} more" if len(paths) > _SHOWN else "")
