"""Owns intervals of figures that a bootstrap alone tells about. Not those of classes (intervals.py), nor the draws."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from stages.metrics import bootstrap, intervals
from stages.metrics.bootstrap import Prepared
from stages.metrics.figures import Figure, Interval

Form = Literal["share", "size", "correlation", "score"]
"""What a figure is: share of 0 to 1, a size that is never below 0, a correlation of -1 to 1, or a score of at most
1."""


def figure_intervals(
    forms: Mapping[str, Form],
    values: Mapping[str, float | None],
    prepared: Prepared,
    groups: Sequence[str | None],
    seed: int,
) -> dict[str, Interval | None]:
    """The 95% interval of each figure; None where it is undefined or cannot be resampled, and of one row or group.

    The variance is that of a bootstrap over rows, or groups where there are any; quantiles are Student's t. Shares have
    Wilson's interval (1927) at the size that has this variance, sizes one on the log scale, correlations Fisher's z.
    """
    units = bootstrap.resampling_units(groups)
    count = int(units.max(initial=-1)) + 1
    if count < 2:
        return dict.fromkeys(forms)
    (drawn,) = bootstrap.resample([prepared], units, seed)
    return {
        name: _interval(form, values[name], intervals.variance(drawn[name], count), count)
        for name, form in forms.items()
    }


def _interval(form: Form, value: float | None, variance: float | None, count: int) -> Interval | None:
    if value is None or variance is None:
        return None
    t, deviation = intervals.student(count), float(np.sqrt(variance))
    if form == "share":
        size = count if min(value, 1 - value, variance) < 1e-9 else min(count, value * (1 - value) / variance)
        return [float(end) for end in intervals.wilson(value, size, t)]
    if form == "size":
        factor = float(np.exp(t * deviation / value)) if value > 0 else 1.0
        return [value / factor, value * factor]
    if form == "correlation":
        z = np.arctanh(np.clip(value, -0.999999, 0.999999))
        half = t * deviation / max(1 - value**2, 1e-6)
        return [float(np.tanh(z - half)), float(np.tanh(z + half))]
    return [value - t * deviation, min(value + t * deviation, 1.0)]


def differences(
    a: Mapping[str, float | None],
    b: Mapping[str, float | None],
    prepared: Sequence[Prepared],
    groups: Sequence[str | None],
) -> dict[str, Figure]:
    """Each figure of b less that of a on the same rows, with a t interval from a paired bootstrap."""
    units = bootstrap.resampling_units(groups)
    count = int(units.max(initial=-1)) + 1
    gaps = {name: None if value is None or b[name] is None else (b[name] or 0.0) - value for name, value in a.items()}
    if count < 2:
        return {name: Figure(gap, None) for name, gap in gaps.items()}
    before, after = bootstrap.resample(prepared, units, seed=0)
    out = {}
    for name, gap in gaps.items():
        variance = intervals.variance(after[name] - before[name], count)
        half = None if variance is None else intervals.student(count) * float(np.sqrt(variance))
        out[name] = Figure(gap, None if gap is None or half is None else [gap - half, gap + half])
    return out
