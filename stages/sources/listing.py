"""Owns what a listing of images is, whatever lists them, and which names are images, splits and archives."""

import os
import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

EXTENSIONS = frozenset(
    [".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif", ".avif", ".heic", ".heif"]
)  # fmt: skip
ARCHIVES = frozenset([".tar", ".parquet"])
SPLIT_NAMES = {
    "train": "train", "training": "train",
    "val": "val", "valid": "val", "validation": "val", "dev": "val",
    "test": "test", "testing": "test",
}  # fmt: skip
SYSTEM = frozenset(
    ["@eaDir", "#recycle", "$RECYCLE.BIN", "System Volume Information", "__MACOSX", "__pycache__", "lost+found"]
)
"""Folders of systems, whose images are nobody's."""

FollowLinks = Literal["inside", "all"]
"""inside: links are followed as long as they stay under the folder | all: wherever they lead."""

OnHashed = Callable[[int], object]
"""Called with a number of images as they are read."""


class Reject(NamedTuple):
    """An image that cannot be used, with the reason."""

    path: str
    reason: str


class Member(NamedTuple):
    """An image in an archive: its place, what the archive says of it, and its SHA-256, None if it was not read."""

    place: str
    label: str | None = None
    split: str | None = None
    group: str | None = None
    sha256: str | None = None


class Inside(NamedTuple):
    """An image in an archive, by its name there. start, size: in a tar, bytes; in Parquet, row group and row in it."""

    name: str
    start: int
    size: int
    label: str | None = None
    split: str | None = None
    group: str | None = None
    sha256: str | None = None


@dataclass
class Contents:
    """What is in an archive; `rejected` by names there, "" for the archive itself."""

    members: list[Inside] = field(default_factory=list)
    rejected: list[Reject] = field(default_factory=list)
    ignored: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)


@dataclass
class Listing:
    """The images below a root, by sorted names relative to it, with slashes: files or objects, or else members.

    names: of files or objects. versions: of each object, a text that is another where its bytes are, "" where that is
    not certain. members: by name, ARCHIVE/MEMBER. ignored: files of other kinds, counted.
    """

    names: list[str] = field(default_factory=list)
    versions: Mapping[str, str] = field(default_factory=dict)
    members: dict[str, Member] = field(default_factory=dict)
    ignored: Counter[str] = field(default_factory=Counter)
    rejected: list[Reject] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def extension_of(name: str) -> str:
    return os.path.splitext(name)[1].lower()


def splits_of(archives: Collection[str]) -> dict[str, str]:
    """The split that the name of each archive says, as train-00000-of-00003.parquet; {} unless they say two or more."""
    found = {}
    for name in archives:
        said = {SPLIT_NAMES[word] for word in re.split(r"[^a-z]+", name.lower()) if word in SPLIT_NAMES}
        if len(said) == 1:
            found[name] = said.pop()
    return found if len({*found.values()}) > 1 else {}
