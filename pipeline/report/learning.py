"""Owns the section of a head's learning curve. Not the curve (labelling/curve.py), nor how a chart looks (charts)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from cache.errors import NotAvailable, PipelineError
from pipeline.labelling.curve import Learned, Point, learning_curve
from pipeline.report.charts import Chart
from pipeline.report.material import Material
from pipeline.report.page import Section
from stages.labelling.power_law import LEVEL, Ends
from stages.metrics.figures import title

_TICKS = 4
"""Of either axis, at most."""


def section(material: Material) -> Section | None:
    """None where the model is no head of pipeline.yaml as it is today, or one of Keras, whose many fits take long."""
    model, heads = material.model, material.today.config.heads
    kind, _, name = model.name.partition("/")
    if kind != "head" or not model.current or name not in heads or heads[name].packages:
        return None
    try:
        found = learning_curve(material.today, name)
    except PipelineError as why:
        notes, passing = [f"no learning curve: {why.message}"], isinstance(why, NotAvailable)
        return Section("learning", "Would more images help?", notes=notes, passing=passing)
    charts = [_draw(found, name) for name, gain in found.gain.items() if gain is not None]
    if not charts:
        return Section("learning", "Would more images help?", notes=["no forecast: too many subsets lack a class"])
    lead = (
        f"Heads fitted on some of the {found.images:,} images of train and val, judged out of fold; whiskers hold "
        f"{LEVEL:.0%}. The dashed line is the law a n^-b + c that these figures follow, up to twice as many images."
    )
    return Section("learning", "Would more images help?", "charts.html", {"charts": charts, "lead": lead})


def _draw(found: Learned, name: str) -> Chart:
    measured, line = dict(_there(found.measured, name)), dict(_there(found.line, name))
    last = found.forecast[-1].images
    forecast = dict(_there(found.forecast[-1:], name))
    every = [end for points in (measured, forecast) for one in points.values() for end in one]
    every += [ends.value for ends in line.values()]
    low, high = min(every), max(every)
    low, high = low - 0.05 * (high - low), high + 0.05 * (high - low)

    def across(images: int) -> float:
        first = min(measured)
        return round(100 * math.log(images / first) / math.log(last / first), 2)

    def up(value: float) -> float:
        return round(100 * (1 - (value - low) / (high - low or 1.0)), 2)

    sizes = sorted(measured)
    ticks = [*sizes[:: -(-len(sizes) // (_TICKS - 1))], last]
    ends, gain = forecast[last], found.gain[name]
    assert gain is not None
    more = f"{last - found.images:,} images more: {gain.value:+.3f} ({gain.low:+.3f} to {gain.high:+.3f})"
    told = f"forecast at {last:,} images {ends.value:.3f} ({ends.low:.3f}-{ends.high:.3f}); {more}"
    whole = f"{title(name)} by number of images"
    return Chart(
        whole,
        "labelled images",
        title(name),
        f"{whole}: {'; '.join(f'{n:,} images {one.value:.3f}' for n, one in measured.items())}; {told}.",
        dots=[[(across(n), up(one.value)) for n, one in points.items()] for points in (measured, forecast)],
        bars=[[(across(n), up(one.low), up(one.high)) for n, one in points.items()] for points in (measured, forecast)],
        reference=" ".join(f"{across(n):g},{up(one.value):g}" for n, one in line.items() if n >= min(measured)),
        x_ticks=[(across(n), f"{n:,}") for n in ticks],
        y_ticks=[(up(value), f"{value:.3g}") for value in np.linspace(low, high, _TICKS).tolist()],
        note=told,
    )


def _there(points: Sequence[Point], name: str) -> Iterator[tuple[int, Ends]]:
    return ((point.images, ends) for point in points if (ends := point.figures[name]) is not None)
