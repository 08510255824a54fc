"""png.py: metadata of any length and with any damage cost no picture, and what decides pixels is left alone."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
import skimage.data
from PIL import Image

from stages.data import png
from stages.data.images import ImageRejected, decode

PHOTOGRAPH = Image.fromarray(skimage.data.coffee()).resize((96, 64))
BEFORE = 33  # behind the header


def chunk(kind: bytes, body: bytes, crc: int | None = None) -> bytes:
    return (
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body) if crc is None else crc)
    )


def plain(image: Image.Image = PHOTOGRAPH) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def decode_and_note(data: bytes) -> tuple[np.ndarray, list[str]]:
    notes: list[str] = []
    return decode(data, None, notes.append), notes


def with_chunks(*chunks: bytes) -> bytes:
    return plain()[:BEFORE] + b"".join(chunks) + plain()[BEFORE:]


UPRIGHT = decode(plain(), None)
LONG = bytes(1_500_000)
XMP = b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(b'<x tiff:Orientation="6"/>' + LONG)


@pytest.mark.parametrize(
    "chunks",
    [
        [chunk(b"iCCP", b"profile\0\0" + zlib.compress(LONG))],
        [chunk(b"zTXt", b"Comment\0\0" + zlib.compress(LONG))],
        [chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(300_000_000), 1))],
        [chunk(b"tEXt", b"Comment\0" + b"x" * 3_000_000)],
        [chunk(b"iTXt", b"Comment\0\1\0\0\0" + zlib.compress("\u00e4".encode() * 1_000_000))],
        [chunk(b"iTXt", b"Comment\0\0\0\0\0" + LONG)] * 80,
        [chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(999_000)))] * 80,
        [chunk(b"iCCP", b"profile\0\0no zlib"), chunk(b"zTXt", b"Comment\0\0no zlib")],
        [chunk(b"teSt", LONG), chunk(b"gAMA", b"short")],
    ],
)  # fmt: skip
def test_metadata_are_neither_needed_nor_limited(chunks: list[bytes]) -> None:
    pixels, notes = decode_and_note(with_chunks(*chunks))
    assert np.array_equal(pixels, UPRIGHT)
    assert notes == []


def test_the_orientation_in_a_long_text_counts() -> None:
    assert np.array_equal(decode(with_chunks(chunk(b"iTXt", XMP)), None), np.rot90(UPRIGHT, -1))


def test_an_ancillary_chunk_with_a_wrong_checksum_is_left_out_and_noted() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    for kind, body in ((b"tEXt", b"Comment\0x"), (b"eXIf", exif.tobytes()[6:]), (b"tRNS", b"\0\1\0\2\0\3")):
        pixels, notes = decode_and_note(with_chunks(chunk(kind, body, crc=1)))
        assert np.array_equal(pixels, UPRIGHT)
        assert notes == [f"the PNG chunk {kind.decode()} has a wrong checksum, and is left out"]
    data = plain()
    end = data.index(b"IEND") - 4
    assert np.array_equal(decode(data[:end] + chunk(b"tEXt", b"Comment\0x", crc=1) + data[end:], None), UPRIGHT)


def test_a_critical_chunk_with_a_wrong_checksum_is_a_reject() -> None:
    data = bytearray(plain())
    data[29] ^= 1
    with pytest.raises(ImageRejected):
        decode(bytes(data), None)


def test_a_file_that_needs_no_change_is_not_copied_and_chunks_are_bounded() -> None:
    data = plain()
    assert png.clean_png(data)[0] is data
    with pytest.raises(ImageRejected, match=r"^more than 200,000 chunks$"):
        decode(with_chunks(*[chunk(b"teSt", b"")] * 300_000), None)
