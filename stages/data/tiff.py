"""Owns TIFF files by their tags: which ones Pillow reads right, reading the others, or why they are rejected.

Pillow knows a TIFF by its mode alone: of 16 bits min-is-white comes out as a negative, planes garbled, 12 bits dark.
Of these it only decompresses here, each plane as if it were 8-bit grayscale; bits, byte order, predictor, planes,
photometric interpretation and alpha are ours.
"""

import io
import math
import struct
from dataclasses import dataclass

import numpy as np
from PIL import Image, TiffImagePlugin

from stages.data.image_formats import ImageRejected

MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_MOST_VALUES = 1_000_000  # of a tag; strips and tiles have one each
_TAG_TYPES = {1: "B", 3: "H", 4: "I", 8: "h", 9: "i", 16: "Q"}
_GRAY, _RGB, _CMYK = (0, 1), 2, 5
_CHANNELS = {0: 1, 1: 1, 2: 3, 3: 1, 5: 4, 6: 3, 8: 3, 9: 3, 10: 3}
_LOSSLESS = (1, 5, 8, 32946, 32773, 34925, 50000)  # none, LZW, Deflate (two), PackBits, LZMA, Zstandard
_SIGNED, _FLOAT, _COMPLEX = 2, 3, (5, 6)
_ROWS = 256


@dataclass(frozen=True)
class Layout:
    """The tags of the first image that say how its pixels are stored. planes: their strips or tiles, in order."""

    order: str
    width: int
    height: int
    bits: tuple[int, ...]
    kinds: tuple[int, ...]
    photometric: int
    samples: int
    extra: tuple[int, ...]
    planar: bool
    compression: int
    predictor: int
    fill_order: int
    orientation: int
    block: tuple[int, int]
    tiled: bool
    offsets: tuple[int, ...]
    sizes: tuple[int, ...]

    @property
    def channels(self) -> int:
        """Colour channels, without alpha and other samples."""
        return _CHANNELS[self.photometric]

    @property
    def has_alpha(self) -> bool:
        return self.extra[:1] in ((1,), (2,))


def read_layout(data: bytes) -> Layout:
    """Raises ImageRejected where the tags are damaged, or say what has no range, no colour, or too many bands."""
    try:
        tags = _read_tags(data)
        layout = _layout("<" if data[:2] == b"II" else ">", tags)
    except (struct.error, KeyError, IndexError, OverflowError) as error:
        raise ImageRejected("damaged TIFF tags") from error
    _check(layout)
    return layout


def pillow_is_right(layout: Layout) -> bool:
    """Whether Pillow, if it knows the mode, reads what the tags say."""
    if set(layout.bits) <= {1, 2, 4, 8}:
        wrong_planes = layout.planar and (layout.extra or layout.channels == 1)
        wrong_gray = layout.photometric in _GRAY and layout.extra[:1] == (1,)
        return layout.compression not in _LOSSLESS or not (wrong_planes or wrong_gray)
    right = layout.photometric in (_RGB, _CMYK) or (layout.photometric == 1 and layout.samples == 1)
    return set(layout.bits) == {16} and right and not layout.planar


