"""tiff.py: what the tags say decides, over a grid; what Pillow read right before stays as it was, to the bit."""

from __future__ import annotations

import contextlib
import io
import itertools
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from stages.data import tiff
from stages.data.images import ImageRejected, decode

NONE, LZW, DEFLATE, PACKBITS = 1, 5, 8, 32773
HEIGHT, WIDTH = 37, 29
UNSPECIFIED, PREMULTIPLIED, ALPHA = 0, 1, 2


def compressed(block: np.ndarray, compression: int) -> bytes:
    """Rows of bytes; LZW and PackBits as Pillow writes them, for a grayscale image of those bytes."""
    if compression in (NONE, DEFLATE):
        return block.tobytes() if compression == NONE else zlib.compress(block.tobytes())
    buffer = io.BytesIO()
    Image.fromarray(block).save(buffer, "TIFF", compression={LZW: "tiff_lzw", PACKBITS: "packbits"}[compression])
    page = tifffile.TiffFile(io.BytesIO(buffer.getvalue())).pages[0]
    (offset,), (size,) = page.tags[273].value, page.tags[279].value
    return buffer.getvalue()[offset : offset + size]


def packed(values: np.ndarray, bits: int, order: str, predictor: bool, reverse: bool) -> np.ndarray:
    """(rows, width, samples) -> bytes of each row."""
    if predictor:
        values = np.diff(values, axis=1, prepend=np.zeros_like(values[:, :1]))
    rows = values.reshape(len(values), -1)
    if bits == 16:
        return rows.astype(f"{order}u2").view(np.uint8)
    ones = (rows[..., None] >> np.arange(bits - 1, -1, -1, dtype=rows.dtype)) & 1
    return np.packbits(ones.reshape(len(rows), -1).astype(np.uint8), axis=1, bitorder="little" if reverse else "big")


def written(
    values: np.ndarray, bits: int, photometric: int, compression: int = NONE, order: str = "<", planar: bool = False,
    extra: tuple[int, ...] = (), predictor: bool = False, tile: tuple[int, int] | None = None, reverse: bool = False,
    big: bool = False, more: dict[int, int] | None = None,
) -> bytes:  # fmt: skip
    """A TIFF file of `values` (height, width, samples), tags and all."""
    height, width, samples = values.shape
    planes = [values[..., n : n + 1] for n in range(samples)] if planar else [values]
    blocks = []
    for plane in planes:
        if tile is None:
            blocks += [plane[start : start + 10] for start in range(0, height, 10)]
            continue
        full = np.pad(plane, ((0, -height % tile[0]), (0, -width % tile[1]), (0, 0)), mode="edge")
        corners = itertools.product(range(0, height, tile[0]), range(0, width, tile[1]))
        blocks += [full[y : y + tile[0], x : x + tile[1]] for y, x in corners]
    data = [compressed(packed(block, bits, order, predictor, reverse), compression) for block in blocks]
    shape = {278: 10} if tile is None else {322: tile[1], 323: tile[0]}
    where, size = (273, 279) if tile is None else (324, 325)
    offsets = list(itertools.accumulate((len(block) for block in data), initial=16))[:-1]
    tags: dict[int, Any] = {
        256: width, 257: height, 258: [bits] * samples, 259: compression, 262: photometric, 266: 2 if reverse else 1,
        277: samples, 284: 2 if planar else 1, 317: 2 if predictor else 1, **({338: list(extra)} if extra else {}),
        **shape, where: offsets, size: [len(block) for block in data], **(more or {}),
    }  # fmt: skip
    head, tail = b"", b""
    at = 16 + sum(map(len, data))
    at += at % 2
    directory = at + (8 + 20 * len(tags) + 8 if big else 2 + 12 * len(tags) + 4)
    code, room = ("Q", 8) if big else ("I", 4)
    for tag, value in sorted(tags.items()):
        entries = value if isinstance(value, list) else [value]
        body = struct.pack(f"{order}{len(entries)}I", *entries)
        head += struct.pack(f"{order}HH{code}", tag, 4, len(entries))
        if len(body) <= room:
            head += body.ljust(room, b"\0")
        else:
            head += struct.pack(order + code, directory + len(tail))
            tail += body
    mark = b"II" if order == "<" else b"MM"
    start = struct.pack(f"{order}HHHQ", 43, 8, 0, at) if big else struct.pack(f"{order}HI", 42, at)
    body = b"".join(data)
    count = struct.pack(f"{order}{'Q' if big else 'H'}", len(tags))
    return (mark + start).ljust(16, b"\0") + body + bytes(len(body) % 2) + count + head + bytes(room) + tail


