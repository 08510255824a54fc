"""Owns named arrays as the bytes of an .npz, and back, without pickle. Not writing them (atomic_files.py)."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

import numpy as np


def dump(arrays: Mapping[str, np.ndarray]) -> bytes:
    """The same bytes for the same arrays in the same order."""
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def load(source: Path | BinaryIO) -> dict[str, np.ndarray]:
    """The arrays of that file, by name.

    Raises
    ------
    OSError
        It cannot be read.
    ValueError, EOFError, zipfile.BadZipFile
        It is not a complete .npz, or holds a pickled object.
    """
    with np.load(source, allow_pickle=False) as arrays:
        return dict(arrays)
