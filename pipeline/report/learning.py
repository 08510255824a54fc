"""Owns the section of a head's learning curve. Not the curve (labelling/curve.py), nor how a chart looks (charts)."""

from __future__ import annotations

import math

import numpy as np

from cache.errors import NotAvailable, PipelineError
from pipeline.labelling.curve import Learned, learning_curve
from pipeline.report.charts import Chart
from pipeline.report.material import Material
from pipeline.report.page import Section
from stages.labelling.curve_plot import Panel
from stages.labelling.power_law import LEVEL
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
    charts = [_draw(found, panel) for panel in found.panels]
    if not charts:
        return Section("learning", "Would more images help?", notes=["no forecast: too many subsets lack a class"])
    lead = (
        f"Heads fitted on some of the {found.images:,} images of train and val, judged out of fold; whiskers hold "
        f"{LEVEL:.0%}. The dashed line is the law a n^-b + c that these figures follow, up to twice as many images."
    )
    return Section("learning", "Would more images help?", "charts.html", {"charts": charts, "lead": lead})


def _draw(found: Learned, panel: Panel) -> Chart:
    last, _ = panel.forecast
    shown, first = [panel.measured, [panel.forecast]], panel.measured[0][0]
    every = [end for points in shown for _, one in points for end in one] + [one.value for _, one in panel.line]
    low, high = min(every), max(every)
    low, high = low - 0.05 * (high - low), high + 0.05 * (high - low)

    def across(images: int) -> float:
        return round(100 * math.log(images / first) / math.log(last / first), 2)

    def up(value: float) -> float:
        return round(100 * (1 - (value - low) / (high - low or 1.0)), 2)

    sizes = [n for n, _ in panel.measured]
    ticks = [*sizes[:: -(-len(sizes) // (_TICKS - 1))], last]
    gain = found.gain[panel.name]
    assert gain is not None
    more = f"{last - panel.images:,} images more: {gain.value:+.3f} ({gain.low:+.3f} to {gain.high:+.3f})"
    told = f"forecast at {last:,} images {panel.told}; {more}"
    whole = f"{title(panel.name)} by number of images"
    return Chart(
        whole,
        "labelled images",
        title(panel.name),
        f"{whole}: {'; '.join(f'{n:,} images {one.value:.3f}' for n, one in panel.measured)}; {told}.",
        dots=[[(across(n), up(one.value)) for n, one in points] for points in shown],
        bars=[[(across(n), up(one.low), up(one.high)) for n, one in points] for points in shown],
        reference=" ".join(f"{across(n):g},{up(one.value):g}" for n, one in panel.line if n >= first),
        x_ticks=[(across(n), f"{n:,}") for n in ticks],
        y_ticks=[(up(value), f"{value:.3g}") for value in np.linspace(low, high, _TICKS).tolist()],
        note=told,
    )
