"""Owns the types of figures, and their JSON as metrics.json has it. Not computing them (classification.py, say)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Self

RANKING = ("log_loss", "relative_error")
"""The figure of val that ranks models, the first that they have: the lowest is the best."""

NAMES = (
    "accuracy", "balanced_accuracy", "macro_ap", "micro_ap", "macro_auroc", "macro_f1", "micro_f1", "exact_match",
    "auroc", "average_precision", "log_loss", "brier", "ece", "relative_error", "mae", "rmse", "r2", "spearman",
)  # fmt: skip
"""Of all targets, in the order they are shown."""

_HEADLINES = (
    ("log_loss", "accuracy", "auroc"), ("log_loss", "macro_ap", "macro_f1"), ("relative_error", "mae", "spearman"),
)  # fmt: skip
"""Of classes, labels, numbers: the figures of short tables, the first the one that ranks."""

_TITLES = {"log_loss": "log-loss", "auroc": "AUROC", "macro_ap": "macro AP", "macro_f1": "macro F1", "mae": "MAE"}

EVALUATED = ("val", "folds", "test")
"""Sets of images that models are judged on. folds: train and val together, each fold by heads fitted on the others."""

Judged = Literal["val", "crossfit", "nested"]
"""How figures of the set that chose a model's settings came about. val: with the settings that val preferred, so they
are a little too good. crossfit: each fold with the settings that the others prefer. nested: each fold by the head that
was chosen among several, kinds or points of a sweep, and fitted, on the others alone."""

Interval = Sequence[float]
"""Low and high, 95%."""

_DETAILS = ("confusion", "per_class", "per_group", "per_label", "per_number", "at_threshold")
_FITTED = ("temperature", "threshold", "threshold_maximises", "notes", "thresholds", "half_widths")
_ADDED = ("notes", "thresholds", "half_widths")
"""Those of _FITTED that older models, or other targets, lack."""


@dataclass(frozen=True)
class Figure:
    """A value and its interval, each None where undefined."""

    value: float | None
    ci: Interval | None

    def to_json(self) -> dict[str, Any]:
        return vars(self)


@dataclass(frozen=True)
class Figures:
    """Figures of n rows by name, and their intervals, if these were computed. `details` is JSON, for display."""

    n: int
    values: Mapping[str, float | None]
    ci: Mapping[str, Interval | None] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Figure:
        return Figure(self.values[name], self.ci.get(name))

    @property
    def rank(self) -> float:
        """What models are sorted by, the best first; an undefined figure is the worst."""
        value = next((self.values[name] for name in RANKING if name in self.values), None)
        return float("inf") if value is None else value

    @property
    def headline(self) -> tuple[str, str, str]:
        """The figures of short tables, that which ranks first."""
        return next((names for names in _HEADLINES if {*names} <= self.values.keys()), _HEADLINES[0])

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Self:
        details = {name: found[name] for name in _DETAILS if name in found}
        values = {name: value for name, value in found.items() if name not in ("n", "ci", *_DETAILS)}
        ordered = sorted(values, key=lambda name: NAMES.index(name) if name in NAMES else len(NAMES))
        return cls(found["n"], {name: values[name] for name in ordered}, found.get("ci", {}), details)

    def to_json(self) -> dict[str, Any]:
        return {"n": self.n, **self.values, **({"ci": self.ci} if self.ci else {}), **self.details}


def title(name: str) -> str:
    """A figure's name, as tables show it."""
    return _TITLES.get(name, name.replace("_", " "))


@dataclass(frozen=True)
class Difference:
    """Each figure of a model minus that of another on the same rows, and of classes McNemar's test."""

    figures: Mapping[str, Figure]
    mcnemar: Mapping[str, float | int]

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Self:
        return cls(
            {name: Figure(**part) for name, part in found.items() if name != "mcnemar"}, found.get("mcnemar", {})
        )

    def to_json(self) -> dict[str, Any]:
        return {**self.figures, **({"mcnemar": self.mcnemar} if self.mcnemar else {})}


