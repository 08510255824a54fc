"""A table with all that may be predicted of a picture, labels, numbers, shares, and what a head says by hand."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tests.support import fakes

N = 48

TARGETS = {
    "labels": "{kind: labels, columns: [odd, light, large]}",
    "number": "{kind: number, columns: [level], units: [lx]}",
    "numbers": "{kind: number, columns: [level, depth], units: [lx, m]}",
    "soft": "{kind: soft, columns: [dark, bright]}",
    "shares": "{kind: soft, columns: [low, mid, high]}",
}
NAMES = {
    "labels": ["large", "light", "odd"],
    "number": ["level"],
    "numbers": ["level", "depth"],
    "soft": ["bright", "dark"],
    "shares": ["high", "low", "mid"],
}
"""What is predicted, in the order of predictions: numbers as they are named, others sorted."""


def linear(target: str) -> str:
    """The kind of a linear head on it."""
    return "ridge" if target[:6] == "number" else "logistic"


def write_table(folder: Path, size: int = 20) -> None:
    """48 pictures with all that may be predicted of them."""
    rng, rows = np.random.default_rng(0), []
    (folder / "images").mkdir()
    for i in range(N):
        bright = i % 2 == 0
        (folder / "images" / f"{i:02d}.png").write_bytes(fakes.textured(i, bright, size))
        share = round(float(rng.uniform(0.6, 1)) if bright else float(rng.uniform(0, 0.4)), 3)
        rows.append(
            {
                "path": f"{i:02d}.png",
                "light": int(bright),
                "large": i // 2 % 2,
                "odd": "" if i % 7 == 0 else i // 4 % 2,
                "level": round(200 * bright + float(rng.normal(0, 20)) + 1000, 2),
                "depth": round(float(rng.normal()), 3),
                "bright": share,
                "dark": round(1 - share, 3),
                "high": 0.7 if bright else 0.1,
                "mid": round(0.06 * (i % 4), 2),
                "low": round((0.3 if bright else 0.9) - 0.06 * (i % 4), 2),
                "tags": ";".join(name for name, has in (("a", bright), ("b", i % 3)) if has) or ";",
                "same": 7,
                "none": 0,
                "label": "x" if bright else "y",
                "words": "old" if i == 4 else i,
                "huge": "inf" if i == 2 else i,
                "wrong": 0.9,
            }
        )
    with (folder / "table.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def write_config(folder: Path, target: str, heads: str = "{first: {}}") -> Path:
    config = folder / "pipeline.yaml"
    config.write_text(
        "data:\n  table: table.csv\n  split: {method: stratified, val: 0.3, test: 0.2}\n"
        f"  target: {target}\nextract: {{size: 16}}\nheads: {heads}\n"
    )
    return config


def write_project(folder: Path, target: str) -> Path:
    """The table, and a pipeline.yaml with the linear head that the target takes."""
    write_table(folder)
    return write_config(folder, TARGETS[target], f"{{first: {{kind: {linear(target)}}}}}")


def write_on_network(place: Path, target: str, size: int, more: str) -> Path:
    """A pipeline.yaml in a folder of its own, on the network, table and images in `place`; more: heads and so on."""
    (place / target).mkdir()
    (place / target / "table.csv").write_bytes((place / "table.csv").read_bytes())
    config = place / target / "pipeline.yaml"
    config.write_text(f"""\
data:
  root: ../images
  table: table.csv
  split: {{method: stratified, val: 0.3, test: 0.2}}
  target: {TARGETS[target]}
base: ../cnn.keras
cache: {{dir: ../cache}}
extract: {{size: {size}}}
{more}""")
    return config


def read_table(folder: Path) -> dict[str, dict[str, str]]:
    """Its rows by path."""
    return {row["path"]: row for row in csv.DictReader((folder / "table.csv").open(newline=""))}


def splits_of(folder: Path) -> dict[str, str]:
    """The split of each path, as a run has drawn it."""
    return {row["path"]: row["split"] for row in csv.DictReader((folder / "splits.csv").read_text().splitlines()[1:])}


def truth_of(target: str, folder: Path, paths: Sequence[str]) -> np.ndarray:
    """What the table says of those images, in the order of predictions; NaN for an empty cell."""
    table = read_table(folder)
    return np.array([[float(table[path][name] or "nan") for name in NAMES[target]] for path in paths])


def predictions(target: str, folder: Path, scores: np.ndarray, splits: Sequence[str] = ("train", "val")) -> np.ndarray:
    """What scores of a head mean: numbers in their units, by mean and deviation of the images in those splits."""
    if target[:6] == "number":
        learnt = truth_of(target, folder, [path for path, split in splits_of(folder).items() if split in splits])
        return np.asarray(learnt.mean(axis=0) + scores * learnt.std(axis=0))
    if target == "shares":
        powers = np.exp(scores)
        return np.asarray(powers / powers.sum(axis=1, keepdims=True))
    p = 1 / (1 + np.exp(-scores))
    return np.concatenate([1 - p, p], axis=1) if target == "soft" else p


def by_hand(target: str, folder: Path, model: Path, x: np.ndarray) -> np.ndarray:
    """What a linear head in the folder `model` says of rows, from its arrays, in double precision."""
    with np.load(model / "head.npz") as arrays:
        return predictions(target, folder, x.astype(np.float64) @ arrays["layer0_weights"] + arrays["layer0_bias"])


def figures(target: str, truth: np.ndarray, said: np.ndarray) -> dict[str, float]:
    """Some figures of n images, by their formulas: truth and said (n, columns)."""
    if target[:6] == "number":
        share = ((said - truth) ** 2).mean(axis=0) / truth.var(axis=0)
        return {"n": len(said), "relative_error": np.sqrt(share).mean(), "r2": (1 - share).mean()}
    if target == "labels":
        known = np.isfinite(truth)
        lost = -np.log(np.where(truth == 1, said, 1 - said))
        right = ((said >= 0.5) == (truth == 1)) | ~known
        by_image = (lost * known).sum(axis=1) / known.sum(axis=1)
        return {"n": len(said), "log_loss": by_image.mean(), "exact_match": right.all(axis=1).mean()}
    right = said.argmax(axis=1) == truth.argmax(axis=1)
    return {"n": len(said), "log_loss": -(truth * np.log(said)).sum(axis=1).mean(), "accuracy": right.mean()}
