"""Owns what came of making a model again: then beside now, and how far apart. Not making it (reproduce.py)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from cache.errors import PipelineError
from pipeline.results.model import Model
from pipeline.results.record_diff import Pair, format_value
from stages.metrics.classification import NAMES


class NotReproduced(PipelineError):
    """The model was made again, and is not bitwise the same."""

    code = "not_reproduced"


@dataclass(frozen=True)
class Absent:
    """An image that the model was made of and that is left out: where it lay then, and why it has no row now."""

    id: str
    path: str
    reason: str


@dataclass
class Reproduction:
    """A model beside itself made again. `images` counts different labelled ones; `absent` were left out.

    `weights_difference` is the largest of any weight, None where the shapes differ. `metrics` gives for each part of
    metrics.json and each dotted name in it what it was and is; `differences` what may explain it: versions, machines.
    """

    model: Model
    images: int
    computed: int
    absent: list[Absent]
    arrays_same: bool = False
    weights_difference: float | None = None
    metrics: dict[str, dict[str, Pair]] = field(default_factory=dict)
    differences: dict[str, Pair] = field(default_factory=dict)

    @property
    def metrics_same(self) -> bool:
        return all(pair.same for figures in self.metrics.values() for pair in figures.values())

    @property
    def reproduced(self) -> bool:
        return self.arrays_same and self.metrics_same

    def to_json(self) -> dict[str, Any]:
        return {
            **{name: value for name, value in vars(self).items() if name != "model"},
            "name": self.model.name,
            "key": self.model.key,
            "reproduced": self.reproduced,
            "metrics_same": self.metrics_same,
            "absent": [vars(absent) for absent in self.absent],
            "metrics": {
                split: {name: {**pair._asdict(), "difference": pair.difference} for name, pair in figures.items()}
                for split, figures in self.metrics.items()
            },
            "differences": {name: pair._asdict() for name, pair in self.differences.items()},
        }

    def check(self) -> None:
        """Raises NotReproduced, saying by how much it differs and what else does, unless it is bitwise the same."""
        if self.reproduced:
            return
        reasons = [
            f"{name} {format_value(then)} -> {format_value(now)}" for name, (then, now) in self.differences.items()
        ]
        if self.absent:
            where = "if they lie elsewhere: --set data.root=DIR"
            reasons.insert(0, f"{len(self.absent)} of {self.images} images are absent ({where})")
        raise NotReproduced(
            f"{self.model} does not come out bitwise the same: {self._by_how_much()}",
            "what differs: " + "; ".join(reasons) if reasons else "nothing recorded differs: it is not deterministic",
        )

    def _by_how_much(self) -> str:
        gaps = {
            f"{split} {name}": abs(pair.difference)
            for split, figures in self.metrics.items()
            for name, pair in figures.items()
            if name in NAMES and pair.difference is not None
        }
        largest = max(gaps, key=lambda name: gaps[name], default="")
        if self.metrics_same:
            text = "the metrics are the same"
        elif largest and gaps[largest]:
            text = f"metrics differ by up to {gaps[largest]:.2g} ({largest})"
        elif all(figures["n"].same for figures in self.metrics.values() if "n" in figures):
            text = "the metrics are the same, but not their intervals or details"
        else:
            text = "the metrics are not of the same images"
        if self.arrays_same:
            return f"{text}, the head is the same"
        if self.weights_difference is None:
            return f"{text}, the head is of another shape"
        return f"{text}, the head's weights differ by up to {self.weights_difference:.2g}"
