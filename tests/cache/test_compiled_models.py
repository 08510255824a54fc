"""compiled_models.py: whole and of these components, or made again."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from cache import compiled_models, records
from cache.hash_index import HashIndex
from cache.store import Cache

SPEC = {"base": "vgg16", "batch": 8}
CONTENTS = {"graph.pb": b"nodes", "arrays.npz": b"numbers"}


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    """A cache that holds CONTENTS under SPEC."""
    cache = Cache(tmp_path / "cache", HashIndex())
    compiled_models.store(cache, SPEC, CONTENTS)
    return cache


def record_of(cache: Cache) -> Path:
    (path,) = cache.root.glob("converted/*/record.json")
    return path


def test_what_was_stored_is_read_by_its_components_and_by_no_others(cache: Cache) -> None:
    assert compiled_models.read(cache.root, SPEC) == CONTENTS
    assert compiled_models.read(cache.root, {**SPEC, "batch": 9}) is None
    assert compiled_models.verify(cache) == []


def test_it_is_looked_for_in_each_place_and_kept_in_the_first(cache: Cache, tmp_path: Path) -> None:
    made: list[Mapping[str, bytes]] = []

    def make() -> Mapping[str, bytes]:
        made.append(CONTENTS)
        return CONTENTS

    first, second = tmp_path / "first", tmp_path / "second"
    assert compiled_models.load_or_make([first, cache.root], SPEC, make) == CONTENTS
    assert made == []
    for _ in range(2):
        assert compiled_models.load_or_make([first, second], {"other": 1}, make) == CONTENTS
    assert len(made) == 1
    assert not second.exists()
    assert compiled_models.load_or_make([], SPEC, make) == CONTENTS
    assert len(made) == 2


def spoil(cache: Cache, how: str) -> None:
    path = record_of(cache)
    record: dict[str, Any] = json.loads(path.read_text())
    if how == "another key":
        path.write_bytes(records.dump({**record, "key": "ab" * 32}))
    elif how == "changed file":
        (path.parent / "graph.pb").write_bytes(b"other")
    elif how == "absent file":
        (path.parent / "arrays.npz").unlink()


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("another key", "its record tells of another"),
        ("changed file", "graph.pb is not as it was written"),
        ("absent file", "arrays.npz"),
    ],
)
def test_what_is_damaged_is_not_used_and_verify_sets_it_aside(
    cache: Cache, how: str, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    spoil(cache, how)
    assert compiled_models.read(cache.root, SPEC) is None
    assert reason in caplog.text
    folder = str(record_of(cache).parent)
    ((found, why),) = compiled_models.verify(cache)
    assert found == folder
    assert reason in why
    assert list(cache.root.glob("converted/*/record.json")) == []
    assert compiled_models.load_or_make([cache.root], SPEC, lambda: CONTENTS) == CONTENTS
    assert compiled_models.read(cache.root, SPEC) == CONTENTS


def test_reading_notes_the_use_and_only_then(cache: Cache) -> None:
    os.utime(record_of(cache), (0, 0))
    compiled_models.read(cache.root, {**SPEC, "batch": 9})
    assert record_of(cache).stat().st_mtime == 0
    compiled_models.read(cache.root, SPEC)
    assert record_of(cache).stat().st_mtime > 0


def test_where_it_cannot_be_kept_the_work_goes_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_bytes(b"")
    caplog.set_level(logging.INFO)
    assert compiled_models.load_or_make([tmp_path / "file"], SPEC, lambda: CONTENTS) == CONTENTS
    assert "is not kept in" in caplog.text
