"""Owns what folders and archives say of images: labels, splits, ids. Not listing them (sources), nor tables."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from cache.errors import Unusable
from cache.hash_index import HashIndex
from stages.data import labels
from stages.data.manifest import Manifest, Row
from stages.sources import blobs
from stages.sources.listing import EXTENSIONS, SPLIT_NAMES, FollowLinks, OnHashed, Reject
from stages.sources.source import Source, as_source, ignore


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


def scan_folders(root: Path | Source, follow_links: FollowLinks = "inside", on_hashed: OnHashed = ignore) -> Found:
    """Class folders under `root`, or train/val/test folders of class folders, or images without any class.

    Hidden files and those without an image's extension are counted as ignored, by kind; so are folders of caches, of
    the system, and of what this package wrote. A link that is not followed is a reject. Where there are archives and no
    images, the archives say what is in them.
    Raises Unusable where the folder is missing, unreadable, has no image, or mixes split folders with others; Denied
    and Unreachable for a bucket.
    """
    source = as_source(root, follow_links)
    listing = source.list(on_hashed)
    found = Found(ignored=listing.ignored.copy(), rejected=[*listing.rejected], notes=[*listing.notes])
    paths = listing.names
    if not paths and not listing.members and not found.rejected:
        raise Unusable(
            f"{source.text}: no images ({found.ignored.total()} other files); looked for "
            f"{', '.join(sorted(EXTENSIONS))}",
            "name the folder that holds them with data.root",
        )
    for name, member in listing.members.items():
        split = member.split and SPLIT_NAMES.get(member.split.lower())
        if member.split and split is None:
            raise Unusable(f"{name} has split {member.split!r}; expected train, val or test")
        found.rows.append(Row(member.sha256 or "", name, member.label, split, member.group))
    splits = _split_folders(source.text, paths, found)
    for path in paths:
        parts = path.split("/")[:-1]
        if splits and (not parts or parts[0] not in splits):
            continue
        split = SPLIT_NAMES[parts.pop(0).lower()] if splits else None
        found.rows.append(Row("", path, parts[0] if parts else None, split))
    found.notes += labels.find_odd_labels(found.rows)
    if not listing.members and (inner := find_inner_folders(found.rows)) is not None:
        found.notes.append(f"{inner[1]}: if these are the classes, set data.root to {source.text}/{inner[0]}")
    return found


def hash_files(
    found: Found, root: Path | Source, index: HashIndex, on_hashed: OnHashed = ignore, read_files: bool = True
) -> Found:
    """Fill in empty ids: the SHA-256 of each file. A file that cannot be read becomes a reject.

    Without `read_files`, those that are not in the index become `unhashed`.
    """
    names = [row.path for row in found.rows if not row.id]
    digests = as_source(root).digests(names, index, on_hashed, read_files)
    out = replace(found, rows=[], rejected=list(found.rejected))
    for row in found.rows:
        digest = row.id or digests.get(row.path)
        if digest is None:
            out.unhashed.append(row)
        elif isinstance(digest, OSError):
            out.rejected.append(Reject(row.path, _unread(digest)))
        else:
            out.rows.append(Row(digest, *row[1:]))  # twice as fast as _replace, for 100,000 rows
    return out


def hash_names(
    source: Source, names: Iterable[str], index: HashIndex, on_hashed: OnHashed = ignore
) -> tuple[Manifest, dict[str, str]]:
    """A row for each different name, which may be a place, and name -> reason of those that cannot be read."""
    digests = source.digests(list(dict.fromkeys(names)), index, on_hashed)
    rows = tuple(Row(digest, path) for path, digest in digests.items() if isinstance(digest, str))
    return Manifest(rows), {path: _unread(error) for path, error in digests.items() if isinstance(error, OSError)}


def _unread(error: OSError) -> str:
    return str(error) if isinstance(error, blobs.TooLarge) else f"cannot be read: {error.strerror or error}"


def _split_folders(root: str, paths: list[str], found: Found) -> list[str]:
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
