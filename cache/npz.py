"""Owns named arrays as the bytes of an .npz, and back, without pickle. Not writing them (atomic_files.py)."""

import errno
import io
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

_DAMAGED = (
    EOFError, KeyError, MemoryError, NotImplementedError, RuntimeError, SyntaxError, TypeError, UnicodeError,
    struct.error, tokenize.TokenError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip
"""What NumPy and zipfile raise of damaged files, beside ValueError."""


def dump(arrays: Mapping[str, np.ndarray]) -> bytes:
    """The same bytes for the same arrays in the same order. Raises ValueError for objects, which would be pickled."""
    if objects := [name for name, array in arrays.items() if np.asarray(array).dtype.hasobject]:
        raise ValueError(f"{objects[0]} has objects, which need pickle")
    buffer = io.BytesIO()
    named: dict[str, Any] = dict(arrays)  # with allow_pickle=False NumPy before 2.1 writes an array of that name
    np.savez(buffer, **named)
    return buffer.getvalue()


def load(source: Path | BinaryIO) -> dict[str, np.ndarray]:
    """The arrays of that file, by name.

    Raises OSError where it cannot be read, ValueError where it is not a complete .npz, or holds a pickled object.
    """
    try:
        with np.load(source, allow_pickle=False) as arrays:
            return dict(arrays)
    except (OSError, *_DAMAGED) as error:
        if isinstance(error, OSError) and error.errno != errno.EINVAL:  # which is a place before the file's start
            raise
        raise ValueError(f"not a complete .npz: {error}") from error
