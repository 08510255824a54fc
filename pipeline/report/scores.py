"""Owns the section of figures: a model's, beside those of a constant guess and of other models. Computes no figure of a
model (metrics.json has them).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cache.errors import PipelineError
from pipeline.report.material import Judged, Material
from pipeline.report.page import Section
from pipeline.results import predictions, registry
from pipeline.results.model import SHORT, Model
from pipeline.show.evaluation_tables import format_difference
from stages.heads import labelled_rows
from stages.metrics.figures import Figure, Figures
from stages.targets import evaluate

_MOST_MODELS = 15
_MOST_PARTS = 20
"""Classes, labels, numbers or groups with figures of their own that are shown: the worst."""

_PARTS = {
    "per_class": ("class", "support", ("precision", "recall", "f1", "auroc"), "f1"),
    "per_label": ("label", "support", ("ap", "auroc", "f1"), "ap"),
    "per_number": ("number", "n", ("mae", "rmse", "r2"), "r2"),
    "per_group": ("group", "n", ("accuracy",), "accuracy"),
}
"""Of `details`: what a part is, its number of images, its figures, and the one by which it is bad."""


@dataclass(frozen=True)
class Line:
    """A model in the table of a set. less: its first figure less that of the page's model, on the same images."""

    name: str
    key: str
    figures: Figures
    this: bool = False
    less: str = ""
    note: str = ""


def section(material: Material) -> Section:
    """For each set all models in a table, the best first, then all figures of this one, and its worst classes."""
    others = _others(material.model)
    constant, what = guess_constantly(material)
    tables = []
    for judged in reversed(material.judged):
        ranking, first, another = judged.figures.headline
        headline = (first, another, ranking)
        first = next((name for name in headline if judged.figures.values[name] is not None), first)
        lines = [Line(material.model.name, material.model.key[:SHORT], judged.figures, this=True)]
        lines += [line for other in others if (line := _other_line(material, other, judged, first))]
        lines.sort(key=lambda line: line.figures.rank)
        lines.append(Line(what, "", constant[judged.name], note="a constant guess"))
        tables.append(
            {"judged": judged, "names": headline, "first": first, "lines": lines, "bars": _bars(lines, first)}
        )
    every = [judged.figures for judged in material.judged]
    names = [name for name in every[0].values if all(name in figures.values for figures in every)]
    content = {
        "tables": tables, "judged": material.judged, "constant": constant, "names": names,
        "parts": _parts(material.shown), "shown": material.shown, "grouped": _groups(material),
        "baseline": _baseline(material),
    }  # fmt: skip
    return Section("figures", "How good it is", "scores.html", content)


def guess_constantly(material: Material) -> tuple[Mapping[str, Figures], str]:
    """What each set has of a guess that is the same for all images, the shares or means of train; and its name."""
    target, rows = material.target, material.predicted.rows
    learnt = [row for row in material.manifest.samples if row.split == "train"] or list(material.manifest.samples)
    y = labelled_rows.encode(learnt, target)
    constant = np.bincount(y, minlength=len(target)) / len(y) if y.ndim == 1 else np.nanmean(y, axis=0)
    if not target.probabilities:
        constant = target.predict(constant[None])[0]
    name = f"always {target[int(constant.argmax())]}" if target.exclusive else "always the mean of train"
    found = {}
    for judged in material.judged:
        here = [rows[i] for i in judged.numbers]
        found[judged.name] = evaluate.evaluate_rows(here, np.tile(constant, (len(here), 1)), target, 0)
    return found, name


def _others(model: Model) -> list[Model]:
    """The other models that names mean today, or that have tags, and can be read."""
    found = [
        other
        for other in registry.list_models(model.folder.parents[3])
        if (other.name, other.key) != (model.name, model.key) and (other.current or other.tags) and not other.beaten
    ]
    whole = [other for other in found if not other.damaged]
    return sorted(whole, key=lambda other: other.figures.rank)[:_MOST_MODELS]


