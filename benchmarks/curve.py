"""Whether forecasts of a learning curve hold: python -m benchmarks.curve [--sets NAME...] [--head KIND] [--report].

A replay has n images of a set, and n more. `pipeline curve` on the first n forecasts the figures of a head of 2n, with
an interval of 90 %; a head of all 2n then shows what they are on all other images. Replays of one set and size are
disjoint as far as it has images for them. What heads predicted is kept in the work folder, and a run goes on where it
was stopped.

Beside it is "it stays as it is": the last measured figure, with its own interval of 90 %, or with one as wide as the
forecast's. Scores are interval scores (Gneiting and Raftery 2007): the width, and 20 times by how much it was missed.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.audit_copies import wilson
from benchmarks.small_sets import LAY_OUT, Rows, available, stratified
from pipeline.config.head_schema import HEAD_KINDS
from pipeline.labelling import curve
from pipeline.labelling.sized_heads import SizedHeads
from stages.data.manifest import Row
from stages.heads.matrix import FeatureMatrix
from stages.labelling import subsets
from stages.labelling.power_law import LEVEL, Ends
from stages.metrics.figures import Figures
from stages.targets.classes import Classes

SIZES = {50: 12, 100: 12, 200: 12, 500: 8, 1000: 6}
"""Images, and how many replays of each set."""

OTHERS = 400
"""Images that judge a head of 2n, at least."""

LEAST = 3
"""Of each class in n images: two of them are outside of a fold."""


def draw(y: np.ndarray, n: int, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers of n images and of n more, both stratified; those of the draws before are not among them, if others
    are left."""
    left = np.arange(len(y))
    for each in range(number + 1):
        if len(left) < 2 * n + OTHERS or np.bincount(y[left], minlength=y.max() + 1).min() < 2 * LEAST:
            left = np.arange(len(y))
        rng = np.random.default_rng([n, each])
        both = left[stratified(y[left], 2 * n, 2 * LEAST, rng)]
        left = np.setdiff1d(left, both)
    first = both[stratified(y[both], n, LEAST, rng)]
    return np.sort(first), np.setdiff1d(both, first)


def replay(found: Rows, n: int, number: int, kind: str) -> dict[str, np.ndarray]:
    """Predictions out of fold by size on the n images, and of heads of n and of 2n on all others."""
    x, y = found
    first, more = draw(y, n, number)
    rows = [Row(f"{i:08d}", "", f"{label:02d}", "train") for i, label in enumerate(y)]
    target = Classes(sorted({row.label or "" for row in rows}))
    mine, spec = [rows[i] for i in first], HEAD_KINDS[kind].spec.model_validate({"choose": "folds"})
    strata = target.strata([row.label or "" for row in mine])
    sizes = subsets.choose_sizes(round(0.8 * n), 2 * len(target))
    heads = SizedHeads(spec, FeatureMatrix([x[first]]), mine, target)
    (steps,) = subsets.judge(heads.predict, mine, strata, sizes, 1, 0)
    every = SizedHeads(spec, FeatureMatrix([x]), rows, target)
    both = np.sort(np.concatenate([first, more]))
    others = np.setdiff1d(np.arange(len(y)), both)
    now, then = (every.predict(some, others, step) for step, some in enumerate((first, both)))
    kept = {"steps": np.stack(steps), "now": now, "then": then}
    return {"sizes": np.array(sizes), "y": y[first], "others": y[others]} | {
        name: p.astype(np.float32) for name, p in kept.items()
    }


