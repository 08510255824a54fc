"""Owns what a picture of a learning curve shows, and drawing it by matplotlib. Not its numbers, nor where it goes.

A report draws the same `Panel` as SVG (pipeline/report/learning.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from stages.labelling.power_law import LEVEL, Ends
from stages.metrics import plots
from stages.metrics.figures import title
from stages.metrics.plots import Format

_SIDE = 4.6
"""Of a panel, inches."""

Points = Sequence[tuple[int, Mapping[str, Ends | None]]]
"""Numbers of images, ascending, and the figures there."""

Line = Sequence[tuple[int, Ends]]
"""Numbers of images, ascending, and one figure there."""


class Panel(NamedTuple):
    """One figure: as `measured` on subsets, by the law from there on (`line`), and forecast at the most images.

    images: how many there are.
    """

    name: str
    images: int
    measured: Line
    line: Line
    forecast: tuple[int, Ends]

    @property
    def told(self) -> str:
        """The forecast in words."""
        _, ends = self.forecast
        return f"{ends.value:.3f} ({ends.low:.3f}-{ends.high:.3f})"


def panels(names: Sequence[str], measured: Points, line: Points, forecast: Points) -> list[Panel]:
    """A panel for each of these figures that has a forecast; `forecast` is at all images, and at the most."""
    now, most = forecast
    return [
        Panel(name, now[0], _of(measured, name), _of(line, name), (most[0], ends))
        for name in names
        if (ends := most[1][name]) is not None
    ]


def _of(points: Points, name: str) -> Line:
    return [(images, ends) for images, figures in points if (ends := figures[name]) is not None]


def draw(head: str, shown: Sequence[Panel], form: Format) -> bytes:
    """The panels side by side. Raises NotAvailable without matplotlib."""
    with plots.style():
        from matplotlib.figure import Figure

        figure = Figure((_SIDE * max(1, len(shown)), _SIDE * 0.85), layout="constrained")
        for axes, panel in zip(figure.subplots(1, max(1, len(shown)), squeeze=False)[0], shown, strict=False):
            _draw_panel(axes, panel)
        figure.suptitle(f"{plots.short_name(head)}: bars and band hold {LEVEL:.0%}", fontsize=11)
        return plots.as_file(figure, form)


def _draw_panel(axes: Any, panel: Panel) -> None:
    images, middle, low, high = _columns(panel.line)
    axes.fill_between(images, low, high, color="C0", alpha=0.15, linewidth=0)
    axes.plot(images, middle, color="C0", linewidth=1, linestyle="--", label="power law")
    images, middle, low, high = _columns(panel.measured)
    down, up = ([max(0.0, gap) for gap in gaps] for gaps in (_less(middle, low), _less(high, middle)))
    axes.errorbar(images, middle, [down, up], fmt="o", color="C0", markersize=4, elinewidth=0.8, label="out of fold")
    images, middle, low, high = _columns([panel.forecast])
    axes.errorbar(images, middle, [_less(middle, low), _less(high, middle)], fmt="D", color="C1", markersize=5,
                  elinewidth=1.2, label=f"forecast: {panel.told}")  # fmt: skip
    axes.axvline(panel.images, color="0.6", linewidth=0.8, linestyle=":", zorder=0)
    axes.set_xscale("log")
    ticks = [*(count for count, _ in panel.measured[::2]), panel.forecast[0]]
    axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks], fontsize=9)
    axes.set_xticks([], minor=True)
    axes.set(xlabel="labelled images", ylabel=title(panel.name))
    axes.legend(loc="best", frameon=False, fontsize=8)


def _columns(line: Line) -> tuple[list[int], list[float], list[float], list[float]]:
    """Numbers of images, values, low and high ends."""
    return (
        [images for images, _ in line],
        [ends.value for _, ends in line],
        [ends.low for _, ends in line],
        [ends.high for _, ends in line],
    )


def _less(high: Sequence[float], low: Sequence[float]) -> list[float]:
    return [one - other for one, other in zip(high, low, strict=True)]
