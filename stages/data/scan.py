"""Owns finding images in folders, and their ids. Not tables (tables.py), decoding, nor the split of the rest."""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, NamedTuple

from cache.errors import Unusable
from cache.hash_index import HashIndex
from stages.data import labels
from stages.data.manifest import Manifest, Row

EXTENSIONS = frozenset(
    [".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif", ".avif", ".heic", ".heif"]
)  # fmt: skip
SPLIT_NAMES = {
    "train": "train", "training": "train",
    "val": "val", "valid": "val", "validation": "val", "dev": "val",
    "test": "test", "testing": "test",
}  # fmt: skip

_SYSTEM = frozenset(
    ["@eaDir", "#recycle", "$RECYCLE.BIN", "System Volume Information", "__MACOSX", "__pycache__", "lost+found"]
)
_OUTPUTS = frozenset(["models", "plots"])
"""What commands write beside pipeline.yaml."""
_MARKS = frozenset(["CACHE.json", "EXPORT.json", "CACHEDIR.TAG", "pyvenv.cfg"])
"""A folder with one of these is a cache, an export or a virtual environment."""

FollowLinks = Literal["inside", "all"]
"""inside: links are followed as long as they stay under the folder | all: wherever they lead."""

LEAVES = "leaves {0}; to follow it: data.follow_links: all"


class Reject(NamedTuple):
    """An image that cannot be used, with the reason."""

    path: str
    reason: str


@dataclass
class Found:
    """Rows (id empty, split None where unknown), counts of ignored files by kind, and rejects.

    `unhashed` are rows left without an id, because no file may be read. `notes` are warnings for the user. `with_ids`:
    whether the source told the ids, as a saved manifest does.
    """

    rows: list[Row] = field(default_factory=list)
    unhashed: list[Row] = field(default_factory=list)
    ignored: Counter[str] = field(default_factory=Counter)
    rejected: list[Reject] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    with_ids: bool = False


def scan_folders(root: Path, follow_links: FollowLinks = "inside") -> Found:
    """Class folders under `root`, or train/val/test folders of class folders, or images without any class.

    Hidden files and those without an image's extension are counted as ignored, by kind; so are folders of caches, of
    the system, and of what this package wrote. A link that is not followed is a reject.
    Raises Unusable where the folder is missing, unreadable, has no image, or mixes split folders with others.
    """
    paths, found = list_images(root, "data.root", follow_links)
    if not paths and not found.rejected:
        raise Unusable(
            f"{root}: no images ({found.ignored.total()} other files); looked for {', '.join(sorted(EXTENSIONS))}",
            "name the folder that holds them with data.root",
        )
    splits = _split_folders(root, paths, found)
    for path in paths:
        parts = path.split("/")[:-1]
        if splits and (not parts or parts[0] not in splits):
            continue
        split = SPLIT_NAMES[parts.pop(0).lower()] if splits else None
        found.rows.append(Row("", path, parts[0] if parts else None, split))
    found.notes += labels.find_odd_labels(found.rows)
    if (inner := find_inner_folders(found.rows)) is not None:
        found.notes.append(f"{inner[1]}: if these are the classes, set data.root to {root / inner[0]}")
    return found


def list_images(root: Path, called: str, follow_links: FollowLinks) -> tuple[list[str], Found]:
    """Sorted paths, relative to the folder `root`, of the images in it; ignored files and rejects are in the `Found`.

    called: name of the folder in messages. Raises Unusable where it is missing or unreadable.
    """
    walk = _Walk(root, called, follow_links)
    walk.folder("")
    walk.linked_folders()
    return sorted(walk.paths), walk.found


def hash_files(
    found: Found,
    root: Path,
    index: HashIndex,
    on_hashed: Callable[[int], object] = lambda n: None,
    read_files: bool = True,
) -> Found:
    """Fill in empty ids: the SHA-256 of each file. A file that cannot be read becomes a reject.

    Without `read_files`, those that are not in the index become `unhashed`.
    """
    full = {row.path: f"{root}/{row.path}" for row in found.rows if not row.id}
    paths = list(full.values())
    digests = index.digests(paths, on_hashed) if read_files else index.known(paths, fresh=True)
    out = replace(found, rows=[], rejected=list(found.rejected))
    for row in found.rows:
        digest = row.id or digests.get(full[row.path])
        if digest is None:
            out.unhashed.append(row)
        elif isinstance(digest, OSError):
            out.rejected.append(Reject(row.path, _unread(digest)))
        else:
            out.rows.append(Row(digest, *row[1:]))  # twice as fast as _replace, for 100,000 rows
    return out


def hash_paths(
    paths: Iterable[str], index: HashIndex, on_hashed: Callable[[int], object] = lambda n: None
) -> tuple[Manifest, dict[str, str]]:
    """A row for each different path, and path -> reason of those that cannot be read."""
    digests = index.digests(list(dict.fromkeys(paths)), on_hashed)
    rows = tuple(Row(digest, path) for path, digest in digests.items() if isinstance(digest, str))
    return Manifest(rows), {path: _unread(error) for path, error in digests.items() if isinstance(error, OSError)}


