"""Owns which image a path names that people wrote: the only near one, and none outside of the root. Not tables."""

import os
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

from cache.errors import Unusable
from stages.sources.folder import LEAVES, stays_under
from stages.sources.listing import Reject
from stages.sources.source import Source


def find_near(paths: Iterable[str], source: Source) -> dict[str, list[str]]:
    """Of those paths that name no image, the names of near ones; {} where the root is not there."""
    absent = {path for path in paths if not source.has(path)}
    if not absent or not (source.is_remote or os.path.isdir(source.root)):
        return {}
    near: dict[str, list[str]] = defaultdict(list)
    try:
        there = source.list()
    except Unusable:  # as where the table is the only Parquet file
        return {}
    for name in there.names or there.members:
        near[_fold(name)].append(name)
        near[os.path.splitext(_fold(name))[0]].append(name)
    return {path: near.get(_fold(path), []) for path in absent}


def names_inside(paths: Iterable[str], source: Source) -> Mapping[str, str | Reject]:
    """The name below the root of each path, or a Reject where it is a link that leads out.

    Paths must stay under the root, as the system resolves them; the folder of each is resolved once. Raises Unusable.
    """
    if source.is_remote:
        return {path: _below(path, source.root) for path in paths}
    root, follow_links = Path(source.root), source.follow_links
    folder_ok: dict[str, bool] = {}
    found: dict[str, str | Reject] = {}
    for written in paths:
        path = os.path.join(root, written)
        folder = os.path.dirname(path)
        if folder not in folder_ok:
            normal = Path(os.path.normpath(os.path.abspath(folder)))
            folder_ok[folder] = stays_under(folder, root) or (
                follow_links == "all" and normal.is_relative_to(os.path.abspath(root))
            )
        if not folder_ok[folder]:
            raise Unusable(
                f"data.table: {written!r} leaves data.root ({root})",
                "set data.root to a folder above all images, or follow links: data.follow_links: all",
            )
        if follow_links == "inside" and os.path.islink(path) and not stays_under(path, root):
            found[written] = Reject(written, f"is a link that {LEAVES.format('data.root')}")
        else:
            found[written] = os.path.relpath(path, root) if os.path.isabs(written) else written
    return found


def _below(written: str, url: str) -> str:
    """The name of an object below a URL, which may be before it."""
    path = written.removeprefix(f"{url}/")
    if path.startswith("/") or "://" in path or {"..", ".", ""} & {*path.split("/")}:
        raise Unusable(f"data.table: {written!r} leaves data.root ({url})", "set data.root to a URL above all images")
    return path


def _fold(path: str) -> str:
    """The same for backslashes, other case, and other ways to compose a letter."""
    return unicodedata.normalize("NFC", path.replace("\\", "/")).casefold().removeprefix("./")
