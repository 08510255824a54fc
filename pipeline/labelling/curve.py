"""Owns the learning curve of a head: figures against the number of images, and the forecast at twice as many.

Not the heads (sized_heads.py), the subsets and the law (stages/labelling), nor how it looks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from cache.errors import Unusable
from pipeline.labelling.sized_heads import SizedHeads
from pipeline.project.project import Project
from pipeline.runs import train_heads
from pipeline.serving import dataset
from stages.data.manifest import Row
from stages.labelling import curve_plot, power_law, subsets
from stages.labelling.curve_plot import Panel
from stages.labelling.power_law import Ends, Law
from stages.metrics import bootstrap
from stages.metrics.plots import Format
from stages.runtime.parallel import run_in_threads
from stages.targets.target import Target

RESAMPLES = 100
"""Of images and subsets, whose figures tell how far to trust a forecast."""

_DRAWN = 30
"""Points of the line in the picture."""


@dataclass(frozen=True)
class Point:
    """Figures of heads of so many images, each with the ends of its interval; None where it is undefined."""

    images: int
    figures: Mapping[str, Ends | None]

    def to_json(self) -> dict[str, Any]:
        named = {name: None if ends is None else ends._asdict() for name, ends in self.figures.items()}
        return {"images": self.images, **named}


@dataclass(frozen=True)
class Learned:
    """Figures by number of images: `measured` out of fold on subsets, `forecast` at all images and at twice as many.

    gain: what the images that are added change, by figure. laws: error(n) = a n^-b + c, by figure. line: the law from
    the fewest images to the most, to be drawn. All intervals hold 90 % (power_law.LEVEL).
    """

    head: str
    images: int
    groups: int
    repeats: int
    names: Sequence[str]
    measured: Sequence[Point]
    forecast: Sequence[Point]
    gain: Mapping[str, Ends | None]
    laws: Mapping[str, Law | None]
    line: Sequence[Point] = field(repr=False)

    @property
    def panels(self) -> list[Panel]:
        """What pictures of it show: a panel for each figure that has a forecast."""
        parts = (self.measured, self.line, self.forecast)
        measured, line, forecast = ([(point.images, point.figures) for point in points] for points in parts)
        return curve_plot.panels(self.names, measured, line, forecast)

    def draw(self, form: Format) -> bytes:
        """The picture of it. Raises NotAvailable without matplotlib."""
        return curve_plot.draw(self.head, self.panels, form)

    def to_json(self) -> dict[str, Any]:
        plain = {name: getattr(self, name) for name in ("head", "images", "groups", "repeats")}
        points = {name: [point.to_json() for point in getattr(self, name)] for name in ("measured", "forecast")}
        named = {"gain": self.gain, "laws": self.laws}
        parts = {name: {k: v and v._asdict() for k, v in found.items()} for name, found in named.items()}
        return {**plain, "figures": list(self.names), "level": power_law.LEVEL, **points, **parts}


def learning_curve(project: Project, name: str, repeats: int = 1) -> Learned:
    """The curve of that head of pipeline.yaml, on cached rows of train and val; test is not looked at.

    In each of five folds, heads are fitted on subsets of the images outside of it, and judged on those in it; `repeats`
    times, with folds and subsets drawn anew. Raises Unusable where there are too few images, and for a sweep;
    NotAvailable where a row is missing.
    """
    project.check_heads([name])
    spec = project.config.heads[name]
    if spec.sweep is not None:
        raise Unusable(f"head {name} is a sweep of {len(spec.points())} points", "name a head of one point")
    manifest = dataset.images_with_rows(project, spec.taps)
    train_heads.check_leaks(project, manifest)
    target = project.find_target(manifest)
    spec, manifest = train_heads.choose_rows(project, spec, manifest)
    rows = list({row.id: row for row in manifest.samples if row.split in ("train", "val")}.values())
    features = train_heads.feature_matrix(project, spec, [row.id for row in rows])
    heads, strata = SizedHeads(spec, features, rows, target), project.strata(rows)
    sizes = choose_sizes(rows, target)
    with project.progress("fitting", repeats * subsets.FOLDS * len(sizes)) as advance:

        def predict(fitted: np.ndarray, judged: np.ndarray, step: int) -> np.ndarray:
            advance(1)
            return heads.predict(fitted, judged, step)

        found = subsets.judge(predict, rows, strata, sizes, repeats, spec.seed)
    return describe(name, rows, target, sizes, found, spec.seed)


def choose_sizes(rows: Sequence[Row], target: Target) -> list[int]:
    """How many images heads are fitted on. Raises Unusable where there are too few."""
    strata = target.strata([row.label or "" for row in rows])
    least = 2 * len(strata.members) if strata.needed else 0
    top = len(rows) * (subsets.FOLDS - 1) // subsets.FOLDS
    if top < 2 * max(least, subsets.LEAST):
        needed = -(-2 * max(least, subsets.LEAST) * subsets.FOLDS // (subsets.FOLDS - 1))
        raise Unusable(f"{len(rows):,} images of train and val are too few for a curve", f"it takes {needed:,} or more")
    return subsets.choose_sizes(top, least)


def describe(
    name: str,
    rows: Sequence[Row],
    target: Target,
    sizes: Sequence[int],
    found: Sequence[Sequence[np.ndarray]],
    seed: int,
) -> Learned:
    """The curve of predictions (n, columns) of the rows, by repeat and size."""
    labels = [row.label or "" for row in rows]
    units = bootstrap.resampling_units([row.group for row in rows])
    names, errors, resampled = _errors(labels, units, target, found, seed)
    n, count = len(rows), int(units.max()) + 1
    at = [n, 2 * n, *(round(size) for size in np.geomspace(sizes[0], 2 * n, _DRAWN))]
    measured: list[dict[str, Ends | None]] = [{} for _ in sizes]
    forecast: list[dict[str, Ends | None]] = [{} for _ in at]
    gain: dict[str, Ends | None] = dict.fromkeys(names)
    laws: dict[str, Law | None] = dict.fromkeys(names)
    for number, figure in enumerate(names):
        drawn = resampled[np.isfinite(resampled[:, :, number]).all(axis=1), :, number]
        if np.isnan(errors[:, number]).any() or len(drawn) < RESAMPLES // 2:
            for point in (*measured, *forecast):
                point[figure] = None
            continue
        for point, error, spread in zip(measured, errors[:, number].tolist(), drawn.var(axis=0).tolist(), strict=True):
            point[figure] = power_law.interval(figure, error, spread, count)
        curve = power_law.follow(sizes, errors[:, number], drawn, at)
        for place, point in enumerate(forecast):
            point[figure] = power_law.interval(figure, float(curve.errors[place]), curve.variance(place), count)
        gain[figure], laws[figure] = power_law.gain(figure, curve, 0, 1), curve.law
    points = [Point(images, figures) for images, figures in zip(at, forecast, strict=True)]
    steps = [Point(images, figures) for images, figures in zip(sizes, measured, strict=True)]
    groups = len({row.group for row in rows if row.group is not None})
    return Learned(name, n, groups, len(found), names, steps, points[:2], gain, laws, points[2:])


def _errors(
    labels: Sequence[str], units: np.ndarray, target: Target, found: Sequence[Sequence[np.ndarray]], seed: int
) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Names of figures, their errors by size (sizes, figures), and those of resamples (RESAMPLES, sizes, figures).

    A resample has one draw of subsets, since the head of more images will be one.
    """
    names = list(target.figures((labels, found[0][-1])).headline)
    order = np.argsort(units, kind="stable")
    members = np.split(order, np.flatnonzero(np.diff(units[order])) + 1)

    def errors(numbers: np.ndarray, steps: Sequence[np.ndarray]) -> np.ndarray:
        some = [labels[i] for i in numbers]
        values = [target.figures((some, p[numbers])).values for p in steps]
        every = np.array([[np.nan if of[name] is None else of[name] for name in names] for of in values], dtype=float)
        return np.where([name in power_law.LOSSES for name in names], every, 1 - every)

    def resample(number: int) -> np.ndarray:
        random = np.random.default_rng([seed, number])
        drawn = random.integers(0, len(members), len(members))
        return errors(np.concatenate([members[i] for i in drawn]), found[int(random.integers(len(found)))])

    everything = np.arange(len(labels))
    mean = np.mean([errors(everything, steps) for steps in found], axis=0)
    return names, mean, np.array(run_in_threads(resample, range(RESAMPLES)))
