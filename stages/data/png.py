"""Owns which chunks of a PNG file are handed to the decoder. Not decoding (images.py)."""

import zlib

from stages.data.image_formats import ImageRejected

MAGIC = b"\x89PNG\r\n\x1a\n"
MAX_CHUNKS = 200_000
_TEXT = (b"tEXt", b"zTXt", b"iTXt")
_LONGEST_TEXT = 1 << 20
"""What Pillow decompresses of a text at most; it refuses the file over a longer one."""
_KEPT_TEXT = 1 << 16
_MOST_TEXT = 1 << 25


def clean_png(data: bytes) -> tuple[bytes, list[str]]:
    """The file without what decides no pixel and could stop its decoding, and what was damaged of that.

    Colour profiles are left out, long texts cut (the orientation, which XMP may have, is at their start), and ancillary
    chunks with a wrong checksum left out, as libpng does. Raises ImageRejected where there are too many.
    """
    pieces: list[bytes] = []
    notes: list[str] = []
    start, at, texts = 0, 8, 0
    for _ in range(MAX_CHUNKS):
        length, kind = int.from_bytes(data[at : at + 4]), data[at + 4 : at + 8]
        end = at + 12 + length
        if end > len(data) or kind == b"IEND":
            return (b"".join([*pieces, data[start:]]) if pieces else data), notes
        body = data[at + 8 : end - 4]
        instead = None
        if kind[0] & 0x20 and kind.isalpha():  # ancillary
            if zlib.crc32(kind + body) != int.from_bytes(data[end - 4 : end]):
                notes.append(f"the PNG chunk {kind.decode('ascii')} has a wrong checksum, and is left out")
                instead = b""
            elif kind == b"iCCP":
                instead = b""
            elif kind in _TEXT:
                keyword, text = _read_text(kind, body)
                texts += len(text)
                if texts > _MOST_TEXT:
                    instead = b""
                elif len(text) > _LONGEST_TEXT:
                    start_of_it = text[:_KEPT_TEXT].decode("utf-8" if kind == b"iTXt" else "latin-1", "ignore")
                    short = b"iTXt" + keyword + b"\0\0\0\0\0" + start_of_it.encode()
                    instead = (len(short) - 4).to_bytes(4) + short + zlib.crc32(short).to_bytes(4)
        if instead is not None:
            pieces += [data[start:at], instead]
            start = end
        at = end
    raise ImageRejected(f"more than {MAX_CHUNKS:,} chunks")


def _read_text(kind: bytes, body: bytes) -> tuple[bytes, bytes]:
    """Keyword and text of such a chunk; of a longer text one byte more than _LONGEST_TEXT, if it is compressed."""
    keyword, _, text = body.partition(b"\0")
    if kind == b"iTXt":
        compressed, text = text[:1] == b"\1", text[2:].split(b"\0", 2)[-1]
    else:
        compressed, text = kind == b"zTXt", text[1:] if kind == b"zTXt" else text
    if compressed:
        try:
            return keyword, zlib.decompressobj().decompress(text, _LONGEST_TEXT + 1)
        except zlib.error:
            return keyword, b""
    return keyword, text
