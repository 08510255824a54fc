"""Owns parts of an extraction, for job arrays: which images are whose. Not computing them, nor starting the jobs."""

from __future__ import annotations

import re
from dataclasses import dataclass

from cache.errors import Unusable
from stages.data.manifest import Manifest


@dataclass(frozen=True)
class Part:
    """One of `of` parts, by number from 1.

    An image belongs to a part by its id alone, so that whatever others have done meanwhile, parts are disjoint, and
    together everything.
    """

    number: int
    of: int

    @classmethod
    def parse(cls, text: str) -> Part:
        """What `I/N` means. Raises Unusable for anything else."""
        match = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text)
        number, of = (int(match[1]), int(match[2])) if match else (0, 0)
        if not 1 <= number <= of:
            raise Unusable(f"--part {text}: expected I/N, where I goes from 1 to N, as in 2/8")
        return cls(number, of)

    def has(self, image: str) -> bool:
        """Whether the image of that id is this part's."""
        return int(image[:16], 16) % self.of == self.number - 1

    def share(self, manifest: Manifest) -> Manifest:
        """The rows that are this part's."""
        return Manifest(tuple(row for row in manifest.rows if self.has(row.id)))

    def of_all(self, manifest: Manifest) -> str:
        """In words, how much of it is this part's."""
        n = len(self.share(manifest).ids)
        return f"part {self.number} of {self.of}: {n:,} of {len(manifest.ids):,} images are this part's"
