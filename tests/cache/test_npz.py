"""npz.py: arrays come back as they were, in the same bytes each time, and no pickled object ever does."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest

from cache import npz

ARRAYS = {"block/0": np.arange(6, dtype=np.float32).reshape(2, 3), "ids": np.array(["a", "bc"]), "none": np.empty(0)}


def test_arrays_come_back_from_a_file_and_from_memory(tmp_path: Path) -> None:
    data = npz.dump(ARRAYS)
    (tmp_path / "x.npz").write_bytes(data)
    for found in (npz.load(tmp_path / "x.npz"), npz.load(io.BytesIO(data))):
        assert list(found) == list(ARRAYS)
        for name, array in ARRAYS.items():
            assert found[name].dtype == array.dtype
            assert np.array_equal(found[name], array)
    assert npz.dump(ARRAYS) == data


def test_a_pickled_object_is_neither_written_nor_read(tmp_path: Path) -> None:
    pickled = np.array([{}], dtype=object)
    with pytest.raises(ValueError, match="x has objects"):
        npz.dump({"x": pickled})
    np.savez(tmp_path / "x.npz", x=pickled)
    with pytest.raises(ValueError, match="allow_pickle"):
        npz.load(tmp_path / "x.npz")


def test_any_flipped_byte_gives_the_arrays_or_one_kind_of_error(tmp_path: Path) -> None:
    """zipfile and NumPy raise ten kinds between them; the checksums of a zip leave no other array."""
    arrays = {"history": np.array('{"loss": [1.0]}'), "trained/0": np.arange(6, dtype=np.float32).reshape(2, 3)}
    data, path, refused = npz.dump(arrays), tmp_path / "arrays.npz", 0
    for place in range(len(data)):
        for mask in (1, 16, 255):
            path.write_bytes(data[:place] + bytes([data[place] ^ mask]) + data[place + 1 :])
            try:
                found = npz.load(path)
            except ValueError:
                refused += 1
            else:
                assert all(np.array_equal(found[name], arrays[name]) for name in found.keys() & arrays.keys())
    assert refused > len(data)
    for length in range(0, len(data), 7):
        path.write_bytes(data[:length])
        with pytest.raises(ValueError, match=r"not a complete|[Cc]annot"):
            npz.load(path)


def test_a_file_that_is_not_there_is_not_called_damaged(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        npz.load(tmp_path / "gone.npz")
