"""Owns reading a PyTorch state dict in the old, non-zip format without PyTorch. Not what its tensors are for.

The file is five pickles (magic number, protocol, system information, state dict, storage names) and then the raw
storages: of each, an int64 count and the elements. Unpickling runs code, so only the globals of a state dict of plain
CPU tensors are allowed, and none of them is PyTorch's. Format: torch.serialization, `_legacy_load`.
"""

import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from cache.errors import Unusable

_MAGIC = 0x1950A86A20F9469CFC6C
_DTYPES = {"FloatStorage": np.dtype("<f4"), "LongStorage": np.dtype("<i8")}


class _Tensor(NamedTuple):
    storage: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def read_tensors(path: Path) -> dict[str, np.ndarray]:
    """All tensors of the file by name: new contiguous ndarrays (float32 or int64) of the stored shapes.

    Raises Unusable if the file has another format, is damaged, or names a global that is not allowed.
    """
    try:
        with open(path, "rb") as file:
            return _read(file)
    except (pickle.UnpicklingError, EOFError, ValueError, IndexError, KeyError, TypeError, AttributeError) as error:
        raise Unusable(
            f"weights {path}: not a PyTorch state dict of the old format ({error})",
            "give a .pth file saved with _use_new_zipfile_serialization=False",
        ) from error


def _read(file: BinaryIO) -> dict[str, np.ndarray]:
    if _Reader(file).load() != _MAGIC:
        raise ValueError("wrong magic number")
    _Reader(file).load()  # protocol version
    if not _Reader(file).load()["little_endian"]:
        raise ValueError("big-endian")
    reader = _Reader(file)
    state = reader.load()
    storages = {}
    for name in _Reader(file).load():
        dtype, size = reader.storages[name]
        if int.from_bytes(file.read(8), "little") != size:
            raise ValueError(f"storage {name} has another size than its tensors name")
        data = file.read(size * dtype.itemsize)
        storages[name] = np.frombuffer(data, dtype=dtype, count=size)
    return {name: _array(tensor, storages[tensor.storage]) for name, tensor in state.items()}


def _array(tensor: _Tensor, storage: np.ndarray) -> np.ndarray:
    """A copy of the strided view of the storage, which must lie within it."""
    last = tensor.offset + sum((n - 1) * s for n, s in zip(tensor.shape, tensor.strides, strict=True))
    if tensor.offset < 0 or min((*tensor.shape, *tensor.strides), default=0) < 0 or last >= len(storage):
        raise ValueError(f"a tensor of shape {tensor.shape} lies outside its storage")
    strides = [s * storage.itemsize for s in tensor.strides]
    view = np.lib.stride_tricks.as_strided(storage[tensor.offset :], tensor.shape, strides, writeable=False)
    return np.array(view, order="C")


def _rebuild(storage: str, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *_: Any) -> _Tensor:
    return _Tensor(storage, offset, tuple(shape), tuple(strides))


class _Reader(pickle.Unpickler):
    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file)
        self.storages: dict[str, tuple[np.dtype[Any], int]] = {}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _rebuild
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        raise pickle.UnpicklingError(f"it names {module}.{name}, which is not allowed")

    def persistent_load(self, pid: Any) -> str:
        kind, dtype, name, _device, size, view = pid
        if kind != "storage" or view is not None:
            raise pickle.UnpicklingError(f"unknown reference {kind!r}")
        self.storages[name] = (dtype, int(size))
        return str(name)
