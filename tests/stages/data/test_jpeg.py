"""jpeg.py: scans are bounded, and a file that ends early is known from one that does not, end marker or not."""

from __future__ import annotations

import io
import struct
import time
from typing import Any

import numpy as np
import pytest
import skimage.data
from PIL import Image

from stages.data import jpeg
from stages.data.images import ImageRejected, PixelSpec, decode

SPECS = (None, PixelSpec(32, 32), PixelSpec(32, 32, decode="full"))
END = b"\xff\xd9"


def saved(image: Image.Image, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", **options)
    return buffer.getvalue()


PHOTOGRAPH = Image.fromarray(skimage.data.chelsea()).resize((203, 150))
KINDS: dict[str, bytes] = {
    "plain": saved(PHOTOGRAPH),
    "4:4:4": saved(PHOTOGRAPH, subsampling=0, quality=95),
    "grayscale": saved(PHOTOGRAPH.convert("L")),
    "CMYK": saved(PHOTOGRAPH.convert("CMYK")),
    "restarts": saved(PHOTOGRAPH, restart_marker_rows=1),
    "short restarts": saved(PHOTOGRAPH, restart_marker_blocks=2),
    "progressive": saved(PHOTOGRAPH, progressive=True),
    "progressive grayscale": saved(PHOTOGRAPH.convert("L"), progressive=True),
    "with a comment and a profile": saved(PHOTOGRAPH, comment=b"\xff\xda" * 300, icc_profile=b"\xff\xd9" * 90_000),
}


def many_scans(width: int, height: int, scans: int, fill: bytes = b"") -> bytes:
    """A progressive grayscale file whose scans say, in a few bytes, that no block changes."""

    def segment(kind: int, body: bytes) -> bytes:
        return fill + bytes((0xFF, kind)) + struct.pack(">H", len(body) + 2) + body

    blocks = -(-width // 8) * -(-height // 8)
    run = "0" + "1" * 14  # a run of 32,767 empty blocks
    bits = run * -(-blocks // 32767)
    bits += "1" * (-len(bits) % 8)
    nothing = bytes(int(bits[at : at + 8], 2) for at in range(0, len(bits), 8)).replace(b"\xff", b"\xff\0")
    tables = [segment(0xC4, bytes([kind << 4, 1, *[0] * 15, symbol])) for kind, symbol in ((0, 0), (1, 0xE0))]
    return b"".join(
        [
            b"\xff\xd8", segment(0xDB, bytes([0, *[1] * 64])),
            segment(0xC2, struct.pack(">BHHB", 8, height, width, 1) + bytes((1, 0x11, 0))), *tables,
            segment(0xDA, bytes((1, 1, 0, 0, 0, 0))), bytes(-(-blocks // 8)),
            *[segment(0xDA, bytes((1, 1, 0, 1, 63, 0))) + nothing] * scans, END,
        ]
    )  # fmt: skip


@pytest.mark.parametrize("fill", [b"", b"\xff", b"\xff\xff\xff"])
def test_scans_are_bounded(fill: bytes) -> None:
    assert decode(many_scans(400, 400, 90, fill), None).shape == (400, 400, 3)
    started = time.thread_time()
    with pytest.raises(ImageRejected, match=r"^more than 100 scans$"):
        decode(many_scans(7_000, 7_000, 5_000, fill), SPECS[1])
    assert time.thread_time() - started < 5  # decoding them takes a minute


def test_markers_within_segments_and_pictures_behind_the_end_are_no_scans() -> None:
    comment = b"".join(many_scans(8, 8, 150)[at : at + 60_000] for at in (0,))
    assert np.array_equal(decode(saved(PHOTOGRAPH, comment=comment), None), decode(KINDS["plain"], None))
    behind = KINDS["progressive"] + many_scans(8, 8, 150)
    assert np.array_equal(decode(behind, None), decode(KINDS["progressive"], None))


def test_segments_are_bounded() -> None:
    data = KINDS["plain"]
    assert decode(data[:2] + b"\xff\xfe\0\2" * 5_000 + data[2:], None).size
    with pytest.raises(ImageRejected, match=r"^more than 10,000 segments$"):
        decode(data[:2] + b"\xff\xfe\0\2" * 50_000 + data[2:], None)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("spec", SPECS)
def test_a_file_that_ends_early_is_rejected_with_an_end_marker_and_without(kind: str, spec: PixelSpec | None) -> None:
    data = KINDS[kind]
    start, last = jpeg.read_markers(data).start, data.rindex(b"\xff\xda") if "progressive" in kind else len(data)
    for share in (0.02, 0.3, 0.5, 0.7, 0.95):
        cut = data[: start + int((last - start) * share)]
        for end in (END, END + b"something else", b"", b"\xff\xc4\0\2" + END):
            with pytest.raises(ImageRejected, match=r"^(ends early: |cannot be decoded: image file is truncated)"):
                decode(cut.rstrip(b"\xff") + end, spec)


@pytest.mark.parametrize("kind", KINDS)
def test_whole_files_decode_as_pillow_has_them(kind: str) -> None:
    data = KINDS[kind]
    assert np.array_equal(decode(data, None), np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
@pytest.mark.parametrize("progressive", [False, True])
def test_a_picture_that_ends_in_gray_is_no_picture_that_ends_early(mode: str, progressive: bool) -> None:
    for gray in (127, 128, 129):
        for height in (8, 100):
            image = PHOTOGRAPH.convert("RGB")
            image.paste((gray, gray, gray), (0, 150 - height, 203, 150))
            for picture in (
                image.convert(mode),
                Image.new(mode, (33, 17), (gray,) * len(mode) if mode != "L" else gray),
            ):
                for more in ({}, {"restart_marker_rows": 1}):
                    data = saved(picture, progressive=progressive, quality=100, **more)
                    for spec in SPECS:
                        assert decode(data, spec).dtype == np.uint8


def test_of_a_progressive_file_only_the_lowest_bits_can_be_missing_unseen() -> None:
    data = KINDS["progressive"]
    cut = decode(data[: len(data) * 97 // 100] + END, None)
    assert np.abs(cut.astype(int) - decode(data, None)).mean() < 1.5
