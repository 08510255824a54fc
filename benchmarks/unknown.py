"""How well images are told that a head knows nothing of: python -m benchmarks.unknown [--sets NAME...] [--folder DIR].

Of each set, one class at a time is left out of a logistic head; it is told from the held-out images of the others:
AUROC. Of ELPV, heads of mono- and of polycrystalline cells are shown the other kind. Rivals take the same rows, or what
the same head says: max-softmax (Hendrycks and Gimpel 2017), energy (Liu et al. 2020), Mahalanobis (Lee et al. 2018),
relative Mahalanobis (Ren et al. 2021), the cosine of the 5th neighbour (Sun et al. 2022) and ViM (Wang et al. 2022). A
head of all of ELPV is shown photographs of scikit-image, whole and in quarters, and noise, at 5 % of false alarms.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import importlib.util
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import stats
from scipy.special import logsumexp
from sklearn.covariance import ledoit_wolf
from sklearn.metrics import roc_auc_score

import pipeline
from benchmarks.audit_copies import rows_of, wilson
from benchmarks.small_sets import LAY_OUT, Absent, features
from pipeline.config.head_schema import HEAD_KINDS
from pipeline.runs import train_heads
from stages.data.manifest import Row
from stages.heads.fitted import Head
from stages.heads.matrix import FeatureMatrix
from stages.heads.neighbours import unit_rows
from stages.targets.classes import Classes
from stages.unknown import fitting
from stages.unknown.distance import Unknown

FITTED = 1_000
"""Images that a head is fitted on, or half of those there are."""

RATE = 0.05
NOISES = 50


def fit(x: np.ndarray, y: np.ndarray) -> tuple[Head, Unknown]:
    names = [f"{label:04d}" for label in y]
    rows = [Row(f"{i:08d}", "", name, "train") for i, name in enumerate(names)]
    spec, target = HEAD_KINDS["logistic"].spec.model_validate({"choose": "folds"}), Classes(sorted(set(names)))
    distance = fitting.fit(FeatureMatrix([x]), rows, target)
    assert distance is not None
    unknown = Unknown.at(distance, RATE)
    assert unknown is not None
    return train_heads.fit_kind(spec, FeatureMatrix([x]), rows, target), unknown


def logits(head: Head, x: np.ndarray) -> np.ndarray:
    found = head.scores(x)
    return np.hstack([-found / 2, found / 2]) if found.shape[1] == 1 else found


def rivals(head: Head, x: np.ndarray, y: np.ndarray, new: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Scores (n,) of rows `new` (n, dim), the higher the less known, by the rows x (m, dim) and their classes y."""
    said, (near, far) = logits(head, new), (unit_rows(x), unit_rows(new))
    yield "max-softmax", -head.predict(new).max(axis=1)
    yield "energy", -logsumexp(said, axis=1)
    kinds = np.unique(y)
    means = np.stack([near[y == kind].mean(axis=0) for kind in kinds])
    within = _whitening(near - means[np.searchsorted(kinds, y)])
    of_class = np.stack([(((far - mean) @ within) ** 2).sum(axis=1) for mean in means])
    middle = near.mean(axis=0)
    of_all = (((far - middle) @ _whitening(near - middle)) ** 2).sum(axis=1)
    yield "Mahalanobis", of_class.min(axis=0)
    yield "relative Mahalanobis", of_class.min(axis=0) - of_all
    yield "5th neighbour", -np.sort(far @ near.T, axis=1)[:, -5]
    values, vectors = np.linalg.eigh(np.cov((near - middle).T))
    rest = vectors[:, : int((np.cumsum(values[::-1]) / values.sum() > 0.9).sum())]  # the directions of the last tenth
    lengths = np.linalg.norm((near - middle) @ rest, axis=1)
    scale = logits(head, x).max(axis=1).mean() / lengths.mean()
    yield "ViM", scale * np.linalg.norm((far - middle) @ rest, axis=1) - logsumexp(said, axis=1)


