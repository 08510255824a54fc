"""silent_imports.py: what is said where an optional package is not installed."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from cache.errors import Unusable
from pipeline.results import csv_parquet
from stages.data import scan


def test_everything_about_parquet_without_pyarrow_is_one_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    for use in (
        lambda: csv_parquet.write_table({"a": np.zeros(1)}, tmp_path / "out.parquet"),
        lambda: csv_parquet.as_parquet({"a": np.zeros(1)}),
        lambda: scan._read_parquet(tmp_path / "labels.parquet"),
    ):
        with pytest.raises(Unusable, match="Parquet files need pyarrow, which is not installed") as caught:
            use()
        assert "pip install 'frozenbase[parquet]'" in caught.value.hint
    assert list(tmp_path.iterdir()) == []
