"""evaluate.py: a choice among heads has figures of its own, and leaves what is the head's."""

from __future__ import annotations

import numpy as np

from stages.metrics import classification
from stages.targets import evaluate
from stages.targets.classes import Classes
from tests.support.problems import rows

CLASSES = Classes(("c0", "c1"))


def probabilities(truth: np.ndarray, certainty: float, seed: int) -> np.ndarray:
    logits = certainty * (truth - 0.5 + np.random.default_rng(seed).normal(size=len(truth)))
    p = 1 / (1 + np.exp(-logits))
    return np.stack([1 - p, p], axis=1)


def test_figures_of_folds_are_the_choice_s_and_temperature_threshold_and_test_the_head_s() -> None:
    truth, folds = np.arange(200) % 2, np.arange(150) // 2 % 5
    samples = rows([f"c{i}" for i in truth], ["train"] * 150 + ["test"] * 50)
    own, choice = probabilities(truth, 0.5, 0), probabilities(truth[:150], 20, 1)
    head = evaluate.evaluate_splits(samples, own, CLASSES, 0, folds)
    found = evaluate.judge_choice(head, samples[:150], choice, CLASSES, 0, folds, "nested")
    assert (head.judged, found.judged, found.chosen_on) == ("crossfit", "nested", "folds")
    assert found.splits["test"] == head.splits["test"]
    assert found.splits["folds"].n == 150
    assert found.splits["folds"].values["log_loss"] == classification.log_loss(truth[:150], choice)
    assert found.rank == found.splits["folds"].rank > 2 > head.rank
    assert head.calibration is not None
    assert found.calibration is not None
    for field in ("temperature", "threshold", "notes"):
        assert getattr(found.calibration, field) == getattr(head.calibration, field)
    assert found.calibration.splits["test"] == head.calibration.splits["test"]
    at = found.calibration.splits["folds"].values["log_loss"]  # each fold at the temperature of the others
    assert at is not None
    assert at < found.rank / 2
    again = type(found).from_json(found.to_json())
    assert again.to_json() == found.to_json()


def test_metrics_of_an_earlier_version_are_read() -> None:
    truth = np.arange(60) % 2
    samples = rows([f"c{i}" for i in truth], ["train"] * 60)
    text = evaluate.evaluate_splits(samples, probabilities(truth, 1, 0), CLASSES, 0, np.arange(60) // 2 % 3).to_json()
    assert text["judged"] == "crossfit"
    metrics = type(evaluate.evaluate_splits(samples, probabilities(truth, 1, 0), CLASSES, 0)).from_json(text)
    assert (metrics.judged, metrics.chosen_on) == ("crossfit", "folds")
