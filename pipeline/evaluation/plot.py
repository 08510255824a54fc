"""Owns writing the plots of a model. Not drawing them (stages/metrics/plots.py)."""

from pathlib import Path

import numpy as np

from cache import atomic_files
from pipeline.results import predictions
from pipeline.results.model import SHORT, Model
from stages.metrics.plots import Format


def plot(model: Model, output: Path | None, form: Format) -> list[Path]:
    """Plot a model's predictions of val (or folds) and test into `output`; the paths.

    By default into plots/NAME-KEY beside models/. Existing files are replaced. Raises NotAvailable where matplotlib is
    not installed, before anything is written.
    """
    folder = output or model.folder.parents[3] / "plots" / f"{model.name.partition('/')[2]}-{model.key[:SHORT]}"
    found = predictions.read_predictions(model)
    splits = {}
    judged = model.figures.chosen_on
    for name, split in ((judged, "train" if judged == "folds" else judged), ("test", "test")):
        here = np.array([row.split == split for row in found.rows])
        labels = [row.label or "" for row in found.rows if row.split == split]
        splits[name] = labels, found.probabilities[here]
    drawn = {f"{name}.{form}": data for name, data in found.target.plots(splits, form)}
    atomic_files.publish_all(folder.absolute(), drawn)
    return [folder / name for name in drawn]
