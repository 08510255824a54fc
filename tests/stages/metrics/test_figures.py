"""figures.py: what was written comes back the same, typed, and test is hidden in all of it."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from stages.metrics import classification, multilabel, regression
from stages.metrics.figures import NAMES, Figure, Figures, Metrics

FIGURES = {"n": 4, "accuracy": 0.5, "auroc": None, "log_loss": 0.7, "ci": {"accuracy": [0.1, 0.9], "auroc": None}}
CALIBRATION: dict[str, Any] = {"temperature": 2.0, "threshold": None, "threshold_maximises": "balanced_accuracy"}


def test_metrics_of_an_earlier_commit_come_back_the_same() -> None:
    """Of heads and of fine-tuned models, as tests/legacy/make_project.py made them."""
    seen = []
    with tarfile.open(Path(__file__).parents[2] / "golden" / "project-5c1307c.tar.xz") as archive:
        for member in archive.getmembers():
            file = archive.extractfile(member) if Path(member.name).name == "metrics.json" else None
            if file is not None:
                seen.append(json.load(file))
    for found in seen:
        assert Metrics.from_json(found).to_json() == found
    assert len(seen) > 4
    assert any("difference" in found for found in seen)


@pytest.mark.parametrize("names", [classification.NAMES, multilabel.FORMS, regression.FORMS])
def test_figures_read_from_a_file_are_in_the_order_that_they_were_computed_in(names: Any) -> None:
    assert [name for name in NAMES if name in names] == [*names]
    assert [*Figures.from_json({"n": 1, **dict.fromkeys(sorted(names))}).values] == [*names]


@pytest.mark.parametrize(
    ("names", "first", "headline"),
    [
        (classification.NAMES, "log_loss", ("log_loss", "accuracy", "auroc")),
        (multilabel.FORMS, "log_loss", ("log_loss", "macro_ap", "macro_f1")),
        (regression.FORMS, "relative_error", ("relative_error", "mae", "spearman")),
    ],
)
def test_each_target_has_its_figures_of_short_tables_and_one_that_ranks(
    names: Any, first: str, headline: tuple[str, str, str]
) -> None:
    found = Figures(1, {name: 0.25 if name == first else 0.5 for name in names})
    assert found.headline == headline
    assert found.rank == 0.25


def test_metrics_without_intervals_and_calibration_come_back_without() -> None:
    old = {split: {"n": 2, "accuracy": 1.0, "log_loss": 0.1} for split in ("val", "test")}
    assert Metrics.from_json(old).to_json() == old
    assert Metrics.from_json(old).splits["test"]["accuracy"] == Figure(1.0, None)


def test_test_is_hidden_wherever_it_stands() -> None:
    calibrated = {"n": 4, "log_loss": 0.6, "at_threshold": None}
    found = {"val": FIGURES, "test": FIGURES, "calibration": {**CALIBRATION, "val": calibrated, "test": calibrated}}
    hidden = Metrics.from_json(found).without_test()
    expected = {**found, "test": None, "calibration": {**found["calibration"], "test": None}}
    assert hidden.to_json() == expected
    assert Metrics.from_json(expected) == hidden


@pytest.mark.parametrize(("loss", "rank"), [(0.7, 0.7), (None, float("inf"))])
def test_the_lowest_log_loss_of_val_ranks_first(loss: float | None, rank: float) -> None:
    assert Metrics({"val": Figures(4, {"log_loss": loss, "accuracy": 0.5})}).rank == rank
