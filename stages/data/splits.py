"""Owns which images are for training, validation and test. Not finding images, nor the file of splits.

The user's splits are kept. The rest is drawn, copies and groups as one. By hash: (seed, group or id) against
thresholds, so that adding images never moves another. Stratified: by class, after what was drawn before.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence

from cache.errors import Unusable
from stages.data import stratified
from stages.data.manifest import SPLITS, Row

Drawn = Mapping[str, str]
"""id -> the split that was drawn for it before."""

Strata = Callable[[Sequence[str]], Sequence[Sequence[str]]]
"""Labels -> of each, what is to be spread evenly over splits."""

_STRICTEST_LAST = {split: rank for rank, split in enumerate(SPLITS)}
"""An image that was ever held out stays so: test beats val, and val beats train."""

FEW = 5
"""Fewer images of a class in a split give a warning."""
_SHOWN = 5


def by_class(labels: Sequence[str]) -> list[tuple[str]]:
    return [(label,) for label in labels]


def assign_splits(
    rows: Sequence[Row],
    val: float,
    test: float,
    seed: int,
    before: Drawn | None = None,
    strata: Strata = by_class,
    each: bool = True,
) -> tuple[Row, ...]:
    """Assign a split to each row without one: that of its group or copies where they have one, else a drawn one.

    `val` and `test` are shares of the images (0 <= val + test < 1). Where the user's splits include no val, it is taken
    out of train. `before` None: by hash. Else what was drawn before stays, and the rest is stratified by class, or by
    `strata`, `each` of which is to be in every split; rows without a label are drawn by hash, since nothing remembers
    them.
    """
    given, tokens, rows = {row.split for row in rows if row.split is not None}, _tokens(rows), list(rows)
    if given and "val" not in given:
        val, test = val / (1 - test), 0.0
    drawn = to_draw(rows)
    known = {token: row.split for row, token in zip(drawn, tokens, strict=True) if row.split is not None}
    if before is not None:
        earlier = _drawn_before(rows, drawn, tokens, before)
        known = {token: max(found, key=_STRICTEST_LAST.__getitem__) for token, found in earlier.items()} | known
        shares = {"train": 1 - val - test, "val": val, "test": test}
        known |= _stratify(drawn, tokens, known, shares, seed, strata, each)
    return tuple(
        row if row.split is not None else Row(*row[:3], known.get(token) or _split(seed, token, val, test), row.group)
        for row, token in zip(drawn, tokens, strict=True)
    )


def to_draw(rows: Sequence[Row]) -> list[Row]:
    """The rows, without a split where one is drawn: also those of train, where the user's splits include no val."""
    given = {row.split for row in rows if row.split is not None}
    if not given or "val" in given:
        return list(rows)
    return [row._replace(split=None) if row.split == "train" else row for row in rows]


def describe_disagreement(rows: Sequence[Row], before: Drawn) -> str:
    """The groups whose images were drawn into different splits before they were one; empty where there are none."""
    drawn, tokens = to_draw(rows), _tokens(rows)
    given = {token for row, token in zip(drawn, tokens, strict=True) if row.split is not None}
    found = {
        token.removeprefix("group "): sorted(splits, key=_STRICTEST_LAST.__getitem__)
        for token, splits in _drawn_before(rows, drawn, tokens, before).items()
        if len(splits) > 1 and token not in given
    }
    shown = [f"{name} ({', '.join(splits)})" for name, splits in sorted(found.items())[:_SHOWN]]
    return ", ".join(shown) + (f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else "")


def describe_few(counts: stratified.Counts) -> str:
    """A sentence on the classes with too few images of a split for a figure, and what to do; empty where none is.

    A split without any image is none that was asked for.
    """
    used = {split for by_split in counts.values() for split, n in by_split.items() if n}
    few = [
        f"{label} {split} {n}" for label, by in counts.items() for split, n in by.items() if n < FEW and split in used
    ]
    if not few:
        return ""
    more = f", and {len(few) - _SHOWN} more" if len(few) > _SHOWN else ""
    return (
        f"fewer than {FEW} images, too few to trust a figure: {', '.join(few[:_SHOWN])}{more}; label more of them, "
        "enlarge data.split.val or data.split.test, or use pipeline crossval, which pools train and val"
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


def _drawn_before(
    rows: Sequence[Row], drawn: Sequence[Row], tokens: Sequence[str], before: Drawn
) -> dict[str, set[str]]:
    """Token -> the splits that its rows were drawn into; never test for what the user has in train."""
    found: dict[str, set[str]] = defaultdict(set)
    for own, row, token in zip(rows, drawn, tokens, strict=True):
        if row.split is None and (split := before.get(row.id)) is not None:
            found[token].add("train" if own.split == "train" and split == "test" else split)
    return found


def _stratify(
    rows: Sequence[Row],
    tokens: Sequence[str],
    known: Mapping[str, str],
    shares: Mapping[str, float],
    seed: int,
    strata: Strata,
    each: bool,
) -> dict[str, str]:
    """Token -> split, for those that have a label and are not known. Copies count once."""
    there: dict[str, Counter[str]] = defaultdict(Counter)
    new: dict[str, Counter[str]] = defaultdict(Counter)
    labelled = {
        (row.id, row.label): (row, token) for row, token in zip(rows, tokens, strict=True) if row.label is not None
    }
    for (row, token), names in zip(labelled.values(), strata([label for _, label in labelled]), strict=True):
        split = row.split or known.get(token)
        for name in names:
            if split is None:
                new[token][name] += 1
            else:
                there[name][split] += 1
    return stratified.draw([stratified.Unit(*unit) for unit in new.items()], there, shares, seed, each)


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
