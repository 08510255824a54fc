"""Owns plots of predictions: curves, reliability, confusion. Not where they are written (evaluation/plot.py).

Matplotlib is an extra, imported when something is drawn; no display and no global state of it is used.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np

from cache.errors import NotAvailable
from stages.metrics import classification, curves

Format = Literal["png", "svg"]
Rows = tuple[np.ndarray, np.ndarray]
"""What is true of a split, columns (n,) int or (n, labels), and probabilities (n, columns)."""

_NAMED = 10
"""Up to this many classes each has a colour and a legend entry; above, the _WORST do, and the others are grey."""

_WORST = 5
_COUNTED = 25
"""Up to this many classes the cells of a confusion matrix have numbers."""

_LONGEST = 22
"""Characters of a class name that are shown."""

_SIDE = 5.2
"""Of a panel, inches."""


def draw_plots(splits: Mapping[str, Rows], classes: Sequence[str], form: Format) -> Iterator[tuple[str, bytes]]:
    """(name, file) of each plot: roc, precision_recall, reliability, confusion_SPLIT.

    Empty splits are left out, as are curves of classes that have no rows or all rows of a split, curves above
    MOST_RANKED classes, and confusion matrices above MOST_CONFUSED. Raises NotAvailable without matplotlib.
    """
    there = {split: rows for split, rows in splits.items() if len(rows[0])}
    with style():
        if there and len(classes) <= classification.MOST_RANKED:
            yield "roc", as_file(_curves(there, classes, _Roc()), form)
            yield "precision_recall", as_file(_curves(there, classes, _PrecisionRecall()), form)
        if there:
            yield "reliability", as_file(_reliability(there, len(classes)), form)
        if len(classes) <= classification.MOST_CONFUSED:
            for split, (truth, p) in there.items():
                yield f"confusion_{split}", as_file(_confusion(truth, p, classes, split), form)


def draw_label_plots(splits: Mapping[str, Rows], names: Sequence[str], form: Format) -> Iterator[tuple[str, bytes]]:
    """(name, file) of each plot of several labels: roc, precision_recall, a panel a split and a line a label.

    What images have is (n, labels), 1, 0, or NaN where it is unknown, which is left out. Raises NotAvailable without
    matplotlib.
    """
    there = {split: rows for split, rows in splits.items() if len(rows[0])}
    with style():
        for name, kind in (("roc", _Roc()), ("precision_recall", _PrecisionRecall())) if there else ():
            yield name, as_file(_panels(there, names, kind, "each label"), form)


@contextmanager
def style() -> Iterator[None]:
    """How all plots look. Raises NotAvailable without matplotlib."""
    try:
        import matplotlib as mpl
    except ImportError as error:
        raise NotAvailable("plots need matplotlib", "pip install 'frozenbase[plots]'") from error
    with mpl.rc_context({"axes.spines.top": False, "axes.spines.right": False, "svg.hashsalt": "frozenbase"}):
        yield


class _Roc:
    """Receiver operating characteristic: true against false positive rate, as the threshold falls."""

    area, x, y, corner = "AUROC", "false positive rate", "true positive rate", "lower right"

    points = staticmethod(curves.roc)

    def chance(self, axes: Any, positives: float) -> None:
        axes.plot([0, 1], [0, 1], color="0.6", linewidth=0.8, linestyle="--", zorder=0)


class _PrecisionRecall:
    """Precision against recall, as the threshold falls; the area below the steps is the average precision."""

    area, x, y, corner = "AP", "recall", "precision", "lower left"

    points = staticmethod(curves.precision_recall)

    def chance(self, axes: Any, positives: float) -> None:
        axes.axhline(positives, color="0.6", linewidth=0.8, linestyle="--", zorder=0)


def _curves(splits: Mapping[str, Rows], classes: Sequence[str], kind: _Roc | _PrecisionRecall) -> Any:
    """Two classes: a line per split. More: a panel per split, with a line per class against the rest."""
    from matplotlib.figure import Figure

    if len(classes) == 2:
        figure = Figure((_SIDE, _SIDE), layout="constrained")
        axes = figure.subplots()
        for split, (truth, p) in splits.items():
            if 0 < truth.sum() < len(truth):
                x, y, area = kind.points(truth == 1, p[:, 1])
                _line(axes, kind, x, y, label=f"{split} (n = {len(truth):,}), {kind.area} {area:.3f}")
        kind.chance(axes, float(np.mean(np.concatenate([truth for truth, _ in splits.values()]))))
        axes.set_title(short_name(classes[1]) + " against " + short_name(classes[0]), fontsize=11)
        _square(axes, kind)
        return figure
    one_hot = {split: (np.eye(len(classes))[truth], p) for split, (truth, p) in splits.items()}
    return _panels(one_hot, classes, kind, "each class against the rest")


def _panels(splits: Mapping[str, Rows], names: Sequence[str], kind: _Roc | _PrecisionRecall, what: str) -> Any:
    """A panel per split, a line per column of what is true, (n, columns) with NaN where unknown."""
    from matplotlib.figure import Figure

    figure = Figure((_SIDE * len(splits), _SIDE + 1.6), layout="constrained")
    for axes, (split, (truth, p)) in zip(
        figure.subplots(1, len(splits), squeeze=False)[0], splits.items(), strict=True
    ):
        _column_curves(axes, truth, p, names, kind)
        axes.set_title(f"{split} (n = {len(truth):,}), {what}", fontsize=11)
        _square(axes, kind, below=True)
    return figure


def _column_curves(axes: Any, truth: np.ndarray, p: np.ndarray, names: Sequence[str], kind: Any) -> None:
    found = sorted(curves.column_curves(truth, p, kind.points), key=lambda line: line[1].area)
    few = len(names) <= _NAMED
    named = len(found) if few else _WORST
    for rank, (c, (x, y, area)) in enumerate(found[:named]):
        _line(axes, kind, x, y, label=f"{short_name(names[c])} {area:.3f}", color=f"C{c if few else rank}")
    for rank, (_, (x, y, _)) in enumerate(found[named:]):
        label = f"the other {len(found) - named}" if rank == 0 else None
        _line(axes, kind, x, y, label=label, color="0.75", linewidth=0.6, zorder=1)
    if few:
        kind.chance(axes, float(np.nanmean(truth)))


def _line(axes: Any, kind: Any, x: np.ndarray, y: np.ndarray, **how: Any) -> None:
    """Steps: between two thresholds there is no classifier."""
    where = "post" if isinstance(kind, _Roc) else "pre"
    axes.step(x, y, where=where, **{"linewidth": 1.5, **how})


def _square(axes: Any, kind: _Roc | _PrecisionRecall, below: bool = False) -> None:
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.02), xlabel=kind.x, ylabel=kind.y, aspect="equal")
    if not axes.get_legend_handles_labels()[0]:
        axes.text(0.5, 0.5, "no curve: one class only", ha="center", color="0.4")
    elif below:
        axes.legend(
            loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=2, frameon=False, fontsize=8, title=kind.area
        )
    else:
        axes.legend(loc=kind.corner, frameon=False, fontsize=9)


def _reliability(splits: Mapping[str, Rows], k: int) -> Any:
    """Share of right guesses by probability, with 95% Wilson intervals; below, the number of guesses."""
    from matplotlib.figure import Figure

    figure = Figure((_SIDE, _SIDE + 1.2), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
    start = math.floor(classification.BINS / k) / classification.BINS
    above.plot([start, 1], [start, 1], color="0.6", linewidth=0.8, linestyle="--", zorder=0)
    width = 1 / classification.BINS / (len(splits) + 1)
    for number, (split, (truth, p)) in enumerate(splits.items()):
        confidence, right = p.max(axis=1), p.argmax(axis=1) == truth
        found = curves.reliability(right, confidence)
        label = f"{split} (n = {len(truth):,}), ECE {classification.ece(right, confidence):.3f}"
        bars = [found.right - found.low, found.high - found.right]
        how = {"fmt": "o-", "markersize": 4, "linewidth": 1, "elinewidth": 0.8, "label": label}
        above.errorbar(found.confidence, found.right, bars, **how)
        centre = (found.bin + 0.5) / classification.BINS + (number - (len(splits) - 1) / 2) * width
        below.bar(centre, found.n, width)
    above.set(xlim=(start, 1.005), ylim=(0, 1.02), ylabel="share of guesses that are right")
    above.legend(loc="lower right", frameon=False, fontsize=9)
    below.set(xlabel="probability of the guess", ylabel="images")
    return figure


def _confusion(truth: np.ndarray, p: np.ndarray, classes: Sequence[str], split: str) -> Any:
    """Colour is the share of the true class; numbers are images."""
    from matplotlib.figure import Figure

    k = len(classes)
    counts = np.bincount(truth * k + p.argmax(axis=1), minlength=k * k).reshape(k, k)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    names = [short_name(name) for name in classes]
    side = max(3.2, min(14.0, 0.42 * k + 1)) + 0.085 * max(map(len, names))
    figure = Figure((side + 0.9, side), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    size = 9 if k <= 12 else 7 if k <= 40 else 5
    axes.set_xticks(range(k), names, rotation=90 if k > 4 or max(map(len, names)) > 10 else 0, fontsize=size)
    axes.set_yticks(range(k), names, fontsize=size)
    for i, j in np.argwhere(counts) if k <= _COUNTED else ():
        colour = "white" if shares[i, j] > 0.5 else "black"
        axes.text(j, i, f"{counts[i, j]:,}", ha="center", va="center", fontsize=size, color=colour)
    axes.set(xlabel="guessed", ylabel="true")
    axes.set_title(f"{split} (n = {len(truth):,})", fontsize=11)
    axes.spines[:].set_visible(False)
    figure.colorbar(image, ax=axes, label="share of the true class", shrink=0.8)
    return figure


def short_name(name: str) -> str:
    """A name for matplotlib: shortened, without formulas, and without a leading _, which would hide it."""
    cut = name if len(name) <= _LONGEST else f"{name[: _LONGEST - 9]}…{name[-8:]}"
    return cut.encode("utf-8", "backslashreplace").decode().replace("$", r"\$").replace("_", " _", cut.startswith("_"))


def as_file(figure: Any, form: Format) -> bytes:
    """The same bytes for the same figure."""
    buffer = io.BytesIO()
    metadata = {"Date": None} if form == "svg" else {"Software": None}
    figure.savefig(buffer, format=form, dpi=150, bbox_inches="tight", pad_inches=0.12, metadata=metadata)
    return buffer.getvalue()
