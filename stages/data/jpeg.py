"""Owns what the markers of a JPEG say: how many scans it has, and whether it ends early. Not decoding (images.py)."""

import hashlib
import re
from dataclasses import dataclass, field

from stages.data.image_formats import ImageRejected

MAGIC = b"\xff\xd8\xff"

MAX_SCANS = 100
"""As libtiff allows. Encoders write about 10; each scan goes over all blocks, however few bytes it has."""

MAX_SEGMENTS = 10_000

_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
_EOI, _SOS, _NO_LENGTH = 0xD9, 0xDA, (0x01, 0xD8)
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_PROGRESSIVE = (0xC2, 0xC6, 0xCA, 0xCE)
_HUFFMAN_SEQUENTIAL = (0xC0, 0xC1)


@dataclass
class Markers:
    """Kind of frame (SOF marker), its components, and each scan's (components, first, last, low bit).

    start: of the data of the first scan. A sequential file with one scan for all components is read up to there only.
    """

    frame: int = 0
    components: bytes = b""
    scans: list[tuple[bytes, int, int, int]] = field(default_factory=list)
    start: int = 0

    @property
    def one_scan(self) -> bool:
        return self.frame in _HUFFMAN_SEQUENTIAL and len(self.scans[0][0]) == len(self.components)

    def lacks_scans(self) -> bool:
        """Whether the last scans are missing: a component, or low bits of coefficients whose high bits are there."""
        low = {(component, 0): 1 for component in self.components}
        for components, first, last, bit in self.scans:
            low |= {(component, k): bit for component in components for k in range(first, last + 1)}
        return any(low.values())


def read_markers(data: bytes) -> Markers:
    """The markers of a JPEG file. Raises ImageRejected where there are too many segments or scans."""
    markers, at = Markers(), 2
    for _ in range(MAX_SEGMENTS):
        found = _MARKER.search(data, at)
        if found is None or data[found.end() - 1] == _EOI:
            return markers
        kind, at = data[found.end() - 1], found.end()
        if kind in _NO_LENGTH:
            continue
        length = int.from_bytes(data[at : at + 2])
        segment = data[at + 2 : at + length]
        at += max(2, length)
        if kind in _FRAMES:
            markers.frame, markers.components = kind, segment[6::3]
        elif kind == _SOS and segment:
            n = segment[0]
            markers.scans.append((segment[1 : 1 + 2 * n : 2], *_band(markers.frame, segment[1 + 2 * n :])))
            markers.start = markers.start or at
            if markers.one_scan:
                return markers
            if len(markers.scans) > MAX_SCANS:
                raise ImageRejected(f"more than {MAX_SCANS} scans")
    raise ImageRejected(f"more than {MAX_SEGMENTS:,} segments")


def _band(frame: int, spectrum: bytes) -> tuple[int, int, int]:
    """First and last coefficient, and the lowest bit that is coded."""
    if frame not in _PROGRESSIVE or len(spectrum) < 3:
        return 0, 0, 0
    return spectrum[0], min(spectrum[1], 63), spectrum[2] & 15


def with_more_data(data: bytes, markers: Markers) -> bytes:
    """The file with noise, and all restart markers, behind the data of its first scan.

    It is decoded to the same pixels only if that scan was complete.
    """
    found = _MARKER.search(data, markers.start)
    end = len(data) if found is None else found.start()
    noise = hashlib.shake_128(b"").digest(2048).replace(b"\xff", b"\x7f")
    parts = (noise[256 * n : 256 * (n + 1)] + bytes((0xFF, 0xD0 + n)) for n in range(8))
    return data[:end] + b"".join(parts) + data[end:]
