"""Owns the check that a row does not depend on its neighbours, for a base from a file. Not opening it (select.py).

Tests check the bases of the catalogue. A user's model may do anything with a batch, such as subtract its mean.
"""

from __future__ import annotations

import numpy as np

from cache.errors import Unusable
from stages.engines.embed import Embed


def check_independence(embed: Embed, height: int, width: int) -> None:
    """Raises Unusable unless an image alone gives bitwise the same row as at the end of a full batch.

    Bitwise, without a tolerance: a row's value must not depend on the run that computed it. NaN equals NaN here, and is
    refused when the shard is written.
    """
    pixels = np.random.default_rng(0).integers(0, 256, (embed.batch, height, width, 3), np.uint8)
    full, alone = embed(pixels), embed(pixels[-1:])
    for name, rows in full.items():
        if not np.array_equal(rows[-1], alone[name][0], equal_nan=True):
            off = np.abs(rows[-1] - alone[name][0]).max()
            raise Unusable(
                "base.name: the model gives another row for an image alone than for the same image in a batch "
                f"(they differ by {off:.2g}), or another one each time",
                "it may mix the images of a batch, or draw at random; with extract.batch: 1 each image is a batch",
            )
