"""records.py: what has no record does not exist."""

from __future__ import annotations

from pathlib import Path

import pytest

from cache import records

pytestmark = pytest.mark.forks


def test_a_result_is_there_once_its_record_is(tmp_path: Path) -> None:
    assert records.load_folder(tmp_path / "r") is None
    records.publish_folder(tmp_path / "r", {"a.bin": b"1"}, {"key": "k"})
    record = records.load_folder(tmp_path / "r")
    assert record is not None
    assert record["key"] == "k"


@pytest.mark.parametrize("how", ["changed", "gone", "record torn", "record is a list"])
def test_a_damaged_result_is_absent(tmp_path: Path, how: str, caplog: pytest.LogCaptureFixture) -> None:
    records.publish_folder(tmp_path, {"a.bin": b"1"}, {})
    if how == "changed":
        (tmp_path / "a.bin").write_bytes(b"2")
    elif how == "gone":
        (tmp_path / "a.bin").unlink()
    elif how == "record torn":
        (tmp_path / records.RECORD).write_bytes((tmp_path / records.RECORD).read_bytes()[:9])
    else:
        (tmp_path / records.RECORD).write_bytes(b"[]")
    assert records.load_folder(tmp_path) is None


def test_nan_is_not_json() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        records.dump({"x": float("nan")})
