"""Owns the section of what is taken for what. Not the pictures of a cell, which the page's script finds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from pipeline.report.material import Judged, Material
from pipeline.report.page import Section

MOST_CELLS = 20
"""Classes up to which there is a matrix; of more, the worst confusions alone."""

_MOST_LISTED = 30
_SHADES = 9


def section(material: Material) -> Section | None:
    """A matrix, or a list, for each set; None where images don't have one class each."""
    if material.classes is None:
        return None
    sets = [
        {"judged": judged, "number": number, **_confusions(material, judged)}
        for number, judged in enumerate(material.judged)
    ]
    content = {"sets": sets[::-1], "classes": list(material.target), "few": len(material.target) <= MOST_CELLS}
    return Section("confusion", "What it takes for what", "confusion.html", content)


def _confusions(material: Material, judged: Judged) -> Mapping[str, object]:
    assert material.classes is not None
    truth = material.classes[judged.numbers]
    guess = material.predicted.probabilities[judged.numbers].argmax(axis=1)
    k = len(material.target)
    pairs, n = np.unique(truth * k + guess, return_counts=True)
    counts = {(int(pair) // k, int(pair) % k): int(many) for pair, many in zip(pairs, n, strict=True)}
    support = np.bincount(truth, minlength=k).tolist()
    mistakes = sorted((-many, *pair) for pair, many in counts.items() if pair[0] != pair[1])
    cells: Sequence[object] = ()
    if k <= MOST_CELLS:
        cells = [[_cell(counts.get((i, j), 0), support[i]) for j in range(k)] for i in range(k)]
    listed = [{"truth": i, "guess": j, "n": -many, "of": support[i]} for many, i, j in mistakes[:_MOST_LISTED]]
    return {"cells": cells, "support": support, "listed": listed, "pairs": len(mistakes)}


def _cell(n: int, of: int) -> Mapping[str, int]:
    """shade: from 0 to _SHADES, the share of the true class."""
    return {"n": n, "shade": int(np.ceil(_SHADES * n / of)) if n else 0}
