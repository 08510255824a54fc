"""Owns the tables of few_images.py, and whether the default head is inferior to a rival. Not the figures of a draw.

A verdict is on the draws that the default head and a rival both have: the mean of paired differences, and its lower
bound from Student's t at a level of 95 %, one-sided, Bonferroni's over the rivals, so that all bounds of a line hold at
a time. Of log-losses it is the mean of log(ours / theirs), so that each draw counts the same, and its upper bound.
Draws of a set share images: the bounds are on the mean over draws of that set, not on other sets.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from benchmarks.few_contenders import OURS, RIVALS

Found = dict[tuple[str, int, int, str], dict[str, float]]
"""(set, n, draw, contender) to accuracy, auroc, log_loss and CPU seconds of the fit."""

DEFAULT = "logistic"
FIGURES = {"accuracy": "Accuracy", "auroc": "AUROC", "log_loss": "Log-loss"}
MOST_LOSS = 1.02
"""The most that the default head's log-loss may be, in those of a rival."""

FEWEST = 5
"""Draws that a verdict needs."""


def margin(n: int) -> float:
    """How much less accuracy or AUROC the default head may have."""
    return 0.01 if n <= 100 else 0.005


class Bound(NamedTuple):
    """Of the default head beside a rival: mean difference (of log-loss: ratio), its bound, whether that will do."""

    mean: float
    bound: float
    holds: bool

    def shown(self, ratio: bool) -> str:
        text = f"{self.mean:.3f} ({self.bound:.3f})" if ratio else f"{self.mean:+.3f} ({self.bound:+.3f})"
        return text if self.holds else f"**{text}**"


class Line(NamedTuple):
    """A set and a number of images; contender to its figures by draw."""

    name: str
    n: int
    found: dict[str, dict[int, dict[str, float]]]

    def paired(self, rival: str) -> list[int]:
        """The draws that the default head and a rival both have."""
        return sorted(set(self.found.get(DEFAULT, ())) & set(self.found.get(rival, ())))

    @property
    def draws(self) -> str:
        """How many a verdict has: the same for all rivals, or from fewest to most."""
        numbers = {len(self.paired(rival)) for rival in RIVALS}
        return "-".join(map(str, sorted({min(numbers), max(numbers)})))

    def values(self, contender: str, figure: str, draws: Sequence[int]) -> np.ndarray:
        return np.array([self.found[contender][number][figure] for number in draws])

    def bounds(self, figure: str) -> dict[str, Bound]:
        """Rival to what the default head loses or gains by it; none where a rival has too few draws."""
        if min(len(self.paired(rival)) for rival in RIVALS) < FEWEST:
            return {}
        found = {}
        for rival in RIVALS:
            draws = self.paired(rival)
            t = float(stats.t.ppf(1 - 0.05 / len(RIVALS), len(draws) - 1))
            ours, theirs = self.values(DEFAULT, figure, draws), self.values(rival, figure, draws)
            apart = np.log(ours / theirs) if figure == "log_loss" else ours - theirs
            mean, error = float(apart.mean()), t * float(apart.std(ddof=1)) / math.sqrt(len(draws))
            if figure == "log_loss":
                found[rival] = Bound(math.exp(mean), math.exp(mean + error), math.exp(mean + error) <= MOST_LOSS)
            else:
                found[rival] = Bound(mean, mean - error, mean - error > -margin(self.n))
        return found


def lines(found: Found) -> list[Line]:
    every: dict[tuple[str, int], Line] = {}
    for (name, n, number, contender), values in found.items():
        line = every.setdefault((name, n), Line(name, n, {}))
        line.found.setdefault(contender, {})[number] = values
    return [every[point] for point in sorted(every)]


def report(found: Found) -> None:
    every = lines(found)
    if not every:
        print("nothing is measured yet")
        return
    summary(every)
    for figure, title in FIGURES.items():
        means(f"{title}, mean over draws; in brackets draws, where they are fewer", every, figure, np.mean)
    for figure, title in FIGURES.items():
        differences(title, every, figure)
    means("CPU seconds of a fit, median", every, "seconds", np.median)
    print()
    for figure, title in FIGURES.items():
        verdict(title, every, figure)


def summary(every: Sequence[Line]) -> None:
    """All verdicts in one table: of each line the rival that the default head is nearest to being inferior to."""
    titles = " | ".join(f"{title} | rival" for title in FIGURES.values())
    print(
        f"\n{DEFAULT}, and the rival with the worst bound: difference, of log-loss the ratio, in brackets the bound:\n"
    )
    print(f"| set | n | draws | {titles} |\n|{'---|' * (2 * len(FIGURES) + 3)}")
    for line in every:
        cells = []
        for figure in FIGURES:
            ratio, bounds = figure == "log_loss", line.bounds(figure)
            if not bounds:
                break
            rival = max(bounds, key=lambda name: bounds[name].bound * (1 if ratio else -1))
            mean = line.values(DEFAULT, figure, sorted(line.found[DEFAULT])).mean()
            cells += [f"{mean:.3f}", f"{rival} {bounds[rival].shown(ratio)}"]
        if cells:
            print(f"| {line.name} | {line.n:,} | {line.draws} | {' | '.join(cells)} |")


def means(title: str, every: Sequence[Line], figure: str, middle: Callable[[np.ndarray], np.floating]) -> None:
    contenders = [name for name in (*OURS, *RIVALS) if any(name in line.found for line in every)]
    print(f"\n{title}:\n")
    print(f"| set | n | draws | {' | '.join(contenders)} |\n|{'---|' * (len(contenders) + 3)}")
    for line in every:
        most = max(map(len, line.found.values()))
        cells = []
        for contender in contenders:
            draws = sorted(line.found.get(contender, ()))
            fewer = f" ({len(draws)})" if len(draws) < most else ""
            cells.append(f"{middle(line.values(contender, figure, draws)):.3f}{fewer}" if draws else "")
        print(f"| {line.name} | {line.n:,} | {most} | {' | '.join(cells)} |")


def differences(title: str, every: Sequence[Line], figure: str) -> None:
    judged = [(line, bounds) for line in every if (bounds := line.bounds(figure))]
    if not judged:
        return
    ratio = figure == "log_loss"
    what = "as a share of the rival's (upper bound)" if ratio else "less the rival's (lower bound)"
    print(f"\n{title} of {DEFAULT}, {what}; bold where it may be inferior:\n")
    print(f"| set | n | draws | {' | '.join(RIVALS)} |\n|{'---|' * (len(RIVALS) + 3)}")
    for line, bounds in judged:
        cells = " | ".join(bound.shown(ratio) for bound in bounds.values())
        print(f"| {line.name} | {line.n:,} | {line.draws} | {cells} |")


def verdict(title: str, every: Sequence[Line], figure: str) -> None:
    judged = {f"{line.name} {line.n:,}": line.bounds(figure) for line in every}
    judged = {name: bounds for name, bounds in judged.items() if bounds}
    failed = {name: [r for r, bound in bounds.items() if not bound.holds] for name, bounds in judged.items()}
    failed = {name: rivals for name, rivals in failed.items() if rivals}
    text = "; ".join(f"{name} ({', '.join(rivals)})" for name, rivals in failed.items())
    print(f"{title}: {DEFAULT} is not inferior in {len(judged) - len(failed)} of {len(judged)} lines. {text}".rstrip())
