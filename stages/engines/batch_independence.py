"""Owns the check that a row does not depend on its neighbours, for a model of a person's own. Not opening it.

Of the bases in the table, the tests know it. A model from outside may do anything with a batch, such as take its mean.
"""

from __future__ import annotations

import numpy as np

from cache.errors import Unusable
from stages.engines.embed import Embed


def check_independence(embed: Embed, height: int, width: int) -> None:
    """Raises Unusable unless a picture alone gives bitwise what it gives as the last of a full batch.

    It goes by the bits, not by a tolerance: what a row is worth must not depend on which run made it. A batch of one
    has no neighbours. Rows that are not numbers are left to whoever stores them.
    """
    pixels = np.random.default_rng(0).integers(0, 256, (embed.batch, height, width, 3), np.uint8)
    among, alone = embed(pixels), embed(pixels[-1:])
    for name, rows in among.items():
        if not np.array_equal(rows[-1], alone[name][0], equal_nan=True):
            off = np.abs(rows[-1] - alone[name][0]).max()
            raise Unusable(
                "base.name: the model gives other rows for a picture alone than for the same one in a batch "
                f"(by {off:.2g}), or other ones each time",
                "it may mix the pictures of a batch, or draw at random; with extract.batch: 1 each goes through alone",
            )
