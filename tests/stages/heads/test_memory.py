"""What fitting holds in memory beyond what was there before it, in a process of its own: no copies of the features."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import REPOSITORY

ROWS, DIM = 40_000, 640
BYTES = 4 * ROWS * DIM
BLOCKS = 120 << 20
"""For what is worked on at a time, of two threads: more than there is, and less than a copy of the features with it."""

SCRIPT = """
import os, re, sys
os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])  # each thread has its blocks
import numpy as np
from pipeline.config.head_schema import HEAD_KINDS
from stages.heads import knn, logistic, logistic_solver, ridge
from stages.heads.matrix import FeatureMatrix
from tests.support.problems import names, rows

kind, path, n, dim = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
if kind == "logistic on the disk":
    kind, logistic_solver.MEMORY_SHARE = "logistic", 0

def peak():  # of this program: ru_maxrss would count what started it, too
    return 1024 * int(re.search(r"VmHWM:\\s*(\\d+)", open("/proc/self/status").read())[1])

class OnDisk:
    shape = (n, dim)
    def __getitem__(self, where):
        out = np.empty((len(where), dim), np.float32)
        with open(path, "rb") as file:
            for row, number in zip(out, where):
                file.seek(4 * dim * int(number))
                file.readinto(row)
        return out

labels = [f"c{i % 4}" for i in range(n)]
samples = rows(labels, ["val" if i % 8 == 0 else "train" for i in range(n)])
settings = {"logistic": {"C": 1e-3}, "ridge": {}, "knn": {"k": 5}}[kind]
fit = {"logistic": logistic.fit, "ridge": ridge.fit, "knn": knn.fit}[kind]
few = np.random.default_rng(0).normal(size=(400, dim)).astype(np.float32)
class Few:
    shape = few.shape
    def __getitem__(self, where):
        return few[where]
fit(HEAD_KINDS[kind].spec(**settings), FeatureMatrix([Few()]), samples[:400], names(4))  # imports
before = peak()
fit(HEAD_KINDS[kind].spec(**settings), FeatureMatrix([OnDisk()]), samples, names(4))
print(peak() - before)
"""


@pytest.fixture(scope="module")
def on_disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import numpy as np

    path = tmp_path_factory.mktemp("rows") / "features"
    np.random.default_rng(0).normal(size=(ROWS, DIM)).astype(np.float32).tofile(path)
    return path


@pytest.mark.parametrize(("kind", "held"), [("logistic", 1), ("logistic on the disk", 0), ("ridge", 0), ("knn", 1)])
def test_features_are_held_once_at_most(on_disk: Path, kind: str, held: int) -> None:
    command = [sys.executable, "-c", SCRIPT, kind, str(on_disk), str(ROWS), str(DIM)]
    out = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    assert int(out) < held * BYTES + BLOCKS
