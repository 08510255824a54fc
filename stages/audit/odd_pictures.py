"""Owns which pictures are odd as pictures: of one colour, tiny, of an odd shape, blurred, dark, pale. Not the facts.

Each is judged beside the others of its data set, so that a set of small, dark or soft pictures has none for that alone,
and by a limit of its own, so that a set of equal ones has none for a trifle. Both were chosen on photographs, drawings
and solar cells (docs/benchmarks.md, What an audit finds).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from stages.audit.likeness import FLAT
from stages.audit.odd_ones import LEAST, modified_z

_TIMES_SMALLER, _TIMES_LONGER = 4.0, 3.0
"""Than the median shorter side; than the median shape, either way."""

_SOFT, _SOFT_Z = 0.1, -3.0
_DARK, _PALE, _GREYS = 40, 215, 12
"""Grey values: 95 % are below, or above, and the standard deviation is less, which is more in a drawing on white."""

_TIMES_LIGHT = 3.0
"""Than the median picture a dark one is darker, and a pale one paler."""


class OddPicture(NamedTuple):
    """The number of a picture, what is odd, and what was found beside what is usual, for people to read."""

    number: int
    kind: str
    found: str


def find_odd_pictures(facts: np.ndarray) -> list[OddPicture]:
    """facts (n,) as picture_facts.FACTS. The kinds in the order in which they are looked for; of one colour only that.

    Fewer than LEAST pictures have none but those of one colour.
    """
    there = np.flatnonzero(facts["width"] > 0)
    known = facts[there]
    flat = known["deviation"] < FLAT
    found = [OddPicture(int(i), "one colour", "") for i in there[flat]]
    there, known = there[~flat], known[~flat]
    if len(known) >= LEAST:
        found += [one._replace(number=int(there[one.number])) for one in _beside_the_others(known)]
    return found


def _beside_the_others(known: np.ndarray) -> Iterator[OddPicture]:
    width, height = known["width"], known["height"]
    short = np.minimum(width, height)
    usual = float(np.median(short))
    for i in np.flatnonzero(short * _TIMES_SMALLER < usual).tolist():
        yield OddPicture(i, "tiny", f"{width[i]} x {height[i]}, shorter side usually {usual:g}")
    shape = np.log(width / height)
    middle = float(np.median(shape))
    for i in np.flatnonzero(np.abs(shape - middle) > np.log(_TIMES_LONGER)).tolist():
        yield OddPicture(i, "shape", f"{width[i]} x {height[i]}, usually {np.exp(middle):.2g} to 1")
    sharpness = known["sharpness"]
    soft = (sharpness < _SOFT) & (modified_z(np.log(np.maximum(sharpness, 1e-6))) < _SOFT_Z)
    for i in np.flatnonzero(soft).tolist():
        yield OddPicture(i, "blurred", f"sharpness {sharpness[i]:.3f}, usually {np.median(sharpness):.3f}")
    even, light, dark = known["deviation"] < _GREYS, known["bright_end"], 255 - known["dark_end"]
    for i in np.flatnonzero(even & (light < _DARK) & (light * _TIMES_LIGHT < np.median(light))).tolist():
        yield OddPicture(i, "dark", f"95 % below grey {light[i]:.0f} of 255, usually {np.median(light):.0f}")
    for i in np.flatnonzero(even & (dark < 255 - _PALE) & (dark * _TIMES_LIGHT < np.median(dark))).tolist():
        usual = 255 - float(np.median(dark))
        yield OddPicture(i, "pale", f"95 % above grey {255 - dark[i]:.0f} of 255, usually {usual:.0f}")
