"""Owns a model as one function of pixels: bases, taps, head, temperature. Not its files, nor its exported form.

TensorFlow is imported when the function is opened.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from stages.bases.recipe import FrozenBase
from stages.engines import select
from stages.engines.embed import embed_all
from stages.heads.fitted import Head
from stages.metrics.calibration import apply_temperature


@dataclass(frozen=True)
class Deployable:
    """All that decides the probabilities a model gives an image.

    bases: one for each recipe. Their taps are named 0, 1 and so on: the inputs of the head, joined in that order, maps
    flattened. temperature: what logits are divided by.
    """

    bases: tuple[FrozenBase, ...]
    head: Head
    temperature: float = 1.0

    def open(self) -> Callable[[Sequence[np.ndarray]], np.ndarray]:
        """A function of fitted pixels, uint8 (n, height, width, 3) for each base: probabilities (n, classes) float64.

        Rows sum to 1. It computes as extraction and heads do, rounding of stored rows included. Raises Unusable where a
        part does not fit.
        """
        embeds = [select.open_engine(select.AUTO, base) for base in self.bases]

        def predict(pixels: Sequence[np.ndarray]) -> np.ndarray:
            rows = {}
            for base, embed, fitted in zip(self.bases, embeds, pixels, strict=True):
                for name, found in embed_all(embed, fitted).items():
                    rows[name] = found.reshape(len(fitted), -1).astype(base.recipe.stored(base.taps[name]))
            joined = np.concatenate([rows[str(number)] for number in range(len(rows))], axis=1, dtype=np.float32)
            return apply_temperature(self.head.probabilities(joined), self.temperature)

        return predict
