"""Owns the section of curves, and how a chart is laid out in a square of 100. Not their points (metrics/curves.py)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from pipeline.report.material import Material
from pipeline.report.page import Section, shorten
from pipeline.show.console import format_interval
from stages.metrics import classification, curves
from stages.metrics.figures import Figure, title

COLOURS = 8
"""Lines of a chart that have a colour each; of more curves, the worst."""

_MOST_POINTS = 1500
"""Of a scatter plot; of more images, evenly spaced ones."""

_FINEST = 0.3
"""Points of a line that are nearer to each other than this, in hundredths of the chart, are one."""


_SHARES = [(25.0 * i, f"{i / 4:g}") for i in range(5)]
_DIAGONAL = "0,100 100,0"


@dataclass(frozen=True)
class Line:
    """points: of an SVG polyline."""

    name: str
    points: str


@dataclass(frozen=True)
class Chart:
    """A chart of 100 by 100, y downwards. ticks: (place, text) of either axis; bars: (x, low, high) of each line.

    about: what it shows, in words, for who doesn't see it. faint: of dots, so many that they lie on each other.
    """

    title: str
    x: str
    y: str
    about: str
    lines: Sequence[Line] = ()
    dots: Sequence[Sequence[tuple[float, float]]] = ()
    bars: Sequence[Sequence[tuple[float, float, float]]] = ()
    reference: str = ""
    x_ticks: Sequence[tuple[float, str]] = field(default_factory=lambda: _SHARES)
    y_ticks: Sequence[tuple[float, str]] = field(default_factory=lambda: [(100 - at, text) for at, text in _SHARES])
    note: str = ""
    faint: bool = False


def section(material: Material) -> Section | None:
    """ROC, precision and recall, and reliability of probabilities; numbers against the true ones."""
    charts = list(_numbers(material)) if not material.target.probabilities else _probabilities(material)
    return Section("curves", "Curves", "charts.html", {"charts": charts, "lead": ""}) if charts else None


def _probabilities(material: Material) -> list[Chart]:
    target, found = material.target, []
    if material.classes is not None and len(target) == 2:
        found += [_two_classes(material, *kind) for kind in _KINDS]
    elif len(target) <= classification.MOST_RANKED:
        found += [_each_column(material, *kind) for kind in _KINDS]
    if material.classes is not None:
        found.append(_reliability(material))
    return [chart for chart in found if chart is not None]


_KINDS: Sequence[tuple[str, str, str, str, curves.Points, str]] = (
    ("ROC", "auroc", "false positive rate", "true positive rate", curves.roc, _DIAGONAL),
    ("Precision and recall", "average_precision", "recall", "precision", curves.precision_recall, ""),
)


def _two_classes(
    material: Material, name: str, figure: str, x: str, y: str, points: curves.Points, reference: str
) -> Chart | None:
    """A line for each set, of the second class against the first."""
    assert material.classes is not None
    lines = []
    for judged in material.judged:
        positive, p = material.classes[judged.numbers] == 1, material.predicted.probabilities[judged.numbers, 1]
        if 0 < positive.sum() < len(positive):
            curve = points(positive, p)
            area = format_interval(judged.figures[figure] if figure in judged.figures.values else Figure(None, None))
            lines.append(Line(f"{judged.name}: {title(figure)} {area}", _polyline(curve.x, curve.y, points)))
    names = [shorten(one) for one in material.target]
    whole = f"{name}: {names[1]} against {names[0]}"
    return Chart(whole, x, y, _in_words(whole, lines), lines, reference=reference) if lines else None


def _each_column(
    material: Material, name: str, figure: str, x: str, y: str, points: curves.Points, reference: str
) -> Chart | None:
    """A line for each class against the rest, or for each label, in the set that is shown; the worst of many."""
    judged, target = material.shown, material.target
    truth = np.eye(len(target))[material.classes[judged.numbers]] if material.classes is not None else material.y[
        judged.numbers
    ]  # fmt: skip
    found = list(curves.column_curves(truth, material.predicted.probabilities[judged.numbers], points))
    found.sort(key=lambda one: one[1].area)
    some = found[:COLOURS]
    word = "AUROC" if figure == "auroc" else "AP"
    lines = [
        Line(f"{shorten(target[c])}: {word} {line.area:.3f}", _polyline(line.x, line.y, points)) for c, line in some
    ]
    note = f"the {len(some)} worst of {len(found):,}" if len(found) > len(some) else ""
    of = "each class against the rest" if target.exclusive else "each label"
    whole = f"{name}: {of}, {judged.name}"
    return Chart(whole, x, y, _in_words(whole, lines), lines, reference=reference, note=note) if lines else None


def _reliability(material: Material) -> Chart | None:
    """A line for each set: how often guesses of a probability are right."""
    assert material.classes is not None
    lines, bars, dots = [], [], []
    for judged in material.judged:
        p = material.predicted.probabilities[judged.numbers]
        right, confidence = p.argmax(axis=1) == material.classes[judged.numbers], p.max(axis=1)
        found = curves.reliability(right, confidence)
        lines.append(
            Line(f"{judged.name}: ECE {format_interval(judged.figures['ece'])}", _path(found.confidence, found.right))
        )
        places = zip(*(_places(part) for part in (found.confidence, found.low, found.high)), strict=True)
        bars.append([(x, 100 - low, 100 - high) for x, low, high in places])
        dots.append([(x, 100 - y) for x, y in zip(_places(found.confidence), _places(found.right), strict=True)])
    whole = "Reliability: how often a guess of that probability is right"
    note = "whiskers: 95 % intervals of each bin; on the dashed line, probabilities are what they say"
    about = _in_words(whole, lines)
    return Chart(
        whole, "probability of the guess", "share that is right", about, lines, dots, bars, _DIAGONAL, note=note
    )


def _numbers(material: Material) -> list[Chart]:
    """Predicted against true, of each number, in the set that is shown."""
    judged, found = material.shown, []
    some = judged.numbers[:: max(1, -(-len(judged.numbers) // _MOST_POINTS))]
    for column, name in enumerate(material.target[:COLOURS]):
        truth, said = material.numbers[some, column], material.predicted.probabilities[some, column]
        known = np.isfinite(truth)
        if not known.any():
            continue
        low, high = (
            float(end([truth[known].min(), said[known].min(), truth[known].max(), said[known].max()]))
            for end in (min, max)
        )
        ticks = [(at, f"{low + (high - low) * at / 100:.4g}") for at in (0.0, 50.0, 100.0)]
        scale = max(high - low, 1e-12)
        dots = [
            (x, 100 - y)
            for x, y in zip(_places((truth[known] - low) / scale), _places((said[known] - low) / scale), strict=True)
        ]
        whole = f"{shorten(name)}: predicted against true, {judged.name}"
        about = f"{whole}: {int(known.sum()):,} images; on the dashed line they are the same."
        found.append(Chart(whole, "true", "predicted", about, dots=[dots], reference=_DIAGONAL, x_ticks=ticks,
                           y_ticks=[(100 - at, text) for at, text in ticks], faint=True))  # fmt: skip
    return found


def _in_words(whole: str, lines: Sequence[Line]) -> str:
    return f"{whole}. {'; '.join(line.name for line in lines)}."


def _polyline(x: np.ndarray, y: np.ndarray, points: curves.Points) -> str:
    """Steps: between two thresholds there is no classifier."""
    return _path(*_steps(x, y, points is curves.roc))


def _steps(x: np.ndarray, y: np.ndarray, after: bool) -> tuple[np.ndarray, np.ndarray]:
    """The corners of steps: after: first to the side, then up; else first up."""
    twice_x, twice_y = np.repeat(x, 2), np.repeat(y, 2)
    return (twice_x[1:], twice_y[:-1]) if after else (twice_x[:-1], twice_y[1:])


def _path(x: np.ndarray, y: np.ndarray) -> str:
    """Points of a polyline, without those that nobody could tell from their neighbours."""
    kept: list[tuple[float, float]] = []
    places = list(zip(_places(x), _places(y), strict=True))
    for i, (px, py) in enumerate(places):
        if not kept or i == len(places) - 1 or abs(px - kept[-1][0]) + abs(py - kept[-1][1]) >= _FINEST:
            kept.append((px, py))
    return " ".join(f"{px:g},{round(100 - py, 2):g}" for px, py in kept)


def _places(values: np.ndarray) -> list[float]:
    return [round(100 * float(value), 2) for value in values]
