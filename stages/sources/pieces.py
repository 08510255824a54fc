"""Owns reading neighbours in a tar of a bucket by one request. Not reading one image (places.py).

An image that was asked for alone would cost a request each, as in a folder of a bucket; what a task reads one after the
other lies side by side.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from stages.sources import blobs, places
from stages.sources.places import MAX_FILE_BYTES, Read, Within

PIECE_BYTES = 4_000_000
_GAP_BYTES = 100_000
"""Headers and labels between images are read along."""


class Pieces:
    """Parts of tars in buckets that have several of the images which are about to be read, in that order.

    A part is held, as bytes in flight, from its first image on until its last one was read.
    """

    def __init__(self, wanted: Sequence[str]) -> None:
        """wanted: places, each as often as it will be read."""
        self._piece_of: dict[str, _Piece] = {}
        last: _Piece | None = None
        for place in wanted:
            if (known := self._piece_of.get(place)) is not None:
                known.left += 1
                continue
            member = places.within(place)
            if member is None or member.kind != "tar" or not blobs.is_url(member.archive):
                last = None
                continue
            if last is None or not last.add(member):
                last = _Piece(member)
            self._piece_of[place] = last

    @contextmanager
    def reading(self, place: str) -> Iterator[Read]:
        """As `places.reading`."""
        piece = self._piece_of.get(place)
        if piece is None:
            with places.reading(place) as read:
                yield read
            return
        try:
            yield Read(piece.read(place))
        finally:
            piece.count_down()

    def close(self) -> None:
        """Let go of what was not read."""
        for piece in self._piece_of.values():
            piece.free()


class _Piece:
    """Bytes `start` to `end` of a tar, for `left` images that were not read yet."""

    def __init__(self, first: Within) -> None:
        self._archive, self._start, self._end = first.archive, first.start, first.start + first.size
        self.left = 1
        self._lock, self._held = threading.Lock(), ExitStack()
        self._data: bytes | None = None

    def add(self, member: Within) -> bool:
        """Take in an image that is a near neighbour behind it."""
        end = member.start + member.size
        gap = member.start - self._end
        if member.archive != self._archive or not 0 <= gap <= _GAP_BYTES or end - self._start > PIECE_BYTES:
            return False
        self._end = end
        self.left += 1
        return True

    def read(self, place: str) -> bytes:
        """The bytes of one of its images; raises as `blobs.part_bytes` does."""
        member = places.within(place)
        assert member is not None
        blobs.check_size(member.size, MAX_FILE_BYTES)
        with self._lock:  # the others wait for the one that asks
            if self._data is None:
                size = self._end - self._start
                self._data = self._held.enter_context(blobs.part_bytes(self._archive, self._start, size, size))
            first = member.start - self._start
            return self._data[first : first + member.size]

    def count_down(self) -> None:
        with self._lock:
            self.left -= 1
            last = self.left <= 0
        if last:
            self.free()

    def free(self) -> None:
        with self._lock:
            self._data = None
            self._held.close()
