"""Owns figures that a bootstrap alone tells about, and their intervals. Not those of classes (intervals.py)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np

from stages.metrics import bootstrap, intervals
from stages.metrics.bootstrap import Prepared
from stages.metrics.figures import Compared, Difference, Figure, Figures, Interval

Form = Literal["share", "size", "correlation", "score"]
"""What a figure is: share of 0 to 1, a size that is never below 0, a correlation of -1 to 1, or a score of at most
1."""


Forms = Mapping[str, Form]
"""The figures of a target by name, in the order they are shown."""

Prepare = Callable[[np.ndarray, np.ndarray], Prepared]
"""What is true of n rows, and what is predicted for them, prepared for resampling."""


def metrics(forms: Forms, prepare: Prepare, truth: np.ndarray, predicted: np.ndarray) -> Figures:
    """The figures of n rows, each once; all None where there is no row."""
    if not len(truth):
        return Figures(0, dict.fromkeys(forms))
    return _plain(prepare(truth, predicted), len(truth))


def judge(
    forms: Forms, prepare: Prepare, truth: np.ndarray, predicted: np.ndarray, groups: Sequence[str | None], seed: int
) -> Figures:
    """The same, each with its 95% interval: None where undefined or not to be resampled, and of one row or group.

    The variance is that of a bootstrap over rows, or groups where there are any; quantiles are Student's t. Shares have
    Wilson's interval (1927) at the size that has this variance, sizes one on the log scale, correlations Fisher's z.
    """
    units = bootstrap.resampling_units(groups)
    count = int(units.max(initial=-1)) + 1
    if count < 2:
        return replace(metrics(forms, prepare, truth, predicted), ci=dict.fromkeys(forms))
    prepared = prepare(truth, predicted)
    found, (drawn,) = _plain(prepared, len(truth)), bootstrap.resample([prepared], units, seed)
    ci = {
        name: _interval(form, found.values[name], intervals.variance(drawn[name], count), count)
        for name, form in forms.items()
    }
    return replace(found, ci=ci)


def compare(
    forms: Forms, prepare: Prepare, truth: np.ndarray, a: np.ndarray, b: np.ndarray, groups: Sequence[str | None]
) -> Compared:
    """Figures with intervals of both, and each figure of b less that of a."""
    one, two = (judge(forms, prepare, truth, of, groups, 0) for of in (a, b))
    prepared = [prepare(truth, of) for of in (a, b) if len(truth)]
    return one, two, Difference(_differences(one.values, two.values, prepared, groups), {})


def _plain(prepared: Prepared, n: int) -> Figures:
    found = prepared.figures(np.ones((n, 1)), True)
    return Figures(n, {name: float(value[0]) if np.isfinite(value[0]) else None for name, value in found.items()})


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


def _differences(
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