def _whitening(centred: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eigh(ledoit_wolf(centred, assume_centered=True)[0])
    return np.asarray(vectors / np.sqrt(np.maximum(values, 1e-12 * values[-1])))


def leave_out(x: np.ndarray, y: np.ndarray, known: np.ndarray, seed: int) -> dict[str, float]:
    """AUROC of each, and what share of known images is rejected."""
    order = np.random.default_rng(seed).permutation(np.flatnonzero(known))
    mine, held = np.split(order, [min(FITTED, len(order) // 2)])
    head, unknown = fit(x[mine], y[mine])
    new = np.concatenate([x[held], x[~known]])
    truth = np.arange(len(new)) >= len(held)
    found = {"pipeline": unknown.scores(new), **dict(rivals(head, x[mine], y[mine], new))}
    areas = {by: float(roc_auc_score(truth, scores)) for by, scores in found.items()}
    rejected = found["pipeline"] > 1
    return areas | {"rejected": rejected[~truth].mean(), "found": rejected[truth].mean()}


def cell_kinds() -> dict[str, bool]:
    """Of ELPV's cells, by the digest of the file: whether it is monocrystalline."""
    spec = importlib.util.find_spec("elpv_dataset")
    assert spec is not None
    assert spec.submodule_search_locations
    data = Path(spec.submodule_search_locations[0]) / "data"
    lines = csv.reader((data / "labels.csv").read_text().splitlines(), delimiter=" ", skipinitialspace=True)
    found = [(row[0], row[-1]) for row in lines if row]
    return {hashlib.sha256((data / name).read_bytes()).hexdigest(): kind == "mono" for name, kind in found}


def photographs(folder: Path) -> np.ndarray:
    """Rows of scikit-image's photographs and their quarters, and of noise: a quarter of it each of four kinds."""
    import skimage.data

    if not (folder / "pipeline.yaml").exists():
        (folder / "images" / "x").mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(0)
        names = ("astronaut", "brick", "camera", "chelsea", "coffee", "coins", "grass", "gravel", "hubble_deep_field",
                 "immunohistochemistry", "moon", "page", "retina", "rocket", "text")  # fmt: skip
        for name in names:
            whole = np.asarray(getattr(skimage.data, name)())
            h, w = whole.shape[0] // 2, whole.shape[1] // 2
            for i, part in enumerate([whole, whole[:h, :w], whole[h:, :w], whole[:h, w:], whole[h:, w:]]):
                Image.fromarray(part).save(folder / "images" / "x" / f"{name}-{i}.png")
        for i in range(NOISES):
            coarse = rng.integers(0, 256, (300 >> i % 4 * 2, 300 >> i % 4 * 2, 3 if i % 2 else 1), np.uint8)
            grey = np.repeat(coarse, 3, axis=2) if coarse.shape[2] == 1 else coarse
            Image.fromarray(grey).resize((300, 300), Image.Resampling.BICUBIC).save(
                folder / "images" / "x" / f"noise-{i}.png"
            )
        (folder / "pipeline.yaml").write_text("data: {root: images}\nheads: {}\n")
    return np.stack(list(rows_of(folder).values()))


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--sets", nargs="+", choices=list(LAY_OUT), default=["fashion", "elpv"])
    options.add_argument("--folder", type=Path, default=Path("bench-out/small-sets"))
    asked = options.parse_args()
    trials: dict[str, dict[str, float]] = {}
    for name in asked.sets:
        try:
            x, y = features(asked.folder, name)
        except Absent as why:
            print(why)
            continue
        cases = {f"{name}, without {label}": y != label for label in range(y.max() + 1)}
        if name == "elpv":
            known = cell_kinds()
            ids = pipeline.open(asked.folder / name / "pipeline.yaml").features().ids
            mono = np.array([known[image] for image in ids.tolist()])
            cases = {"elpv, mono alone": mono, "elpv, poly alone": ~mono}
        for number, (case, known) in enumerate(cases.items()):
            trials[case] = leave_out(x, y, known, number)
            shown = [f"{trials[case][by]:.3f}" for by in trials[case]]
            if len(trials) == 1:
                print(f"| | {' | '.join(trials[case])} |\n|---|{'---|' * len(trials[case])}")
            print(f"| {case} | {' | '.join(shown)} |", flush=True)
        if name == "elpv":
            show_photographs(x, y, photographs(asked.folder / "photographs"))
    for by in (name for name in trials[next(iter(trials))] if name not in ("rejected", "found")):
        gaps = np.array([found["pipeline"] - found[by] for found in trials.values()])
        mean = np.mean([found[by] for found in trials.values()])
        low, high = stats.t.interval(0.95, len(gaps) - 1, gaps.mean(), stats.sem(gaps)) if gaps.any() else (0, 0)
        gap = f"{gaps.mean():+.3f} ({low:+.3f} to {high:+.3f})"
        print(f"| {by} | {mean:.3f} | {gap} | {(gaps > 0).sum()} of {len(gaps)} |")


def show_photographs(x: np.ndarray, y: np.ndarray, new: np.ndarray) -> None:
    """A head of 85 % of ELPV against pictures of anything else."""
    order = np.random.default_rng(0).permutation(len(y))
    mine, held = np.split(order, [round(0.85 * len(y))])
    _, unknown = fit(x[mine], y[mine])
    own, other = unknown.scores(x[held]), unknown.scores(new)
    area = roc_auc_score(np.arange(len(own) + len(other)) >= len(own), np.concatenate([own, other]))
    found = f"{wilson(int((other > 1).sum()), len(other))} of {len(other)} others"
    print(f"elpv, photographs and noise: AUROC {area:.4f}; rejected {wilson(int((own > 1).sum()), len(own))} of "
          f"{len(own)} cells of test, {found}")  # fmt: skip


if __name__ == "__main__":
    main()
