"""Owns which labels look like a mistake. Not where labels come from (scan.py, tables.py)."""

from collections import Counter, defaultdict
from collections.abc import Iterable

from stages.data.manifest import Row
from stages.runtime.counted_words import count_of

_NONE = frozenset(["nan", "none", "null", "n/a", "na", "<na>", "?"])
_MOST = 200
_RARE, _TIMES = 2, 10


def find_odd_labels(rows: Iterable[Row]) -> list[str]:
    """A question for each label that may be none, or another's misspelling."""
    counts = Counter(row.label for row in rows if row.label is not None)
    notes = [
        f"the label {label!r} ({count_of(n, 'image')}) is taken for a class; where it means none, leave it empty"
        for label, n in counts.items()
        if label.strip().lower() in _NONE
    ]
    same: dict[str, list[str]] = defaultdict(list)
    for label in sorted(counts):
        same[" ".join(label.replace("_", " ").split()).casefold()].append(label)
    alike = [labels for labels in same.values() if len(labels) > 1]
    if len(counts) <= _MOST:
        alike += [[a, b] for a in counts for b in counts if _is_slip(a, b, counts)]
    return notes + [
        f"are these one class? {', '.join(f'{label!r} ({counts[label]})' for label in labels)}" for labels in alike
    ]


def _is_slip(rare: str, common: str, counts: Counter[str]) -> bool:
    """Whether a label of one or two images is another's but for one letter, added, left out or changed."""
    if counts[rare] > _RARE or counts[common] < _TIMES * counts[rare] or abs(len(rare) - len(common)) > 1:
        return False
    start = 0
    while start < min(len(rare), len(common)) and rare[start] == common[start]:
        start += 1
    letters = rare[start : start + 1] + common[start : start + 1]
    ends = {rare[start + 1 :], rare[start:]} & {common[start + 1 :], common[start:]}
    return len(rare) > 2 and rare.casefold() != common.casefold() and letters.isalpha() and bool(ends)
