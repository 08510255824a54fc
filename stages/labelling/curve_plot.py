"""Owns the picture of a learning curve. Not its numbers, nor where it is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from stages.labelling.power_law import LEVEL, Ends
from stages.metrics import plots
from stages.metrics.figures import title
from stages.metrics.plots import Format

_SIDE = 4.6
"""Of a panel, inches."""

Points = Sequence[tuple[int, Mapping[str, Ends | None]]]
"""Numbers of images, ascending, and the figures there."""


def draw(head: str, measured: Points, line: Points, forecast: Points, names: Sequence[str], form: Format) -> bytes:
    """A panel for each figure that has a forecast. Raises NotAvailable without matplotlib."""
    with plots.style():
        from matplotlib.figure import Figure

        there = [name for name in names if forecast[-1][1][name] is not None]
        figure = Figure((_SIDE * max(1, len(there)), _SIDE * 0.85), layout="constrained")
        for axes, name in zip(figure.subplots(1, max(1, len(there)), squeeze=False)[0], there, strict=False):
            _panel(axes, measured, line, forecast, name)
        figure.suptitle(f"{plots.short_name(head)}: bars and band hold {LEVEL:.0%}", fontsize=11)
        return plots.as_file(figure, form)


def _panel(axes: Any, measured: Points, line: Points, forecast: Points, name: str) -> None:
    images, middle, low, high = _columns(line, name)
    axes.fill_between(images, low, high, color="C0", alpha=0.15, linewidth=0)
    axes.plot(images, middle, color="C0", linewidth=1, linestyle="--", label="power law")
    images, middle, low, high = _columns(measured, name)
    down, up = ([max(0.0, gap) for gap in gaps] for gaps in (_less(middle, low), _less(high, middle)))
    axes.errorbar(images, middle, [down, up], fmt="o", color="C0", markersize=4, elinewidth=0.8, label="out of fold")
    images, middle, low, high = _columns(forecast[-1:], name)
    axes.errorbar(images, middle, [_less(middle, low), _less(high, middle)], fmt="D", color="C1", markersize=5,
                  elinewidth=1.2, label=f"forecast: {middle[0]:.3f} ({low[0]:.3f}-{high[0]:.3f})")  # fmt: skip
    axes.axvline(forecast[0][0], color="0.6", linewidth=0.8, linestyle=":", zorder=0)
    axes.set_xscale("log")
    ticks = [*(count for count, _ in measured[::2]), forecast[-1][0]]
    axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks], fontsize=9)
    axes.set_xticks([], minor=True)
    axes.set(xlabel="labelled images", ylabel=title(name))
    axes.legend(loc="best", frameon=False, fontsize=8)


def _columns(points: Points, name: str) -> tuple[list[int], list[float], list[float], list[float]]:
    """Numbers of images, values, low and high ends, where the figure is defined."""
    there = [(images, ends) for images, figures in points if (ends := figures[name]) is not None]
    return (
        [images for images, _ in there],
        [ends.value for _, ends in there],
        [ends.low for _, ends in there],
        [ends.high for _, ends in there],
    )


def _less(high: Sequence[float], low: Sequence[float]) -> list[float]:
    return [one - other for one, other in zip(high, low, strict=True)]
