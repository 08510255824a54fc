"""prefetch.py: images come in order, so many are read at once, and no more are in memory than is said."""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cache import hash_index
from stages.data import images
from stages.extract import prefetch
from tests.support import fakes
from tests.support.networks import DEFAULT

RECIPE = replace(DEFAULT, pixels=images.PixelSpec(16, 16))
Rows = list[tuple[str, list[str]]]


@pytest.fixture
def rows(tmp_path: Path) -> Rows:
    """40 images that carry their number, and their ids."""
    found = []
    for number in range(40):
        (tmp_path / f"{number}.png").write_bytes(fakes.numbered(number))
        found.append((hashlib.sha256(fakes.numbered(number)).hexdigest(), [str(tmp_path / f"{number}.png")]))
    return found


def test_pixels_come_in_order_and_rejects_in_theirs(rows: Rows) -> None:
    rows[7] = (rows[7][0], rows[8][1])
    seen: list[hash_index.Seen] = []
    for row, (image, promised) in zip(rows, prefetch.read_ahead(rows, [RECIPE], seen), strict=True):
        assert image == row[0]
        if row is rows[7]:
            with pytest.raises(images.ImageRejected, match="its bytes are not those of its id"):
                promised.result()
        else:
            assert np.array_equal(promised.result(), prefetch.read_image(*row, [RECIPE], []))
    assert len(seen) == 40


def test_a_picture_to_look_at_is_none_where_it_cannot_be_shown(rows: Rows) -> None:
    (image, paths), spec = rows[3], images.PixelSpec(8, 8)
    found = prefetch.read_picture(image, ["gone.png", *paths], spec)
    assert found is not None
    assert found[0] == fakes.numbered(3)
    np.testing.assert_array_equal(found[1], images.decode(found[0], spec))
    assert prefetch.read_picture(image, rows[4][1], spec) is None


def opened_for_reading(fifo: str) -> int | None:
    """A descriptor to write to that FIFO, as soon as somebody reads it; None where nobody does for 0.2 s."""
    for _ in range(20):
        with contextlib.suppress(OSError):
            return os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
        time.sleep(0.01)
    return None


def test_so_many_slow_files_are_read_at_once_and_no_more(rows: Rows) -> None:
    """FIFOs are as slow as we like; the last to answer is the first that is asked for."""
    data = {}
    for _, (path,) in rows[: prefetch.READERS + 1]:
        data[path] = Path(path).read_bytes()
        os.unlink(path)
        os.mkfifo(path)
    *first, last = data
    ahead = prefetch.read_ahead(rows[: len(data)], [RECIPE], [])
    promised = [next(ahead)[1]]
    assert opened_for_reading(last) is None
    for path in (*reversed(first), last):
        descriptor = opened_for_reading(path)
        assert descriptor is not None, f"{path} is not read"
        os.write(descriptor, data[path])
        os.close(descriptor)
    promised += [future for _, future in ahead]
    assert [int(future.result()[0][0, 0, 0]) for future in promised] == list(range(len(data)))


def test_no_more_than_is_said_is_taken_up_and_nothing_goes_on_after_a_stop(rows: Rows) -> None:
    taken = 0

    def counted() -> Iterator[tuple[str, list[str]]]:
        nonlocal taken
        for row in rows:
            taken += 1
            yield row

    threads = threading.active_count()
    ahead = prefetch.read_ahead(counted(), [RECIPE], [])
    for number in range(5):
        next(ahead)
        assert taken == prefetch.AHEAD + number
    ahead.close()
    assert threading.active_count() == threads
    assert taken == prefetch.AHEAD + 4


def test_one_picture_at_a_time_is_decoded(rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many are read at once, so that memory holds one of full size."""
    decode, busy, most = images.decode_all, 0, 0

    def watched(data: bytes, specs: list[Any], on_damage: Any) -> list[np.ndarray]:
        nonlocal busy, most
        busy += 1
        most = max(most, busy)
        time.sleep(0.001)
        busy -= 1
        return decode(data, specs)

    monkeypatch.setattr(images, "decode_all", watched)
    assert len([promised.result() for _, promised in prefetch.read_ahead(rows, [RECIPE], [])]) == 40
    assert most == 1


def test_what_is_no_reject_is_raised_where_it_is_asked_for(rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(data: bytes, specs: list[Any], on_damage: Any) -> list[np.ndarray]:
        raise MemoryError

    monkeypatch.setattr(images, "decode_all", broken)
    with contextlib.closing(prefetch.read_ahead(rows, [RECIPE], [])) as ahead, pytest.raises(MemoryError):
        next(ahead)[1].result()