def _unread(error: OSError) -> str:
    return f"cannot be read: {error.strerror or error}"


class _Walk:
    """One pass over a folder of images. Each real folder is walked once, by whichever links."""

    def __init__(self, root: Path, called: str, follow_links: FollowLinks) -> None:
        self.root, self.called, self.follow_links = root, called, follow_links
        self.paths: list[str] = []
        self.found = Found()
        self._links: list[str] = []
        self._walked: set[str] = set()

    def folder(self, below: str) -> None:
        """All images under `root`/`below`; links to folders are left for later."""
        real = os.path.realpath(os.path.join(self.root, below))
        if real in self._walked:
            return
        self._walked.add(real)
        entries = self._entries(below)
        names = {entry.name for entry in entries}
        if below and names & _MARKS:
            self.found.ignored[f"folder {below}/"] += 1
            return
        skipped = _SYSTEM | (_OUTPUTS if "pipeline.yaml" in names else frozenset())
        for entry in entries:
            name = f"{below}/{entry.name}" if below else entry.name
            kind = os.path.splitext(entry.name)[1].lower()
            linked = entry.is_symlink()
            if entry.name.startswith("."):
                self.found.ignored["hidden"] += 1
            elif linked and os.path.isdir(entry.path):
                self._links.append(name)
            elif not linked and entry.is_dir():
                if entry.name in skipped:
                    self.found.ignored[f"folder {name}/"] += 1
                else:
                    self.folder(name)
            elif kind not in EXTENSIONS:
                self.found.ignored[kind or "without extension"] += 1
            elif linked and not self._may_follow(name):
                self.found.rejected.append(Reject(name, f"is a link that {LEAVES.format(self.called)}"))
            else:
                self.paths.append(name)

    def linked_folders(self) -> None:
        """Those whose images were not found where they are, or by another link."""
        while self._links:
            name = min(self._links)
            self._links.remove(name)
            if not self._may_follow(name):
                self.found.rejected.append(Reject(name, f"is a linked folder that {LEAVES.format(self.called)}"))
            else:
                self.folder(name)

    def _may_follow(self, name: str) -> bool:
        return self.follow_links == "all" or stays_under(os.path.join(self.root, name), self.root)

    def _entries(self, below: str) -> list[os.DirEntry[str]]:
        folder = os.path.join(self.root, below) if below else str(self.root)
        try:
            return list(os.scandir(folder))
        except OSError as error:
            if below:  # one folder; the rest goes on
                self.found.rejected.append(Reject(below, f"is a folder that cannot be read: {error.strerror}"))
                return []
            if isinstance(error, FileNotFoundError):
                hint = f"name the folder of the images with {self.called}"
                raise Unusable(f"{self.called}: {folder} is not there", hint) from error
            if isinstance(error, NotADirectoryError):
                raise Unusable(f"{self.called}: {folder} is a file; expected a folder of images") from error
            raise Unusable(f"cannot read the folder {folder}: {error.strerror}", f"check: ls -ld {folder}") from error


def stays_under(path: str, root: Path) -> bool:
    """Whether the file that `path` opens, whatever links it goes through, is below `root`."""
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(root))


def _split_folders(root: Path, paths: list[str], found: Found) -> list[str]:
    """The top folders with names of splits, if there are two of them or more.

    A single image or folder next to them is left out, which is noted. Raises Unusable where there are more.
    """
    tops = Counter(path.partition("/")[0] + path.partition("/")[1] for path in paths)  # folders end in a slash here
    named = sorted(name for name in tops if name[-1] == "/" and name[:-1].lower() in SPLIT_NAMES)
    if len({SPLIT_NAMES[name[:-1].lower()] for name in named}) < 2:
        return []
    others = sorted(tops.keys() - set(named))
    if len(others) > 1:
        raise Unusable(
            f"{root}: {', '.join(named)} look like splits, but {others[0]} is next to them, and {len(others) - 1} more",
            "move everything else out of the folder, or name splits and labels in a table (data.table)",
        )
    if others:
        found.ignored["next to the split folders"] += tops[others[0]]
        found.notes.append(f"{others[0]} is next to {', '.join(named)}, which are taken for splits, and is left out")
    return [name[:-1] for name in named]


def find_inner_folders(rows: Sequence[Row]) -> tuple[str, str] | None:
    """The one folder that has all images, and a sentence, if it has folders itself, as of an unpacked archive."""
    inner = {parts[1] for row in rows if len(parts := row.path.split("/")) > 2}
    if len({row.path.partition("/")[0] for row in rows}) != 1 or len(inner) < 2:
        return None
    only = rows[0].path.partition("/")[0]
    return (
        only,
        f"all {len(rows)} images are in one folder, {only}, which has the folders {', '.join(sorted(inner)[:5])}",
    )
