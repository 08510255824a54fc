"""Heads on few images, beside scikit-learn's on the same: python -m benchmarks.few_images [--sets NAME...] [--report].

Features of EfficientNet-Lite0 at 224; 50 draws of up to 100 images, 20 of more, the same for all. Every figure of every
draw is kept in figures.jsonl of the work folder, and a run goes on where it was stopped. All of it takes an hour on two
free cores, so `make bench` leaves it out; --sets, --sizes, --draws and --only limit it, --report prints what is there.
"""

from __future__ import annotations

import argparse
import json
import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.metrics import roc_auc_score

from benchmarks import few_report
from benchmarks.few_contenders import OURS, RIVALS
from benchmarks.few_report import Found
from benchmarks.small_sets import HELD, LAY_OUT, SIZES, Rows, available, draw, sizes
from stages.heads import fitted

FEWER = {"dense": 10}
"""Draws of a contender that takes long and isn't part of the verdict."""

_ROWS: dict[str, Rows] = {}
"""Of the sets, in a process that works."""


def draws(n: int) -> int:
    return 50 if n <= 100 else 20


def version(contender: str) -> int:
    """Figures of our heads are out of date when the fitting arithmetic is another one."""
    return fitted.VERSION if contender in OURS else 0


def read(path: Path) -> Found:
    found: Found = {}
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            row = json.loads(line)
        except ValueError:  # a run was killed while it wrote this one
            continue
        if row["version"] == version(row["contender"]):
            point = row["set"], row["n"], row["draw"], row["contender"]
            found[point] = {name: row[name] for name in ("accuracy", "auroc", "log_loss", "seconds")}
    return found


def start(sets: dict[str, Rows]) -> None:
    _ROWS.update(sets)
    threading.Thread(target=_leave_with_parent, daemon=True).start()


def _leave_with_parent() -> None:
    """A run that is killed would leave its processes waiting for work for good."""
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def fit(name: str, n: int, number: int, contender: str) -> dict[str, Any]:
    """Figures of a contender on a draw, in a process of its own."""
    x, y = _ROWS[name]
    chosen, held = draw(y, n, number)
    started = time.process_time()
    predict = (OURS | RIVALS)[contender](x[chosen], y[chosen], number)
    seconds = round(time.process_time() - started, 4)
    point = {"set": name, "n": n, "draw": number, "contender": contender, "version": version(contender)}
    return {**point, **figures(y[held], predict(x[held])), "seconds": seconds}


def figures(truth: np.ndarray, p: np.ndarray) -> dict[str, float]:
    """Accuracy, AUROC (of more than two classes the mean of each against the rest) and log-loss."""
    columns = (1,) if p.shape[1] == 2 else np.unique(truth)  # a class may be absent where few images are left
    aurocs = [roc_auc_score(truth == column, p[:, column]) for column in columns]
    loss = -np.log(np.clip(p[np.arange(len(truth)), truth], 1e-15, 1)).mean()
    return {"accuracy": float((p.argmax(1) == truth).mean()), "auroc": float(np.mean(aurocs)), "log_loss": float(loss)}


def to_do(sets: dict[str, Rows], asked: argparse.Namespace) -> Iterator[tuple[str, int, int, str]]:
    """What is asked for: the first draw of every size, then the second, and so on.

    Of large sizes first: they take longest, and the other process has something to do meanwhile.
    """
    cells = [(n, name, len(rows.y) - HELD) for name, rows in sets.items() for n in sizes(rows.y)]
    for number in range(max(map(draws, SIZES))):
        for n, name, most in sorted(cells, reverse=True):
            if asked.sizes and str(n) not in asked.sizes and not ("all" in asked.sizes and n == most):
                continue
            for contender in asked.only or (*OURS, *RIVALS):
                if number < min(draws(n), FEWER.get(contender, draws(n)), asked.draws or draws(n)):
                    yield name, n, number, contender


def run(sets: dict[str, Rows], asked: argparse.Namespace, path: Path) -> None:
    done = read(path)
    work = [point for point in to_do(sets, asked) if point not in done]
    os.environ |= {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    os.environ |= {"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    with ProcessPoolExecutor(asked.jobs, get_context("spawn"), start, (sets,)) as pool, open(path, "a") as file:
        if path.stat().st_size and not path.read_bytes().endswith(b"\n"):
            file.write("\n")  # after half a line of a run that was killed
        try:
            for count, future in enumerate(as_completed([pool.submit(fit, *point) for point in work]), 1):
                file.write(json.dumps(future.result()) + "\n")
                file.flush()
                print(f"\r{count:,} of {len(work):,} fits", end="\n" if count == len(work) else "", flush=True)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--folder", type=Path, default=Path("bench-out/few_images"), help="work folder, kept")
    options.add_argument("--sets", nargs="+", choices=tuple(LAY_OUT), default=list(LAY_OUT))
    options.add_argument("--sizes", nargs="+", choices=(*map(str, SIZES), "all"), help="of draws; all: all but 500")
    options.add_argument("--draws", type=int, help="at most so many of each size")
    options.add_argument("--only", nargs="+", choices=(*OURS, *RIVALS), metavar="CONTENDER")
    options.add_argument("--jobs", type=int, choices=(1, 2), default=2)
    options.add_argument("--report", action="store_true", help="print what is there; nothing is computed")
    asked = options.parse_args()
    path = asked.folder / "figures.jsonl"
    if not asked.report:
        asked.folder.mkdir(parents=True, exist_ok=True)
        run(available(asked.folder, asked.sets), asked, path)
    few_report.report({point: row for point, row in read(path).items() if point[0] in asked.sets})


if __name__ == "__main__":
    main()
