"""compiled_models.py: stored whole or not at all, never served damaged, private to the user, removed when unused."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from cache import compiled_models
from tests.support import crash

MODEL = {"model.xml": b"x" * 300, "model.bin": b"b" * 300}


def test_a_damaged_or_foreign_model_is_never_served() -> None:
    ours, theirs = {"base": "ours"}, {"base": "theirs"}
    for components in (ours, theirs):
        compiled_models.store(components, {"model.xml": str(components).encode(), "model.bin": b"weights"})
    assert compiled_models.load(ours) == {"model.xml": str(ours).encode(), "model.bin": b"weights"}
    folders = compiled_models.default_folder().iterdir()
    mine, other = sorted(folders, key=lambda folder: "ours" not in str(record_of(folder)))
    (mine / "model.bin").write_bytes(b"weighty")
    assert compiled_models.load(ours) is None
    shutil.rmtree(mine)
    shutil.copytree(other, mine)
    assert compiled_models.load(ours) is None
    assert compiled_models.load(theirs) is not None


def record_of(folder: Path) -> Any:
    return json.loads((folder / "record.json").read_text())


def test_what_was_not_used_for_a_month_goes_when_another_comes() -> None:
    for name in ("old", "used"):
        compiled_models.store({"base": name}, MODEL)
        (record,) = (f / "record.json" for f in compiled_models.default_folder().iterdir() if name in str(record_of(f)))
        (record.parent / ".left.tmp").write_bytes(b"by one that was killed")
        os.utime(record, (1, 1))
    assert compiled_models.load({"base": "used"}) == MODEL
    compiled_models.store({"base": "new"}, MODEL)
    kept = {record_of(folder)["components"]["base"] for folder in compiled_models.default_folder().iterdir()}
    assert kept == {"used", "new"}


@pytest.mark.parametrize("room", range(0, 1200, 100))
def test_on_a_full_disk_a_model_is_kept_whole_or_not_at_all(
    fast_path: Path, room: int, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(fast_path))
    folder, components = compiled_models.default_folder(), {"base": "b"}
    with crash.standing(crash.Shim(crash.full_after(room))), caplog.at_level("INFO"):
        compiled_models.store(components, MODEL)
    found = {path.name: path.read_bytes() for path in folder.glob("*/*") if path.name != "record.json"}
    assert found in ({}, MODEL)
    assert (compiled_models.load(components) == MODEL) == bool(found)
    assert ("No space left on device" in caplog.text) != bool(found)
    assert [*folder.rglob(".*.tmp")] == []
    compiled_models.store(components, MODEL)
    assert compiled_models.load(components) == MODEL


def test_it_is_made_once_and_then_loaded() -> None:
    made: list[str] = []

    def make() -> dict[str, bytes]:
        made.append("once")
        return MODEL

    for _ in range(2):
        assert compiled_models.load_or_make({"base": "b"}, make, lambda files: []) == MODEL
    assert made == ["once"]


def test_the_model_that_is_stored_is_not_among_those_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled_models.store({"base": "old"}, MODEL)
    monkeypatch.setattr(compiled_models, "KEPT_S", -1)
    compiled_models.store({"base": "new"}, MODEL)
    assert compiled_models.load({"base": "new"}) == MODEL
    assert compiled_models.load({"base": "old"}) is None


def test_without_a_home_directory_none_is_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled_models, "user_cache", lambda: None)
    for _ in range(2):
        assert compiled_models.load_or_make({"base": "b"}, lambda: MODEL, lambda files: []) == MODEL
    assert compiled_models.default_folder() is None


def test_any_flipped_byte_of_its_record_is_damage_or_nothing(scale: float) -> None:
    compiled_models.store({"base": "b"}, MODEL)
    (path,) = compiled_models.default_folder().glob("*/record.json")
    data = path.read_bytes()
    for place in crash.spread(range(len(data)), 4 * scale * len(data)):
        for mask in (1, 32):
            path.write_bytes(data[:place] + bytes([data[place] ^ mask]) + data[place + 1 :])
            assert compiled_models.load({"base": "b"}) in (None, MODEL)
