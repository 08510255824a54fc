"""Pulls and pushes against moto with a fault in the middle: no wrong row, no loss that is not told, all healed after.

`make test` tries a sample of the cases, `make test-all` all of them, with more than 1,000 faults.
"""

from __future__ import annotations

import contextlib
import random
import shutil
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from cache.store import FeatureStore
from cache.transfer import Copied
from stages.buckets.object_store import Denied, ObjectStore, Unreachable
from stages.remote import bucket, pull
from stages.remote.push import Pushed
from tests.support import bucket_server
from tests.support.bucket_server import BucketServer, fill, new_store, object_kind, push_all

CASES = 1_200
"""In some, the request that a fault is meant for is never made."""
FAULTS = ("403", "404", "429", "500", "expired", "reset", "truncated", "swapped", "slow", "killed", "two pushers")
WEIGHTS = (1, 1, 1, 1, 1, 1, 1, 1, 0.05, 2, 1)  # a slow one takes seconds
SHARDS = 3


class Killed(BaseException):
    """In the place of a SIGKILL: nothing after it happens."""


@pytest.fixture(scope="module")
def server() -> Iterator[BucketServer]:
    with bucket_server.running() as running:
        yield running


@pytest.fixture
def _environment(server: BucketServer, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket_server.use(server, monkeypatch)


class Fault:
    """What goes wrong with the requests of one kind of object, from the `first` of them on, `times` times."""

    def __init__(self, rng: random.Random) -> None:
        self.kind = rng.choices(FAULTS, WEIGHTS)[0]
        self.objects = rng.choice(("rows", "ids", "record", "listing", "any"))
        self.left, self.skipped = rng.choice((1, 2, 1_000)), rng.randrange(3)
        self.after = rng.random() < 0.5
        self.hit = 0
        self._lock = threading.Lock()

    def strikes(self, name: str) -> bool:
        with self._lock:
            if self.objects not in ("any", object_kind(name)):
                return False
            self.skipped -= 1
            if self.skipped >= 0 or not self.left:
                return False
            self.left, self.hit = self.left - 1, self.hit + 1
            return True

    def answer(self, method: str, name: str) -> str | None:
        return self.kind if self.strikes(name) else None

    def __str__(self) -> str:
        return f"{self.kind} of {self.objects}, {self.hit} times"


class KilledStore(ObjectStore):
    """A store whose user is killed before or after one of its requests."""

    def __init__(self, url: str, fault: Fault) -> None:
        super().__init__(url)
        self.fault = fault

    def get(self, name: str, most: int) -> bytes:
        self._die(name, after=False)
        data = super().get(name, most)
        self._die(name, after=True)
        return data

    def put(self, name: str, data: bytes) -> None:
        self._die(name, after=False)
        super().put(name, data)
        self._die(name, after=True)

    def _die(self, name: str, after: bool) -> None:
        if after == self.fault.after and self.fault.strikes(name):
            raise Killed


@pytest.mark.usefixtures("_environment")
def test_a_fault_costs_no_row_and_is_told(
    server: BucketServer, fast_path: Path, scale: float, tally: Counter[str]
) -> None:
    ours = new_store(fast_path / "ours")
    ids = fill(ours, SHARDS)
    rows = ours.read(ids)
    for number in range(round(CASES * scale) if scale >= 1 else round(CASES * scale / 3)):
        rng = random.Random(number)
        url, fault = f"s3://team/{number}", Fault(rng)
        theirs = new_store(fast_path / "theirs")
        (try_push if rng.random() < 0.5 else try_pull)(server, url, fault, ours, theirs, ids)
        server.fail = lambda method, name: None
        healed = push_all(ObjectStore(url), ours)
        assert (healed.lost, healed.shards + healed.there) == ("", SHARDS), fault
        taken = Copied()
        again = new_store(fast_path / "theirs")
        pull.pull_rows(ObjectStore(url), again, ids, taken)
        assert (again.missing(ids), taken.refused) == ([], []), fault
        np.testing.assert_array_equal(again.read(ids), rows, err_msg=str(fault))
        shutil.rmtree(fast_path / "theirs")
        tally[f"{'faults' if fault.hit else 'cases without a fault'} in pulls and pushes"] += 1


def try_push(
    server: BucketServer, url: str, fault: Fault, ours: FeatureStore, theirs: FeatureStore, ids: list[str]
) -> None:
    """What was pushed can be pulled, what was not is counted."""
    if fault.kind == "two pushers":
        race(url, ours)
        fault.hit = 1
    elif fault.kind == "killed":
        with contextlib.suppress(Killed):
            push_all(KilledStore(url, fault), ours)
    else:
        server.fail = fault.answer
        done = push_all(ObjectStore(url), ours)
        server.fail = lambda method, name: None
        whole = bucket.list_key(ObjectStore(url), ours.key).whole
        assert done.shards + done.there + done.failed == SHARDS, fault
        assert len(whole) >= done.shards, fault
        assert (done.failed > 0) == (done.lost != "") == (done.error is not None), fault
        assert done.failed or len(whole) == SHARDS, fault
    taken = Copied()
    pull.pull_rows(ObjectStore(url), theirs, ids, taken)
    assert taken.refused == [], fault  # content came before its record
    check_rows(ours, theirs, ids, fault)


def try_pull(
    server: BucketServer, url: str, fault: Fault, ours: FeatureStore, theirs: FeatureStore, ids: list[str]
) -> None:
    """A pull that neither raises nor refuses has all rows."""
    push_all(ObjectStore(url), ours)
    taken, told = Copied(), False
    if fault.kind == "killed":
        try:
            pull.pull_rows(KilledStore(url, fault), theirs, ids, taken)
        except Killed:
            told = True
    else:
        server.fail = fault.answer
        try:
            pull.pull_rows(ObjectStore(url), theirs, ids, taken)
        except (Denied, Unreachable):
            told = True
        server.fail = lambda method, name: None
    check_rows(ours, theirs, ids, fault)
    assert told or taken.refused or theirs.missing(ids) == [], fault


def race(url: str, ours: FeatureStore) -> None:
    """Two push the same shards at once."""
    found: list[Pushed] = []
    threads = [threading.Thread(target=lambda: found.append(push_all(ObjectStore(url), ours))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [done.lost for done in found] == ["", ""]


def check_rows(ours: FeatureStore, theirs: FeatureStore, ids: list[str], fault: Fault) -> None:
    missing = set(theirs.missing(ids))
    if there := [image for image in ids if image not in missing]:
        np.testing.assert_array_equal(theirs.read(there), ours.read(there), err_msg=str(fault))
