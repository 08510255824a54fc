"""records.py: what has no record does not exist."""

from __future__ import annotations

import os
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


@pytest.mark.parametrize(
    "text",
    ["[" * 100_000, '{"a": ' + "[" * 40 + "]" * 40 + "}", '{"a": NaN}', '{"n": 1e999}', '{"n": "1"}', '{"n": null}',
     "{}", '{"n": ' + "9" * 5000 + "}", '{"n": ' + "9" * 400 + "}"],
)  # fmt: skip
def test_a_record_of_any_kind_is_read_or_damaged(tmp_path: Path, text: str, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "record.json"
    path.write_text(text)
    assert records.load(path, {"n": int | float}) is None
    assert "is damaged" in caplog.text
    path.write_text('{"n": 1.5, "other": []}')
    assert records.load(path, {"n": int | float, "absent": str | None}) == {"n": 1.5, "other": []}


@pytest.mark.timeout(20)
def test_a_pipe_in_the_place_of_a_record_is_damaged_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "record.json")
    assert records.load(tmp_path / "record.json") is None
    (tmp_path / "link").symlink_to("/dev/zero")
    assert records.load(tmp_path / "link") is None
    with open(tmp_path / "large", "wb") as file:
        file.truncate(10**12)
    assert records.load(tmp_path / "large") is None