def run(sets: dict[str, Rows], kind: str, folder: Path) -> None:
    """The first replay of every set and size, then the second, and so on."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(max(SIZES.values())):
        for n, name in ((n, name) for n in SIZES if number < SIZES[n] for name in sets):
            y, path = sets[name].y, folder / f"{name}-{n}-{number}.npz"
            if path.exists() or len(y) < 2 * n + OTHERS or n < LEAST * (y.max() + 1):
                continue
            found = replay(sets[name], n, number, kind)
            np.savez(path.with_suffix(".tmp.npz"), **found)
            path.with_suffix(".tmp.npz").rename(path)
            print(f"\r{path.name}   ", end="", flush=True)


class Accurate(Classes):
    """Classes that are judged by accuracy alone, which is quick."""

    def figures(self, rows: tuple[Sequence[str], np.ndarray]) -> Figures:
        labels, p = rows
        right = self.encode(labels) == p.argmax(axis=1)
        return Figures(len(labels), {"log_loss": None, "accuracy": float(right.mean()), "auroc": None})


class Replayed(NamedTuple):
    """Of a replay and a figure: whether the forecast, what stays, and the gain hold; scores of the forecast, of what
    stays, and of it as wide as the forecast; errors of the forecast and of what stays; the width."""

    held: bool
    stayed: bool
    gained: bool
    score: float
    stay_score: float
    as_wide_score: float
    error: float
    stay_error: float
    width: float


def score(ends: Ends, truth: float) -> float:
    missed = max(ends.low - truth, 0.0) + max(truth - ends.high, 0.0)
    return ends.high - ends.low + 2 / (1 - LEVEL) * missed


def judge(path: Path, kind: type[Classes]) -> dict[str, Replayed]:
    """By figure, where there is a forecast."""
    with np.load(path) as file:
        kept = dict(file)
    target = kind([f"{i:02d}" for i in range(kept["now"].shape[1])])
    rows = [Row(f"{i:08d}", "", target[column], "train") for i, column in enumerate(kept["y"])]
    steps = [p.astype(np.float64) for p in kept["steps"]]
    found = curve.describe("", rows, target, kept["sizes"].tolist(), [steps], 0)
    others = [target[column] for column in kept["others"]]
    now, then = (target.figures((others, kept[name].astype(np.float64))).values for name in ("now", "then"))
    out = {}
    for figure in found.names:
        ahead, last, gain = found.forecast[1].figures[figure], found.measured[-1].figures[figure], found.gain[figure]
        before, after = now[figure], then[figure]
        if ahead is None or last is None or gain is None or before is None or after is None:
            continue
        half = (ahead.high - ahead.low) / 2
        as_wide = Ends(last.value, last.value - half, last.value + half)
        holds = (e.low <= truth <= e.high for e, truth in ((ahead, after), (last, after), (gain, after - before)))
        scores = (score(ends, after) for ends in (ahead, last, as_wide))
        out[figure] = Replayed(*holds, *scores, ahead.value - after, last.value - after, 2 * half)
    return out


def report(folder: Path, kind: type[Classes]) -> None:
    """For each figure a line for each size, each set, and all."""
    found: dict[str, dict[str, list[Replayed]]] = {}
    for path in sorted(folder.glob("*-*[0-9].npz")):
        name, n, _ = path.stem.split("-")
        for figure, one in judge(path, kind).items():
            for part in (f"n = {n}", name, "all"):
                found.setdefault(figure, {}).setdefault(part, []).append(one)
    for figure, parts in found.items():
        print(f"\n{figure}:\n")
        print("| | replays | forecast holds | what stays holds | score | what stays | as wide | mean error | "
              "what stays | width | gain holds |")  # fmt: skip
        print(f"|{'---|' * 11}")
        sizes = sorted((part for part in parts if part[0] == "n"), key=lambda part: int(part[4:]))
        for part in (*sizes, *sorted(part for part in parts if part not in (*sizes, "all")), "all"):
            print(f"| {part} | {' | '.join(_cells(parts[part]))} |")


def _cells(found: Sequence[Replayed]) -> Iterator[str]:
    n = len(found)
    held, stayed, gained, *means = np.mean(found, axis=0)
    yield f"{n}"
    yield wilson(round(held * n), n)
    yield f"{stayed:.3f}"
    yield from (f"{mean:.4f}" for mean in means[:3])
    yield from (f"{mean:+.4f}" for mean in means[3:5])
    yield f"{means[5]:.4f}"
    yield wilson(round(gained * n), n)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--sets", nargs="+", choices=list(LAY_OUT), default=["elpv", "fashion", "cifar", "digits"])
    options.add_argument("--head", choices=list(HEAD_KINDS), default="logistic")
    options.add_argument("--folder", type=Path, default=Path("bench-out/few_images"))
    options.add_argument("--report", action="store_true", help="print what is there; nothing is computed")
    options.add_argument("--accuracy", action="store_true", help="report accuracy alone, which is quick")
    asked = options.parse_args()
    folder = asked.folder / "curves" / asked.head
    if not asked.report:
        run(available(asked.folder, asked.sets), asked.head, folder)
    report(folder, Accurate if asked.accuracy else Classes)


if __name__ == "__main__":
    main()
