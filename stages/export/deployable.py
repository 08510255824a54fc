"""Owns a model as one function of pixels: bases, taps, head, temperature. Not its files, nor its exported form.

TensorFlow is imported when the function is opened.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from stages.bases.recipe import FrozenBase
from stages.data import augment
from stages.data.augment import Element
from stages.engines import select
from stages.engines.embed import Embed, embed_all
from stages.heads import average
from stages.heads.average import Member
from stages.heads.fitted import Head
from stages.unknown.distance import Unknown


@dataclass(frozen=True)
class Deployable:
    """All that decides what a model predicts of an image.

    bases: one for each recipe, without a tail. Their taps are named 0, 1 and so on: the inputs of the head, joined in
    that order, maps flattened. temperature: what logits are divided by. tail: the arrays that fine-tuning has trained,
    put into the base. elements: the flips and turns of an image that an averaged model sees. unknown: what tells images
    that are none of what the head knows, by the same rows; None of a model with trained blocks.
    """

    bases: tuple[FrozenBase, ...]
    head: Head
    temperature: float = 1.0
    tail: Mapping[str, np.ndarray] = field(default_factory=dict)
    elements: Sequence[Element] = ((0, False),)
    unknown: Unknown | None = None

    @property
    def members(self) -> list[Member]:
        """Heads, each with its tail, of which it is the mean; of a model that is no average, its own."""
        return average.split(self.head, self.tail)

    def open(self) -> Callable[[Sequence[np.ndarray]], np.ndarray]:
        """A function of fitted pixels, uint8 (n, height, width, 3) for each base: predictions (n, columns) float64, and
        in a column behind them, if there is `unknown`, its scores.

        It computes as extraction and heads do, rounding of stored rows included. Raises Unusable where a
        part does not fit.
        """
        members = [
            (head, [select.open_engine(select.AUTO, replace(base, tail=tail)) for base in self.bases])
            for head, tail in self.members
        ]

        def rows_of_view(embeds: Sequence[Embed], pixels: Sequence[np.ndarray]) -> np.ndarray:
            rows = {}
            for base, embed, fitted in zip(self.bases, embeds, pixels, strict=True):
                for name, found in embed_all(embed, fitted).items():
                    rows[name] = found.reshape(len(fitted), -1).astype(base.recipe.stored(base.taps[name]))
            joined = [rows[str(number)] for number in range(len(rows))]
            return np.concatenate(joined, axis=1, dtype=np.float32)

        def predict(pixels: Sequence[np.ndarray]) -> np.ndarray:
            views = [
                [np.ascontiguousarray(augment.turn(fitted, element)) for fitted in pixels] for element in self.elements
            ]
            found = [(head, rows_of_view(embeds, view)) for head, embeds in members for view in views]
            said = [head.predict(rows) for head, rows in found]
            mean = self.head.target.at_temperature(np.asarray(sum(said) / len(said)), self.temperature)
            return mean if self.unknown is None else np.column_stack([mean, self.unknown.scores(found[0][1])])

        return predict
