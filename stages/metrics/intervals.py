"""Owns the 95% interval of each figure, and of a difference. Not the figures (classification.py), nor resampling.

Percentiles of a bootstrap are too narrow for few rows, and have no width where no row is a mistake. The intervals here
hold the true value about 95 times in 100 from 5 rows on: tests/stages/metrics/test_intervals.py simulates it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from stages.metrics import bootstrap, classification
from stages.metrics.figures import Figure, Figures, Interval

SHARES = ("accuracy", "balanced_accuracy", "macro_f1", "auroc", "average_precision")
_LOSSES = {"log_loss": classification.row_losses, "brier": classification.brier}
_NORMAL = 1.959964
_SIMULATED = 2000


def metrics_with_intervals(
    labels: Sequence[str],
    probabilities: np.ndarray,
    classes: Sequence[str],
    groups: Sequence[str | None],
    seed: int = 0,
    shares: np.ndarray | None = None,
) -> Figures:
    """The figures of classification.metrics for n rows, each with its interval.

    `groups` has each row's group or None. Rows of a group are not independent: where there are groups, variances are
    those of a bootstrap over groups, and quantiles are Student's t with one degree of freedom less than groups.

    SHARES have the score interval of Wilson (1927) for m rows, where m is the effective size: value times (1 - value)
    over the variance (of groups: Dean and Pagano 2015), at most `_sizes`. log_loss and brier have a t interval, with
    the lower end on the log scale; at the upper end its variance includes half a mistake in n + 1 rows, which may not
    have been seen. ece is biased upwards, so its interval reaches further down than up. None where the figure is None
    or could not be resampled, and with one row or group.
    """
    found = classification.metrics(labels, probabilities, classes, shares)
    truth, units = classification.label_columns(labels, classes), bootstrap.resampling_units(groups)
    n, count = len(truth), int(units.max(initial=0)) + 1
    if n == 0 or count == 1:
        return replace(found, ci=dict.fromkeys(classification.NAMES))
    p = np.asarray(probabilities, dtype=np.float64)
    (drawn,) = bootstrap.resample([bootstrap.Weighted(truth, p, shares)], units, seed)
    spread = {name: variance(values, count) for name, values in drawn.items()}
    size = _effective_sizes(found.values, spread, truth, units)
    z, t = _NORMAL if count == n else student(count), student(count)
    ci: dict[str, Interval | None] = dict.fromkeys(classification.NAMES)
    ci |= {name: [float(end) for end in wilson(found.values[name] or 0.0, m, z)] for name, m in size.items()}
    ci |= _loss_intervals(truth, p, found.values, spread, count, t)
    ci["ece"] = _ece_interval(truth, p, max(n / size["accuracy"], 1.0), seed)
    return replace(found, ci=ci)


def wilson(share: np.ndarray | float, n: np.ndarray | float, z: float = _NORMAL) -> tuple[np.ndarray, np.ndarray]:
    """The score interval of a share of n (Wilson 1927): low and high."""
    middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return np.clip(middle - half, 0, share), np.clip(middle + half, share, 1)


def mean_of_groups(values: np.ndarray, groups: Sequence[str | None]) -> tuple[float, float]:
    """The mean of n values, and its standard error where rows of a group are not independent (Liang and Zeger 1986).

    None is a group of its own. The error of one group is infinite.
    """
    units = bootstrap.resampling_units(groups)
    mean, sums = float(values.mean()), np.bincount(units, values - values.mean())
    return mean, float(np.sqrt((sums**2).sum() * len(sums) / (len(sums) - 1)) / len(values)) if len(
        sums
    ) > 1 else np.inf


def share_with_interval(right: np.ndarray, groups: Sequence[str | None]) -> Figure:
    """The share of n rows that are `right`, with Wilson's interval for the effective number of rows."""
    share, error = mean_of_groups(right.astype(np.float64), groups)
    units = len(set(bootstrap.resampling_units(groups).tolist()))
    size = min(share * (1 - share) / error**2, len(right)) if 0 < error < np.inf else units
    return Figure(share, [float(end) for end in wilson(share, size)])


def paired_difference(
    labels: Sequence[str],
    a: np.ndarray,
    b: np.ndarray,
    classes: Sequence[str],
    groups: Sequence[str | None],
    shares: np.ndarray | None = None,
) -> dict[str, Figure]:
    """Each figure of b minus that of a, both (n, classes) on the same rows, with its interval.

    A t interval with the variance of a paired bootstrap: both are evaluated on the same resamples, so what makes rows
    hard for both cancels (Efron and Tibshirani 1993, ch. 8). It includes rows that may not have been seen: two in n + 2
    that one model alone has right (Bonett and Price 2012) unless a and b are equal, and half a mistake as above.
    """
    truth, units = classification.label_columns(labels, classes), bootstrap.resampling_units(groups)
    one, two = (classification.metrics(labels, p, classes, shares).values for p in (a, b))
    gaps = {name: None if value is None else (two[name] or 0.0) - value for name, value in one.items()}
    count = int(units.max(initial=0)) + 1
    if count == 1:
        return {name: Figure(gap, None) for name, gap in gaps.items()}
    before, after = bootstrap.resample([bootstrap.Weighted(truth, p, shares) for p in (a, b)], units, seed=0)
    other = _other_class(truth, a + b)
    unseen = {} if np.array_equal(a, b) else {name: 2 / (m + 2) ** 2 for name, m in _sizes(truth, units).items()}
    for name, loss in _LOSSES.items():
        unseen[name] = _unseen_variance(loss(other, b) - loss(other, a) - loss(truth, b) + loss(truth, a), count)
    out = {}
    for name, gap in gaps.items():
        spread = variance(after[name] - before[name], count)
        half = None if spread is None else student(count) * float(np.sqrt(spread + unseen.get(name, 0.0)))
        out[name] = Figure(gap, None if gap is None or half is None else [gap - half, gap + half])
    return out