Compared = tuple[Figures, Figures, Difference]
"""Of two models on the same rows, and of the second less the first."""


@dataclass(frozen=True)
class Calibration:
    """What was fitted to predictions of val, and figures of each split with it.

    notes: how many images a missing temperature or threshold needs; None in older models, which had no such rule.
    """

    temperature: float | None = None
    threshold: float | None = None
    threshold_maximises: str = "balanced_accuracy"
    notes: Sequence[str] | None = None
    thresholds: Mapping[str, float] | None = None
    """By label, the probability from which an image is said to have it."""
    half_widths: Mapping[str, float] | None = None
    """By number, what a prediction interval reaches to either side."""
    splits: Mapping[str, Figures] = field(default_factory=dict)

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Self:
        return cls(**{name: found[name] for name in _FITTED if name in found}, splits=_splits(found))

    def to_json(self) -> dict[str, Any]:
        found = {n: getattr(self, n) for n in _FITTED if n not in _ADDED or getattr(self, n) is not None}
        own = "folds" if "folds" in self.splits else "val"
        return found | {name: self.splits.get(name) for name in (own, "test")}


@dataclass(frozen=True)
class Metrics:
    """Figures of val and test, or of val alone where test is hidden; older models have no calibration.

    Of a fine-tuned model also `baseline`, figures of the frozen head, and the `difference` from it, by split; `start`
    is by how much a probability of val differed from the head's before training. `judged` says how the figures of val,
    or of folds, came about. `unknown`: rate and threshold of what tells unknown images, and by split the share of them,
    `rejected`; of a head without it, and of older ones, {}.
    """

    splits: Mapping[str, Figures]
    calibration: Calibration | None = None
    baseline: Mapping[str, Figures] = field(default_factory=dict)
    difference: Mapping[str, Difference] = field(default_factory=dict)
    start: float | None = None
    judged: Judged = "val"
    unknown: Mapping[str, Any] = field(default_factory=dict)

    @property
    def chosen_on(self) -> str:
        """The set of images that chose its settings: val or folds."""
        return "val" if self.judged == "val" else "folds"

    @property
    def rank(self) -> float:
        """What models are sorted by, the best first."""
        return self.splits[self.chosen_on].rank

    def without_test(self) -> Self:
        """The same with test hidden (null in JSON), so that no model is chosen by it."""
        own = self.chosen_on
        fitted = self.calibration and replace(self.calibration, splits={own: self.calibration.splits[own]})
        unknown = {name: value for name, value in self.unknown.items() if name != "test"}
        return replace(self, splits={own: self.splits[own]}, calibration=fitted, unknown=unknown)

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Self:
        fitted = Calibration.from_json(found["calibration"]) if "calibration" in found else None
        difference = {split: Difference.from_json(part) for split, part in found.get("difference", {}).items()}
        start = found.get("start", {}).get("difference")
        judged = found.get("judged", "val")
        baseline, unknown = _splits(found.get("baseline", {})), found.get("unknown", {})
        return cls(_splits(found), fitted, baseline, difference, start, judged, unknown)

    def to_json(self) -> dict[str, Any]:
        start = {} if self.start is None else {"difference": self.start}
        parts = {name: getattr(self, name) for name in ("calibration", "baseline", "difference", "unknown")} | {
            "start": start
        }
        splits = {split: self.splits.get(split) for split in (self.chosen_on, "test")}
        judged = {} if self.judged == "val" else {"judged": self.judged}
        return dict(_plain({**splits, **judged, **{name: part for name, part in parts.items() if part}}))


def _plain(value: Any) -> Any:
    """As JSON gives it back."""
    value = value.to_json() if hasattr(value, "to_json") else value
    return {name: _plain(part) for name, part in value.items()} if isinstance(value, Mapping) else value


def _splits(found: Mapping[str, Any]) -> dict[str, Figures]:
    return {split: Figures.from_json(found[split]) for split in EVALUATED if found.get(split)}