def _other_line(material: Material, other: Model, judged: Judged, first: str) -> Line | None:
    """None where it has no figures of that set, or predicts something else."""
    figures = other.figures.splits.get(judged.name)
    if figures is None or figures.values.keys() != judged.figures.values.keys() or not figures.n:
        return None
    key = other.key[:SHORT]
    if other.image_sets.get(judged.name) != material.model.image_sets.get(judged.name):
        return Line(other.name, key, figures, note=f"of {figures.n:,} other images")
    if sorted(other.head.target) != sorted(material.target):
        return Line(other.name, key, figures, note="of other names")
    try:
        theirs = predictions.read_predictions(other)
    except PipelineError as why:
        return Line(other.name, key, figures, note=why.message)
    number = {(row.id, row.label): i for i, row in enumerate(theirs.rows)}
    rows = [material.predicted.rows[i] for i in judged.numbers]
    places = [number.get((row.id, row.label)) for row in rows]
    if any(place is None for place in places):
        return Line(other.name, key, figures)
    order = [list(theirs.target).index(name) for name in material.target]
    p = theirs.probabilities[np.array(places, dtype=int)][:, order]
    labels, groups = [row.label or "" for row in rows], [row.group for row in rows]
    _, _, difference = material.target.compare(labels, material.predicted.probabilities[judged.numbers], p, groups)
    return Line(other.name, key, figures, less=format_difference(difference.figures[first]))


def _bars(lines: Sequence[Line], name: str) -> Sequence[Mapping[str, float] | None]:
    """Of each line, where the figure and its interval are in a bar from 0 to 100, the same for all lines."""
    found = [line.figures[name] for line in lines]
    ends = [end for figure in found for end in (*(figure.ci or ()), figure.value) if end is not None]
    if not ends:
        return [None] * len(found)
    low, high = min(ends), max(ends)
    if low >= 0 and high <= 1:
        low, high = np.floor(low * 20) / 20, np.ceil(high * 20) / 20
    return [_bar(figure, low, max(high - low, 1e-9)) for figure in found]


def _bar(figure: Figure, low: float, width: float) -> Mapping[str, float] | None:
    if figure.value is None:
        return None
    ends = figure.ci or (figure.value, figure.value)
    at, start, stop = (round(100 * (end - low) / width, 2) for end in (figure.value, *ends))
    return {"at": at, "start": start, "width": round(stop - start, 2)}


def _parts(judged: Judged) -> list[Mapping[str, object]]:
    """Tables of classes, labels, numbers and groups, the worst first."""
    found: list[Mapping[str, object]] = []
    for part, (word, count, names, bad) in _PARTS.items():
        every = judged.figures.details.get(part) or {}
        worst = sorted(every.items(), key=lambda item: (item[1][bad] is None, item[1][bad] or 0, item[0]))
        if len(every) > (1 if word in ("group", "number") else 0):
            found.append({"word": word, "count": count, "names": names, "rows": worst[:_MOST_PARTS], "all": len(every)})
    return found


def _groups(material: Material) -> Mapping[str, int]:
    """The number of groups of each set, over which intervals are; nothing where there are none."""
    rows = material.predicted.rows
    found = {judged.name: Counter(rows[i].group for i in judged.numbers) for judged in material.judged}
    return {name: len(groups) for name, groups in found.items() if set(groups) != {None}}


def _baseline(material: Material) -> Sequence[Mapping[str, object]]:
    """Of a fine-tuned model, the frozen head on the same images and the paired difference, by set."""
    metrics = material.model.figures
    return [
        {"judged": judged, "figures": metrics.baseline[judged.name], "difference": [
            (name, format_difference(metrics.difference[judged.name].figures[name]))
            for name in judged.figures.headline if name in metrics.difference[judged.name].figures
        ]}
        for judged in material.judged if judged.name in metrics.baseline and judged.name in metrics.difference
    ]  # fmt: skip
