"""Owns opening image files with Pillow: which formats, and limits of time and memory. Not decoding (images.py)."""

import contextlib
import io
import struct
import time
import warnings

from PIL import Image, features

warnings.filterwarnings("ignore", module=r"PIL\.")  # about odd but readable files; images.py has the rules

FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", *(("AVIF",) if features.check("avif") else ()))
_HEVC = frozenset([b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"])

_MAX_SECONDS = 60.0
"""Of processor time for one image. A picture of MAX_PIXELS takes about a tenth of it."""


class ImageRejected(Exception):
    """The bytes cannot be decoded in the documented way; the message is the reason."""


class _Reader(io.BytesIO):
    """The bytes of a file for Pillow, which bounds the time and the bytes that its decoders in Python may take."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self._end = time.thread_time() + _MAX_SECONDS
        self._left = 8 * len(data) + 2**26

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        self._left -= len(data)
        if self._left < 0 or time.thread_time() > self._end:
            raise ImageRejected(f"takes more than {_MAX_SECONDS:g} s, or too much memory, to decode")
        return data


def open_image(data: bytes) -> Image.Image | None:
    """The image, not yet decoded; None for an unknown format. As Image.open, whose limit of pixels is global."""
    file = _Reader(data)
    Image.preinit()  # the most common formats; init() takes longer
    for name in _heic() if _is_heic(data) else FORMATS:
        if name not in Image.OPEN:
            Image.init()
        factory, accept = Image.OPEN[name]
        if accept is None or accept(data[:16]) is True:
            with contextlib.suppress(SyntaxError, IndexError, TypeError, struct.error):  # as Image.open does
                file.seek(0)
                return factory(file, "")
    return None


def _is_heic(data: bytes) -> bool:
    """Whether the bytes begin with the brands of a HEIF file coded as HEVC (ISO/IEC 23008-12)."""
    brands = data[8:12] + data[16 : min(int.from_bytes(data[:4]), 256)]
    return data[4:8] == b"ftyp" and any(brands[at : at + 4] in _HEVC for at in range(0, len(brands), 4))


def _heic() -> tuple[str, ...]:
    """Pillow's name of HEIC; registers the decoder, which the first such file imports."""
    try:
        import pillow_heif
    except ImportError as error:
        raise ImageRejected("HEIC image: pip install pillow-heif") from error
    pillow_heif.register_heif_opener()
    return ("HEIF",)


def drop_hostile_exif(image: Image.Image) -> None:
    """Pillow copies what each entry points to, so a few MB of entries could take all memory."""
    exif = image.info.get("exif", b"").removeprefix(b"Exif\0\0")
    order = "<" if exif[:2] == b"II" else ">"
    (first,) = struct.unpack_from(f"{order}I", exif, 4) if exif else (0,)
    (entries,) = struct.unpack_from(f"{order}H", exif, first) if exif else (0,)
    if entries * len(exif) > 2**27 or len(image.info.get("Raw profile type exif", "")) > 2**18:
        image.info = {k: v for k, v in image.info.items() if k not in ("exif", "Raw profile type exif")}
