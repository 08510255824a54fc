"""Owns finding labels that may be one class, written in two ways. Not reading labels (scan.py)."""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import combinations

_SHORTEST = 4
"""Letters of labels that may be misspelt: cat and car are words."""

_RARE = 0.1
"""A misspelt label has at most this share of the other's images."""


_MOST = 1000
"""Labels up to which misspelt ones are looked for: it takes a second for ten times as many."""


def find_doubtful(counts: Mapping[str, int]) -> list[str]:
    """A question for labels that differ in case or spaces only, or by one letter where one is rare.

    counts: images by label.
    """
    spellings: dict[str, list[str]] = defaultdict(list)
    for label in sorted(counts):
        spellings[_plain(label)].append(label)
    found = [_ask(labels, "case or spaces", counts) for labels in spellings.values() if len(labels) > 1]
    shortened: dict[str, set[str]] = defaultdict(set)
    for plain in spellings:
        if len(plain) >= _SHORTEST and len(counts) <= _MOST:
            letters = [i for i, letter in enumerate(plain) if not letter.isdigit()]  # class1 and class2 are different
            for text in (plain, *(plain[:i] + plain[i + 1 :] for i in letters)):
                shortened[text].add(plain)
    for a, b in sorted({pair for names in shortened.values() for pair in combinations(sorted(names), 2)}):
        rare, other = sorted((spellings[a][0], spellings[b][0]), key=counts.__getitem__)
        if counts[rare] <= max(1, _RARE * counts[other]):
            found.append(_ask([rare, other], "one letter", counts))
    return found


def _ask(labels: Sequence[str], what: str, counts: Mapping[str, int]) -> str:
    listed = " and ".join(f"{label!r} ({counts[label]:,})" for label in labels)
    return f"labels {listed} differ in {what} only: if they are one class, give them one name"


def _plain(label: str) -> str:
    """Without case, spaces, hyphens and underscores, if anything is left."""
    text = unicodedata.normalize("NFKC", label).casefold()
    return "".join(c for c in text if not (c.isspace() or c in "-_")) or label