def _effective_sizes(
    values: Mapping[str, float | None], variance: Mapping[str, float | None], truth: np.ndarray, units: np.ndarray
) -> dict[str, float]:
    """The rows that each share stands for, of those that have an interval; without a mistake, the sizes of units."""
    n = len(truth)
    rows, edge = _sizes(truth, np.arange(n)), _sizes(truth, units)
    out = {}
    for name in SHARES:
        value, spread = values[name], variance[name]
        if value is None or spread is None:
            continue
        plain = min(value, 1 - value, spread) < 1e-9 or (name == "accuracy" and n == units.max() + 1)
        out[name] = edge[name] if plain else min(rows[name], value * (1 - value) / spread)
    return out


def _sizes(truth: np.ndarray, units: np.ndarray) -> dict[str, float]:
    """The rows that shares of independent units stand for: of n, or of how many there are of each class.

    auroc: as by the variance of Hanley and McNeil (1982) near 1, where Newcombe's (2006) method 5 has it.
    """
    count = float(units.max() + 1)
    classes, pairs = np.unique(np.stack([truth, units]), axis=1)
    of_class = np.unique(classes, return_counts=True)[1].astype(float)
    balanced = len(of_class) ** 2 / float((1 / of_class).sum())
    positives = of_class if len(of_class) > 2 else of_class[-1:]
    negatives = np.maximum(count - positives, 1)
    pairs = positives * negatives / (1 + (count / 2 - 1) / 2)
    return {
        "accuracy": count,
        "balanced_accuracy": balanced,
        "macro_f1": balanced,
        "auroc": min(count, max(1.0, float(pairs.sum()))),
        "average_precision": min(count, float(positives.sum())),
    }


def _loss_intervals(
    truth: np.ndarray, p: np.ndarray, values: Mapping[str, float | None], variance: Mapping[str, float | None],
    count: int, t: float,
) -> Mapping[str, Interval]:  # fmt: skip
    right, other = p.argmax(axis=1) == truth, _other_class(truth, p)
    out = {}
    for name, loss in _LOSSES.items():
        mean, spread = values[name] or 0.0, variance[name] or 0.0
        unseen = _unseen_variance(np.where(right, loss(other, p) - loss(truth, p), 0), count)
        low = mean * float(np.exp(-t * np.sqrt(spread) / mean)) if mean else 0.0
        out[name] = [low, mean + t * float(np.sqrt(spread + unseen))]
    out["brier"][1] = min(out["brier"][1], 1.0 if p.shape[1] == 2 else 2.0)
    return out


def _ece_interval(truth: np.ndarray, p: np.ndarray, effect: float, seed: int) -> Interval:
    """Of the binned calibration error, from normal noise in each bin; `effect` is n over the effective size.

    Noise adds to the absolute gaps at most its own sum, so the lower end is the ece less the 97.5% quantile of that.
    On average it does not lower them (they are convex), so the upper end is what the ece may be below its average.
    """
    confidence, right = p.max(axis=1), p.argmax(axis=1) == truth
    bins, where = np.unique(classification.confidence_bins(confidence), return_inverse=True)
    n, hits, sure = np.bincount(where), np.bincount(where, right), np.bincount(where, confidence)
    gap, share = (hits - sure) / len(p), (hits / effect + 2 * sure / n) / (n / effect + 2)
    noise = np.random.default_rng(seed).standard_normal((_SIMULATED, len(bins)))
    noise *= np.sqrt(n * share * (1 - share) * effect) / len(p)
    ece, noisy = float(np.abs(gap).sum()), np.abs(gap + noise).sum(axis=1)
    low, high = np.quantile(np.abs(noise).sum(axis=1), 0.975), noisy.mean() - np.quantile(noisy, 0.025)
    return [max(0.0, ece - float(low)), min(1.0, ece + float(high))]


def _other_class(truth: np.ndarray, p: np.ndarray) -> np.ndarray:
    """The likeliest class of each row but its own, (n,)."""
    others = p.copy()
    others[np.arange(len(p)), truth] = -1
    return np.asarray(others.argmax(axis=1))


def _unseen_variance(change: np.ndarray, count: int) -> float:
    """Of a mean over units, for half a row in `count` + 1 that has another class; `change` (n,) is what this adds."""
    return float((change**2).mean()) / (2 * count + 2) / count


def variance(values: np.ndarray, count: int) -> float | None:
    """Of the defined values of resamples of `count` units, None where they are too few."""
    defined = values[~np.isnan(values)]
    return float(defined.var()) * count / (count - 1) if len(defined) > 1 else None


def student(count: int) -> float:
    """The 97.5% quantile of Student's t for the mean of `count` units."""
    from scipy.special import stdtrit

    return float(stdtrit(count - 1, 0.975))
