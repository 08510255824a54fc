"""Owns which images are for training, validation and test. Not finding images (scan.py).

The user's splits are kept. The rest is a hash of (seed, group or id) against thresholds: adding images never moves
another, and byte-identical images are in the same split.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

from cache.errors import Unusable
from stages.data.manifest import Row


def assign_splits(rows: Sequence[Row], val: float, test: float, seed: int) -> tuple[Row, ...]:
    """Assign a split to each row without one: that of its group or copies where they have one, else by hash.

    `val` and `test` are shares of the images (0 <= val + test < 1). Where the user's splits include no val, it is taken
    out of train.
    """
    given = {row.split for row in rows if row.split is not None}
    tokens = _tokens(rows)
    if given and "val" not in given:
        val, test = val / (1 - test), 0.0
        rows = [row._replace(split=None) if row.split == "train" else row for row in rows]
    known = {token: row.split for row, token in zip(rows, tokens, strict=True) if row.split is not None}
    return tuple(
        row if row.split is not None else Row(*row[:3], known.get(token) or _split(seed, token, val, test), row.group)
        for row, token in zip(rows, tokens, strict=True)
    )


def group_by(rows: Sequence[Row], pattern: str) -> list[Row]:
    """Fill empty groups with the match of the regular expression `pattern` in the path (its first bracket, if any)."""
    try:
        regex = re.compile(pattern)
    except re.error as error:
        raise Unusable(f"data.group_from: {pattern!r} is not a regular expression ({error})") from error
    out = []
    for row in rows:
        match = regex.search(row.path) if row.group is None else None
        out.append(row if match is None else row._replace(group=match[1] if regex.groups else match[0]))
    if rows and all(row.group is None for row in out):
        raise Unusable(
            f"data.group_from: {pattern!r} matches none of the {len(rows)} paths, such as {rows[0].path}",
            "correct the expression, or set it to null",
        )
    return out


def _split(seed: int, token: str, val: float, test: float) -> str:
    digest = hashlib.sha256(f"{seed}:{token}".encode("utf-8", "surrogatepass")).digest()
    at = int.from_bytes(digest[:8], "big") / 2**64
    if at < test:
        return "test"
    return "val" if at < test + val else "train"


def _tokens(rows: Sequence[Row]) -> list[str]:
    """What is hashed for each row: its group, or its id. Groups that share an id count as one: the first by name."""
    if all(row.group is None for row in rows):
        return ["id " + row.id for row in rows]
    parent: dict[str, str] = {}

    def root(name: str) -> str:
        while parent.setdefault(name, name) != name:
            parent[name] = parent[parent[name]]
            name = parent[name]
        return name

    for row in rows:
        if row.group is not None:
            a, b = sorted((root("group " + row.group), root("id " + row.id)))
            parent[b] = a  # "group" sorts before "id": a set with a group is named by a group
    return [root("group " + row.group if row.group is not None else "id " + row.id) for row in rows]