def picture(bits: int, samples: int, premultiplied: bool = False) -> np.ndarray:
    """Smooth but for noise, so that a wrong byte order, predictor or plane shows."""
    rng = np.random.default_rng(bits * 10 + samples)
    values = rng.integers(0, 2**bits, (HEIGHT, WIDTH, samples)).astype(np.uint8 if bits <= 8 else np.uint16)
    if premultiplied:
        values[..., :-1] = np.minimum(values[..., :-1], values[..., -1:])
    return values


def expected(values: np.ndarray, bits: int, photometric: int, extra: tuple[int, ...]) -> np.ndarray:
    """What the specification says, in floats of 0 to 255, over white."""
    unit = values / (2**bits - 1)
    colours = 3 if photometric == 2 else 1
    colour = unit[..., :colours] if photometric else 1 - unit[..., :colours]
    alpha = unit[..., colours : colours + 1]
    if extra == (ALPHA,):
        colour = colour * alpha + 1 - alpha
    elif extra == (PREMULTIPLIED,):
        colour = np.minimum(colour + 1 - alpha, 1)
    return 255 * np.broadcast_to(colour, (HEIGHT, WIDTH, 3))


def grid() -> Iterator[tuple[str, dict[str, Any]]]:
    for photometric, bits, compression, order in itertools.product(
        (0, 1, 2), (8, 10, 12, 14, 16), (NONE, LZW, DEFLATE, PACKBITS), "<>"
    ):
        for planar, extra in itertools.product((False, True), ((), (UNSPECIFIED,), (PREMULTIPLIED,), (ALPHA,))):
            for predictor, tile in itertools.product((False, True), (None, (16, 32))):
                if predictor and (bits not in (8, 16) or compression in (NONE, PACKBITS)):
                    continue
                if photometric == 0 and extra == (PREMULTIPLIED,):
                    continue  # what a negative is multiplied by, no one says
                yield f"{photometric} {bits}", {
                    "photometric": photometric, "bits": bits, "compression": compression, "order": order,
                    "planar": planar, "extra": extra, "predictor": predictor, "tile": tile,
                }  # fmt: skip


@pytest.mark.parametrize("photometric", [0, 1, 2])
@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_photometric_bits_planes_compression_order_alpha_predictor_and_tiles(photometric: int, bits: int) -> None:
    tried = 0
    for name, how in grid():
        if name != f"{photometric} {bits}":
            continue
        extra = how["extra"]
        values = picture(bits, (3 if photometric == 2 else 1) + len(extra), extra == (PREMULTIPLIED,))
        data = written(values, **how)
        if bits in (8, 16) and how["compression"] in (NONE, DEFLATE):
            theirs = tifffile.imread(io.BytesIO(data)).reshape(values.shape[2:] * how["planar"] + (HEIGHT, WIDTH, -1))
            assert np.array_equal(np.moveaxis(theirs[..., 0], 0, 2) if how["planar"] else theirs, values), how
        wrong = np.abs(decode(data, None) - expected(values, bits, photometric, extra)).max()
        assert wrong <= (3.1 if extra else 1.0), (how, wrong)  # 8 bits of colour times 8 bits of alpha, in Pillow
        tried += 1
    assert tried >= 64


@pytest.mark.parametrize("bits", [1, 2, 4, 12, 16])
def test_fill_order_and_few_bits(bits: int) -> None:
    values = picture(bits, 1)
    for photometric, compression, reverse in itertools.product((0, 1), (NONE, DEFLATE), (False, True)):
        if reverse and (bits == 16 or compression == DEFLATE):
            continue  # of two bytes, or of what is compressed, readers differ
        data = written(values, bits, photometric, compression, reverse=reverse)
        assert np.abs(decode(data, None) - expected(values, bits, photometric, ())).max() <= 1


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("bits", [8, 12])
def test_orientation_big_tiff_and_files_of_several_images(orientation: int, bits: int) -> None:
    values = picture(bits, 1)
    upright = decode(written(values, bits, 1), None)[..., 0]
    turn = {
        1: lambda a: a, 2: np.fliplr, 3: lambda a: np.rot90(a, 2), 4: np.flipud, 5: np.transpose,
        6: lambda a: np.rot90(a, -1), 7: lambda a: np.rot90(np.transpose(a), 2), 8: np.rot90,
    }[orientation]  # fmt: skip
    for order, big in itertools.product("<>", (False, True)):
        data = written(values, bits, 1, order=order, big=big, more={274: orientation})
        assert np.array_equal(decode(data, None)[..., 0], turn(upright)), (order, big)  # type: ignore[no-untyped-call]