def read_pixels(data: bytes, layout: Layout) -> Image.Image:
    """An image of mode L, LA, RGB or RGBA. Raises ImageRejected where that is not possible."""
    name = f"{layout.bits[0]}-bit samples of photometric interpretation {layout.photometric}"
    if layout.photometric not in (*_GRAY, _RGB) or len(set(layout.bits)) > 1:
        raise ImageRejected(f"TIFF with {name}; expected 8 bits, or grayscale or RGB")
    if layout.compression not in _LOSSLESS or layout.predictor not in (1, 2):
        raise ImageRejected(f"TIFF with {name} and compression {layout.compression}; expected a lossless one")
    if layout.predictor == 2 and layout.bits[0] not in (8, 16):
        raise ImageRejected(f"TIFF with {name} and a predictor; expected 8 or 16 bits, or none")
    wanted = layout.channels + layout.has_alpha
    if layout.planar:
        values = np.concatenate([_plane(data, layout, n, 1) for n in range(wanted)], axis=2)
    else:
        values = _plane(data, layout, 0, layout.samples)[..., :wanted]
    most = 2 ** layout.bits[0] - 1
    eight = ((values.astype(np.uint32) * 255 + most // 2) // most).astype(np.uint8)
    if layout.photometric == 0:
        eight[..., : layout.channels] = 255 - eight[..., : layout.channels]
    if layout.extra[:1] == (1,):  # premultiplied: white shows through what alpha leaves
        white = 255 - eight[..., -1:].astype(np.uint16)
        eight = np.minimum(eight[..., :-1] + white, 255).astype(np.uint8)
    image = Image.fromarray(np.ascontiguousarray(eight[..., 0] if eight.shape[2] == 1 else eight))
    if layout.orientation in range(2, 9):
        image.getexif()[0x0112] = layout.orientation
    return image


def _read_tags(data: bytes) -> dict[int, tuple[int, ...]]:
    """Whole-number tags of the first directory."""
    order = "<" if data[:2] == b"II" else ">"
    if struct.unpack_from(order + "H", data, 2)[0] == 43:  # BigTIFF
        (first,), head, entry, size, inline = struct.unpack_from(order + "Q", data, 8), "Q", "HHQ", 20, "Q"
    else:
        (first,), head, entry, size, inline = struct.unpack_from(order + "I", data, 4), "H", "HHI", 12, "I"
    (count,) = struct.unpack_from(order + head, data, first)
    first += struct.calcsize(order + head)
    tags = {}
    for at in range(first, min(first + count * size, len(data)), size):
        tag, kind, n = struct.unpack_from(order + entry, data, at)
        if kind not in _TAG_TYPES or tag > 400:
            continue
        if n > _MOST_VALUES:
            raise ImageRejected(f"TIFF tag {tag} with {n:,} values")
        where = at + struct.calcsize(order + entry)
        if n * struct.calcsize(_TAG_TYPES[kind]) > struct.calcsize(inline):
            (where,) = struct.unpack_from(order + inline, data, where)
        tags[tag] = struct.unpack_from(f"{order}{n}{_TAG_TYPES[kind]}", data, where)
    return tags


def _layout(order: str, tags: dict[int, tuple[int, ...]]) -> Layout:
    def one(tag: int, default: int) -> int:
        return tags.get(tag, (default,))[0]

    (width, *_), (height, *_) = tags[256], tags[257]
    compression = one(259, 1)
    photometric = 6 if compression == 6 else one(262, 0)  # old-style JPEG
    samples = one(277, 3 if compression == 6 else 1)
    bits = tags.get(258, (1,))
    tiled = 324 in tags
    block = (one(322, 0), one(323, 0)) if tiled else (width, min(one(278, height), height))
    return Layout(
        order, width, height, bits * samples if len(bits) == 1 else bits[:samples], tags.get(339, (1,)), photometric,
        samples, tags.get(338, ()), one(284, 1) == 2, compression, one(317, 1), one(266, 1), one(274, 1), block, tiled,
        tags[324] if tiled else tags.get(273, ()), tags[325] if tiled else tags.get(279, ()),
    )  # fmt: skip


def _check(layout: Layout) -> None:
    bits = max(layout.bits, default=0)
    if layout.photometric not in _CHANNELS:
        raise ImageRejected(f"TIFF of photometric interpretation {layout.photometric}; expected an image in colours")
    if set(layout.kinds) & {_FLOAT, *_COMPLEX}:
        raise ImageRejected(f"{'float' if _FLOAT in layout.kinds else 'complex'} pixels have no known range")
    if _SIGNED in layout.kinds:
        raise ImageRejected(f"signed {bits}-bit integer pixels have no known range")
    if bits > 16:
        raise ImageRejected(f"{bits}-bit integer pixels have no known range")
    extra = layout.samples - layout.channels
    if extra < 0 or (extra > 1 and layout.channels == 1) or len(layout.bits) != layout.samples:
        raise ImageRejected(f"TIFF with {layout.samples} bands; expected grayscale, RGB, CMYK, Lab or a palette")
    if 0 in layout.block or math.prod(layout.block) > 4 * max(layout.width * layout.height, 2**24):
        raise ImageRejected(f"TIFF with tiles of {layout.block[0]}x{layout.block[1]}")


def _plane(data: bytes, layout: Layout, number: int, samples: int) -> np.ndarray:
    """Values of the strips or tiles of one plane: uint8 or uint16 (height, width, samples)."""
    width, rows = layout.block
    across = math.ceil(layout.width / width)
    down = math.ceil(layout.height / rows)
    first = number * across * down
    height = across * down * rows if layout.tiled else layout.height
    row_bytes = math.ceil(width * samples * layout.bits[0] / 8)
    packed = _decompress(data, layout, slice(first, first + across * down), row_bytes, height)
    values = np.empty((height, width, samples), np.uint16 if layout.bits[0] > 8 else np.uint8)
    for start in range(0, height, _ROWS):  # a few rows at a time: bit by bit they take 8 times as much
        part = packed[start : start + _ROWS]
        values[start : start + _ROWS] = _unpack(part, layout, width * samples).reshape(-1, width, samples)
    if layout.predictor == 2:
        values = np.cumsum(values, axis=1, dtype=values.dtype)
    if layout.tiled:
        values = values.reshape(down, across, rows, width, samples).swapaxes(1, 2)
        values = values.reshape(down * rows, across * width, samples)[: layout.height, : layout.width]
    return values


def _unpack(packed: np.ndarray, layout: Layout, n: int) -> np.ndarray:
    """The first n values of each row of bytes."""
    bits = layout.bits[0]
    if bits == 8:
        return packed
    if bits == 16:
        return packed.view(f"{layout.order}u2")
    ones = np.unpackbits(packed, axis=1, count=n * bits).reshape(len(packed), n, bits)
    return ones @ (1 << np.arange(bits - 1, -1, -1, dtype=np.uint16))


def _decompress(data: bytes, layout: Layout, blocks: slice, row_bytes: int, height: int) -> np.ndarray:
    """uint8 (height, row_bytes) of these strips or tiles, which a TIFF of 8-bit grayscale stands for."""
    entries = {
        256: (row_bytes,), 257: (height,), 258: (8,), 259: (layout.compression,), 262: (1,), 266: (layout.fill_order,),
        273: layout.offsets[blocks], 277: (1,), 278: (layout.block[1],), 279: layout.sizes[blocks],
    }  # fmt: skip
    start = 8 + 2 + 12 * len(entries) + 4
    shift = start + 4 * sum(len(values) for values in entries.values() if len(values) > 1)
    entries[273] = tuple(offset + shift for offset in entries[273])
    head, tail = struct.pack("<2sHIH", b"II", 42, 8, len(entries)), b""
    for tag, values in entries.items():
        packed = struct.pack(f"<{len(values)}I", *values)
        head += struct.pack("<HHI", tag, 4, len(values))
        head += packed if len(values) == 1 else struct.pack("<I", start + len(tail))
        tail += packed if len(values) > 1 else b""
    file = io.BytesIO(b"".join([head, bytes(4), tail, data]))
    with TiffImagePlugin.TiffImageFile(file, "") as image:
        return np.asarray(image)
