"""silent_imports.py: standard error, the backend of Keras, and what is said where a package is not installed."""

from __future__ import annotations

import os
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest

from cache.errors import Unusable
from pipeline.results import csv_parquet
from stages.data import tables
from stages.runtime import silent_imports


def test_everything_about_parquet_without_pyarrow_is_one_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    for use in (
        lambda: csv_parquet.write_table({"a": np.zeros(1)}, tmp_path / "out.parquet"),
        lambda: csv_parquet.as_parquet({"a": np.zeros(1)}),
        lambda: tables.read_table(tmp_path / "labels.parquet", {}, tmp_path),
    ):
        with pytest.raises(Unusable, match="Parquet files need pyarrow, which is not installed") as caught:
            use()
        assert "pip install 'frozenbase[parquet]'" in caught.value.hint
    assert list(tmp_path.iterdir()) == []


CLOSED = """
import os, sys
os.close(2)
from stages.runtime.silent_imports import without_banners
for _ in range(2):
    with without_banners():
        os.write(2, b"banner")
first = open(sys.argv[1], "wb")
os.write(2, b"noise")
first.close()
"""


def test_a_closed_standard_error_is_no_failure_and_no_file_takes_its_place(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", CLOSED, tmp_path / "file"], check=True)
    assert (tmp_path / "file").read_bytes() == b""


def test_standard_error_is_itself_again(capfd: pytest.CaptureFixture[str]) -> None:
    with silent_imports.without_banners():
        os.write(2, b"banner")
    os.write(2, b"after")
    assert capfd.readouterr().err == "after"


def test_another_backend_of_keras_is_overridden_with_a_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    monkeypatch.delitem(sys.modules, "keras.src.backend.config", raising=False)
    for _ in range(2):
        with silent_imports.without_banners():
            assert os.environ["KERAS_BACKEND"] == "tensorflow"
    assert caplog.messages == ["KERAS_BACKEND=torch is ignored: Keras runs on TensorFlow here"]


def test_keras_that_runs_on_something_else_already_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    other = types.SimpleNamespace(backend=lambda: "jax")
    monkeypatch.setitem(sys.modules, "keras.src.backend.config", other)
    with pytest.raises(Unusable, match="Keras runs on jax in this process"), silent_imports.without_banners():
        pass
