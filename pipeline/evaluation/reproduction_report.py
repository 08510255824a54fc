"""Owns the result of training a model again: recorded and new figures and weights. Not training it (reproduce.py)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from cache.errors import PipelineError
from pipeline.results.model import Model
from pipeline.results.record_diff import Pair, format_changes
from stages.metrics.classification import NAMES


class NotReproduced(PipelineError):
    """The model that was trained again is not bitwise the same."""

    code = "not_reproduced"


@dataclass(frozen=True)
class Absent:
    """An image of the model that is left out: its path then, and why it has no row now."""

    id: str
    path: str
    reason: str


@dataclass
class Reproduction:
    """A model and the same trained again. `images` counts different labelled ones; `absent` were left out.

    `weights_difference` is the largest of any weight, None where the shapes differ. `metrics` has the fields of each
    part of metrics.json, without intervals, which follow from the rest; `differences` may explain what differs.
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
        """Raises NotReproduced, with how much differs and what may explain it, unless it is bitwise the same."""
        if self.reproduced:
            return
        reasons = [format_changes(self.differences)] if self.differences else []
        if self.absent:
            where = "if they lie elsewhere: --set data.root=DIR"
            reasons.insert(0, f"{len(self.absent)} of {self.images} images are absent ({where})")
        raise NotReproduced(
            f"{self.model} does not come out bitwise the same: {self._size()}",
            "what differs: " + "; ".join(reasons) if reasons else "nothing recorded differs: it is not deterministic",
        )

    def _size(self) -> str:
        gaps = [
            (abs(pair.difference), f"{split} {name}")
            for split, figures in self.metrics.items()
            for name, pair in figures.items()
            if name in NAMES and pair.difference
        ]
        metrics = f"metrics differ by up to {max(gaps)[0]:.2g} ({max(gaps)[1]})" if gaps else "the details differ"
        return f"{'the metrics are the same' if self.metrics_same else metrics}, the head {self.weights}"

    @property
    def weights(self) -> str:
        """How its weights differ, in words."""
        if self.arrays_same:
            return "is bitwise the same"
        if self.weights_difference is None:
            return "has other shapes"
        return f"has weights that differ by up to {self.weights_difference:.2g}"