@pytest.mark.parametrize(
    ("compression", "mode"),
    [
        *itertools.product(
            [None, "tiff_lzw", "tiff_adobe_deflate", "packbits", "zstd"],
            ["L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "I;16"],
        ),
        *itertools.product(["jpeg"], ["L", "RGB", "CMYK", "YCbCr"]),
        *itertools.product([None, "group3", "group4"], ["1"]),
    ],
)
def test_what_pillow_reads_right_stays_as_it_is_to_the_bit(compression: str | None, mode: str) -> None:
    rng = np.random.default_rng(0)
    shape = (HEIGHT, WIDTH, 3)
    image = Image.fromarray(rng.integers(0, 256, shape).astype(np.uint8))
    if mode == "I;16":
        image = Image.fromarray(rng.integers(0, 2**16, shape[:2]).astype(np.uint16))
    elif mode == "LAB":
        image = Image.frombytes("LAB", (WIDTH, HEIGHT), image.tobytes())
    else:
        image = image.convert(mode)
    buffer = io.BytesIO()
    image.save(buffer, "TIFF", compression=compression)
    with Image.open(buffer) as theirs:
        assert tiff.pillow_is_right(tiff.read_layout(buffer.getvalue()))
        if mode == "I;16":
            eight = np.rint(np.asarray(theirs) / 257)
        elif theirs.has_transparency_data:
            white = Image.new("RGBA", theirs.size, "white")
            eight = np.asarray(Image.alpha_composite(white, theirs.convert("RGBA")).convert("RGB"))
        else:
            eight = np.asarray(theirs.convert("L" if mode == "1" else "RGB"))
    ours = decode(buffer.getvalue(), None)
    assert np.array_equal(ours, eight if eight.ndim == 3 else np.repeat(eight[..., None], 3, axis=2))


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ({"more": {339: 3}, "bits": 16}, "^float pixels have no known range$"),
        ({"more": {339: 2}, "bits": 16}, "^signed 16-bit integer pixels have no known range$"),
        ({"more": {339: 2}, "bits": 8}, "^signed 8-bit integer pixels have no known range$"),
        ({"bits": 8, "samples": 13}, "^TIFF with 13 bands; expected grayscale, RGB, CMYK, Lab or a palette$"),
        ({"bits": 8, "samples": 2, "photometric": 2}, "^TIFF with 2 bands; expected"),
        ({"bits": 16, "photometric": 32803}, "^TIFF of photometric interpretation 32803; expected"),
        ({"bits": 16, "photometric": 3}, "^TIFF with 16-bit samples of photometric interpretation 3; expected 8 bits"),
        ({"bits": 12, "more": {259: 50002}}, "and compression 50002; expected a lossless one$"),
        ({"bits": 12, "more": {317: 2}}, "and a predictor; expected 8 or 16 bits, or none$"),
        ({"bits": 16, "photometric": 0, "more": {256: 60_000, 257: 60_000}}, "^60000x60000 is more than 250 Mpx"),
        ({"bits": 12, "more": {256: 4_000}}, "^(cannot be decoded|damaged TIFF tags)"),
    ],
)  # fmt: skip
def test_what_is_not_a_picture_is_rejected_with_the_true_reason(how: dict[str, Any], reason: str) -> None:
    how = {"photometric": 1, "samples": 1, **how}
    values = picture(how["bits"], how.pop("samples"))
    with pytest.raises(ImageRejected, match=reason):
        decode(written(values, **how), None)


def test_32_bits_and_float_as_others_write_them() -> None:
    for dtype, reason in (
        ("<f4", "float"),
        (">f8", "float"),
        ("<u4", "32-bit integer"),
        ("<i4", "signed 32-bit integer"),
    ):
        buffer = io.BytesIO()
        tifffile.imwrite(buffer, np.zeros((8, 8), dtype), photometric="minisblack")
        with pytest.raises(ImageRejected, match=f"^{reason} pixels have no known range$"):
            decode(buffer.getvalue(), None)


def test_any_flipped_byte_of_an_odd_tiff_is_a_row_or_a_reject() -> None:
    rng = np.random.default_rng(0)
    for data in (
        written(picture(12, 3), 12, 2, DEFLATE, planar=True),
        written(picture(16, 2), 16, 1, LZW, extra=(ALPHA,), predictor=True, tile=(16, 16), big=True),
    ):
        tail = len(data) - 400  # where most tags are
        for _ in range(150):
            broken = bytearray(data)
            broken[rng.integers(tail, len(data)) if rng.random() < 0.7 else rng.integers(len(data))] ^= int(
                rng.integers(1, 256)
            )
            with contextlib.suppress(ImageRejected):
                assert decode(bytes(broken), None).dtype == np.uint8
