"""Owns the form of an averaged model: several heads, each on features of its own. Not where these come from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from stages.heads.fitted import Head, Layers
from stages.targets.target import Target

KIND = "average"
"""Of such heads; no kind that pipeline.yaml can name."""

Member = tuple[Head, Mapping[str, np.ndarray]]
"""A head, and the trained weights of the blocks that give its features: arrays by name."""


@dataclass(frozen=True)
class Average:
    """The mean of the predictions of `members`; features are each member's own, joined in their order."""

    members: tuple[Layers, ...]

    def scores(self, x: np.ndarray, target: Target) -> np.ndarray:
        parts = zip(self.members, np.split(x, len(self.members), axis=1), strict=True)
        return target.scores(np.mean([target.predict(layers.scores(part, target)) for layers, part in parts], axis=0))

    def width(self, target: Target) -> int:
        return sum(max(layers.width(target), len(target)) for layers in self.members)

    def arrays(self) -> dict[str, np.ndarray]:
        return _numbered([layers.arrays() for layers in self.members])

    def to_json(self) -> dict[str, Any]:
        return {"members": [layers.to_json() for layers in self.members]}

    @classmethod
    def load(cls, text: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Self:
        parts = enumerate(text["members"])
        return cls(tuple(Layers.load(part, _of_member(number, arrays)) for number, part in parts))


def join(members: Sequence[Member], chosen: Mapping[str, Any]) -> Member:
    """The average of the members, as a head and its arrays."""
    heads = [head for head, _ in members]
    head = Head(KIND, heads[0].target, Average(tuple(head.layers for head in heads)), chosen)
    return head, _numbered([tail for _, tail in members])


def split(head: Head, tail: Mapping[str, np.ndarray]) -> list[Member]:
    """What `join` was given, without what each head had chosen; of a head that is no average, itself alone."""
    if not isinstance(head.form, Average):
        return [(head, tail)]
    members = enumerate(head.form.members)
    return [(Head(KIND, head.target, layers, {}), _of_member(number, tail)) for number, layers in members]


def _numbered(parts: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {f"{number}/{name}": array for number, part in enumerate(parts) for name, array in part.items()}


def _of_member(number: int, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    start = f"{number}/"
    return {name.removeprefix(start): array for name, array in arrays.items() if name.startswith(start)}
