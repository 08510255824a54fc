"""Owns plots of predicted numbers. Not those of classes and labels (plots.py), nor where they are written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from stages.metrics import plots, regression
from stages.metrics.plots import Format

_SIDE = 4.6
"""Of a panel, inches."""

_MOST_POINTS = 5_000
"""Of more images, evenly spaced ones are drawn."""

Rows = tuple[np.ndarray, np.ndarray]
"""True and predicted numbers of a split, (n, numbers) each."""


def draw_plots(
    splits: Mapping[str, Rows], names: Sequence[str], units: Sequence[str], form: Format
) -> Iterator[tuple[str, bytes]]:
    """(name, file) of each plot: predicted and residuals; a row of panels for a number, a panel for a split.

    Empty splits are left out. Raises NotAvailable without matplotlib.
    """
    there = {split: rows for split, rows in splits.items() if len(rows[0])}
    with plots.style():
        if there:
            yield "predicted", plots.as_file(_panels(there, names, units, _against), form)
            yield "residuals", plots.as_file(_panels(there, names, units, _residuals), form)


def _panels(splits: Mapping[str, Rows], names: Sequence[str], units: Sequence[str], draw: Any) -> Any:
    from matplotlib.figure import Figure

    figure = Figure((_SIDE * len(splits), _SIDE * len(names)), layout="constrained")
    for row, name in zip(figure.subplots(len(names), len(splits), squeeze=False), range(len(names)), strict=True):
        for axes, (split, (truth, predicted)) in zip(row, splits.items(), strict=True):
            some = np.arange(0, len(truth), max(1, -(-len(truth) // _MOST_POINTS)))
            unit = f" ({units[name]})" if units[name] else ""
            draw(axes, truth[some, name], predicted[some, name], plots.short_name(names[name]) + unit)
            found = regression.metrics(truth[:, [name]], predicted[:, [name]]).values
            spearman = "-" if found["spearman"] is None else f"{found['spearman']:.3f}"
            axes.set_title(f"{split} (n = {len(truth):,}): MAE {found['mae']:.3g}, Spearman {spearman}", fontsize=10)
    return figure


def _against(axes: Any, truth: np.ndarray, predicted: np.ndarray, name: str) -> None:
    """Where all were right, the points would be on the line."""
    ends = [float(min(truth.min(), predicted.min())), float(max(truth.max(), predicted.max()))]
    axes.plot(ends, ends, color="0.6", linewidth=0.8, linestyle="--", zorder=0)
    axes.scatter(truth, predicted, s=9, alpha=0.4, linewidths=0)
    axes.set(xlabel=f"true {name}", ylabel=f"predicted {name}")


def _residuals(axes: Any, truth: np.ndarray, predicted: np.ndarray, name: str) -> None:
    axes.axhline(0, color="0.6", linewidth=0.8, linestyle="--", zorder=0)
    axes.scatter(predicted, predicted - truth, s=9, alpha=0.4, linewidths=0)
    axes.set(xlabel=f"predicted {name}", ylabel="predicted less true")
