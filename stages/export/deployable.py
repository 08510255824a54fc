"""Owns a model as one function of pixels: base, taps, head, temperature. Not its files, nor its exported form.

TensorFlow is imported when the function is opened.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from stages.bases.recipe import FrozenBase, Recipe, Tap
from stages.data import augment
from stages.data.augment import Element
from stages.engines import select
from stages.engines.embed import Embed, embed_all
from stages.heads import average
from stages.heads.average import Member
from stages.heads.fitted import Head
from stages.metrics.calibration import apply_temperature


@dataclass(frozen=True)
class Deployable:
    """All that decides the probabilities a model gives an image.

    taps: the inputs of the head, joined in this order, maps flattened. weights: the file of the base's weights. tail:
    arrays by layer and number among its weights (`head_conv/0`), put in after those; {} for a frozen base.
    temperature: what logits are divided by. elements: the flips and turns of an image that an averaged model sees.
    """

    recipe: Recipe
    taps: tuple[Tap, ...]
    weights: Path
    head: Head
    temperature: float = 1.0
    tail: Mapping[str, np.ndarray] = field(default_factory=dict)
    elements: Sequence[Element] = ((0, False),)

    @property
    def members(self) -> list[Member]:
        """Heads, each with its tail, of which it is the mean; of a model that is no average, its own."""
        return average.split(self.head, self.tail)

    def open(self) -> Callable[[np.ndarray], np.ndarray]:
        """A function of fitted pixels uint8 (n, height, width, 3): probabilities (n, classes) float64, rows sum to 1.

        It computes as extraction and heads do, rounding of stored rows included. Raises Unusable where a part does
        not fit.
        """
        names = [str(number) for number in range(len(self.taps))]
        taps = dict(zip(names, self.taps, strict=True))
        bases = [FrozenBase(self.recipe, taps, self.weights, tail) for _, tail in self.members]
        embeds = [select.open_engine(select.AUTO, base) for base in bases]

        def of_view(head: Head, embed: Embed, pixels: np.ndarray) -> np.ndarray:
            rows = embed_all(embed, pixels)
            flat = np.concatenate([rows[name].reshape(len(pixels), -1) for name in names], axis=1)
            return head.probabilities(flat.astype(self.recipe.dtype).astype(np.float32))

        def predict(pixels: np.ndarray) -> np.ndarray:
            views = [np.ascontiguousarray(augment.turn(pixels, element)) for element in self.elements]
            members = zip(self.members, embeds, strict=True)
            said = [of_view(head, embed, view) for (head, _), embed in members for view in views]
            return apply_temperature(np.asarray(sum(said) / len(said)), self.temperature)

        return predict
