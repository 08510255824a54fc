"""Owns which images belong to which part of a job array. Not computing them, nor starting jobs."""

from __future__ import annotations

import re
from dataclasses import dataclass

from cache.errors import Unusable
from stages.data.manifest import Manifest


@dataclass(frozen=True)
class Part:
    """Part `number` of `of`, counted from 1.

    The id of an image alone decides its part, so parts are disjoint and complete whatever others have done meanwhile.
    """

    number: int
    of: int

    @classmethod
    def parse(cls, text: str) -> Part:
        """The part of `I/N`. Raises Unusable for anything else."""
        match = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text)
        number, of = (int(match[1]), int(match[2])) if match else (0, 0)
        if not 1 <= number <= of:
            raise Unusable(f"--part {text}: expected I/N with I from 1 to N, such as 2/8")
        return cls(number, of)

    def has(self, image: str) -> bool:
        return int(image[:16], 16) % self.of == self.number - 1

    def share(self, manifest: Manifest) -> Manifest:
        return Manifest(tuple(row for row in manifest.rows if self.has(row.id)))

    def describe(self, manifest: Manifest) -> str:
        """`part 2 of 8: 12 of 96 images`."""
        return f"part {self.number} of {self.of}: {len(self.share(manifest).ids):,} of {len(manifest.ids):,} images"
