"""What suggestions save: python -m benchmarks.suggest [--sets NAME...] [--draws N] [--folder DIR] [--report].

In each draw a third of a set judges, and up to 1,800 of the others may be labelled. A logistic head starts with 60
labels, stratified, and takes 40 more three times: at random; the least sure by margin; BADGE, as `pipeline suggest`
does; or, of the 200 least sure, some unlike each other. All ways start from the same labels. Labels saved, of 180, and
their interval of 90 % over draws are as pipeline/labelling/replay.py has them. Draws are kept in the work folder, and a
run goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from pathlib import Path

import numpy as np

from benchmarks.small_sets import LAY_OUT, Rows, available, stratified
from pipeline.config.head_schema import HEAD_KINDS
from pipeline.labelling.replay import with_interval
from pipeline.labelling.sized_heads import SizedHeads
from stages.data.manifest import Row
from stages.heads.matrix import FeatureMatrix
from stages.heads.neighbours import unit_rows
from stages.labelling import choose_images
from stages.targets.classes import Classes

START, BATCH, ROUNDS, POOL = 60, 40, 3, 1_800
BUDGETS = [START + number * BATCH for number in range(ROUNDS + 1)]
WAYS = ("random", "margin", "BADGE", "apart among unsure")


def choose(way: str, p: np.ndarray, x: np.ndarray, target: Classes, seed: int) -> np.ndarray:
    ranked = np.sort(p, axis=1)
    unsure = np.argsort(ranked[:, -1] - ranked[:, -2], kind="stable")
    if way == "random":
        return np.random.default_rng(seed).permutation(len(x))[:BATCH]
    if way == "margin":
        return unsure[:BATCH]
    if way == "BADGE":
        return choose_images.choose(choose_images.unsure(p, target), x, BATCH, seed)
    some = unsure[: 5 * BATCH]
    return some[choose_images.choose(np.ones((len(some), 1)), x[some], BATCH, seed)]


class Contender:
    """A way to choose on a set; its heads choose C in the first draw, as in `pipeline suggest`."""

    def __init__(self, found: Rows, way: str) -> None:
        self.y, self.way, self.x, self.unit = found.y, way, found.x, unit_rows(found.x)
        rows = [Row(f"{i:08d}", "", f"{label:02d}", "train") for i, label in enumerate(found.y)]
        self.target = Classes(sorted({row.label or "" for row in rows}))
        spec = HEAD_KINDS["logistic"].spec.model_validate({"choose": "folds"})
        self.heads = SizedHeads(spec, FeatureMatrix([found.x]), rows, self.target)

    def follow(self, draw: int) -> list[float]:
        """Errors at each budget."""
        random = np.random.default_rng(draw)
        held, pool = np.split(random.permutation(len(self.y)), [len(self.y) // 3])
        pool = pool[:POOL]
        have, errors = pool[stratified(self.y[pool], START, 2, random)], []
        for step in range(ROUNDS + 1):
            head = self.heads.fit(np.sort(have), step)
            errors.append(float((head.predict(self.x[held]).argmax(axis=1) != self.y[held]).mean()))
            left = np.setdiff1d(pool, have)
            new = choose(self.way, head.predict(self.x[left]), self.unit[left], self.target, 10 * draw + step)
            have = np.concatenate([have, left[new]])
        return errors


def report(path: Path) -> None:
    found: dict[str, dict[str, dict[int, list[float]]]] = defaultdict(lambda: defaultdict(dict))
    for line in path.read_text().splitlines():
        one = json.loads(line)
        found[one["set"]][one["way"]][one["draw"]] = one["errors"]
    print(f"| set | draws | way | accuracy at {' | '.join(map(str, BUDGETS))} | labels saved of {BUDGETS[-1]} (90 %) |")
    print(f"|{'---|' * (len(BUDGETS) + 4)}")
    for name, ways in found.items():
        draws = sorted(set.intersection(*(set(of) for of in ways.values())))
        errors = {way: np.array([of[draw] for draw in draws]) for way, of in ways.items()}
        for way in WAYS:
            cells = " | ".join(f"{1 - error:.3f}" for error in errors[way].mean(axis=0))
            saved = with_interval(BUDGETS, np.stack([errors[way], errors["random"]], axis=1), 0)
            text = "" if way == "random" else f"{saved.value:+.0f} ({saved.low:+.0f} to {saved.high:+.0f})"
            print(f"| {name} | {len(draws)} | {way} | {cells} | {text} |")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--sets", nargs="+", choices=list(LAY_OUT), default=["elpv", "fashion", "cifar", "digits"])
    options.add_argument("--draws", type=int, default=20)
    options.add_argument("--folder", type=Path, default=Path("bench-out/few_images"))
    options.add_argument("--report", action="store_true", help="print what is there; nothing is computed")
    asked = options.parse_args()
    path = asked.folder / "suggest.jsonl"
    if not asked.report:
        sets = available(asked.folder, asked.sets)
        lines = path.read_text().splitlines() if path.exists() else []
        done = {(one["set"], one["way"], one["draw"]) for one in map(json.loads, lines)}
        contenders = {(name, way): Contender(sets[name], way) for name in sets for way in WAYS}
        with path.open("a") as file:
            for draw, name, way in ((d, name, way) for d in range(asked.draws) for name in sets for way in WAYS):
                if (name, way, draw) not in done:
                    errors = contenders[name, way].follow(draw)
                    file.write(json.dumps({"set": name, "way": way, "draw": draw, "errors": errors}) + "\n")
                    file.flush()
    report(path)


if __name__ == "__main__":
    main()
