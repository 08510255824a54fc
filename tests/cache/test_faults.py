"""A full, failing, read-only or lying disk: a clear error, no litter, and never a wrong row."""

from __future__ import annotations

import errno
import json
import os
import resource
import shutil
import stat
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from cache.errors import Unusable, Unwritable
from cache.hash_index import HashIndex
from cache.store import Cache
from tests.support import crash, disk, mounted, promises

pytestmark = pytest.mark.forks

NOBODY = 65534


@pytest.fixture
def root(fast_path: Path) -> Path:
    """A cache that holds the rows 6 and 7."""
    promises.lay_out(fast_path / "cache")
    return fast_path / "cache"


def check_after_error(root: Path) -> None:
    """What an error leaves: no temp file, the rows that were there, and a cache that can go on."""
    assert promises.temps(root) == []
    promises.check(root, promises.BEFORE)


@pytest.mark.timeout(1500)
@pytest.mark.parametrize("kind", ["vectors", "maps"])
def test_every_byte_of_a_shard_flipped(fast_path: Path, scale: float, tally: Counter[str], kind: str) -> None:
    """None is served. In a child, so that a crash of libhdf5 would be seen; a hang is pytest's timeout."""
    root, numbers = fast_path / "cache", (0, 1, 2)
    ids = [promises.name(i) for i in numbers]
    shard = promises.put(promises.store_of(root, kind), kind, numbers)
    path = promises.store_of(root, kind).folder / "shards" / f"{shard}.h5"
    data = path.read_bytes()
    places = crash.spread(range(len(data)), len(data) * scale)

    def flip() -> None:
        for place in places:
            path.write_bytes(data[:place] + bytes([data[place] ^ (1 + place % 255)]) + data[place + 1 :])
            assert promises.store_of(root, kind).missing(ids) == ids
            for moved in (root / "quarantine").iterdir():
                os.replace(moved, path.parent / moved.name[:-9])  # back, without the random end of its name

    assert crash.wait(crash.fork(flip)) == 0
    tally["bytes of shards flipped"] += len(places)
    path.write_bytes(data)
    promises.check_served(root, {(kind, i) for i in numbers})


@pytest.mark.timeout(1500)
@pytest.mark.parametrize("which", ["record", "spec.json"])
def test_every_byte_of_a_record_or_spec_flipped(root: Path, scale: float, tally: Counter[str], which: str) -> None:
    """The row is absent or right, and comes back; a flip in spec.json costs no row."""
    store = promises.store_of(root, "vectors")
    shard = promises.put(store, "vectors", promises.FOUND_GOOD)
    path = store.folder / ("spec.json" if which == "spec.json" else f"shards/{shard}.json")
    data = path.read_bytes()
    cases = [(place, mask) for place in range(len(data)) for mask in (1, 16, 128)]
    for place, mask in crash.spread(cases, len(cases) * scale):
        path.write_bytes(data[:place] + bytes([data[place] ^ mask]) + data[place + 1 :])
        promises.check_served(root, promises.BEFORE if which == "spec.json" else ())
        promises.put(promises.store_of(root, "vectors"), "vectors", promises.FOUND_GOOD)
        promises.check_served(root, promises.BEFORE)
        if which == "spec.json":
            assert json.loads(path.read_bytes()) == json.loads(data)
        tally["bytes of records flipped"] += 1
    assert path.exists()


def test_every_byte_of_the_marker_flipped(root: Path, tally: Counter[str]) -> None:
    """All is served and the marker mended, unless it now names a newer format: then the cache is refused, unharmed."""
    marker = root / "CACHE.json"
    data = marker.read_bytes()
    refused = 0
    for place in range(len(data)):
        for mask in (1, 2, 8):
            marker.write_bytes(data[:place] + bytes([data[place] ^ mask]) + data[place + 1 :])
            try:
                promises.check_served(root, promises.BEFORE)
                promises.store_of(root, "vectors").prepare()
            except Unusable:
                assert json.loads(marker.read_bytes())["format"] > 1
                refused += 1
            else:
                assert json.loads(marker.read_bytes())["format"] == 1
            tally["bytes of records flipped"] += 1
    assert refused == 2  # the 1 became 3 or 9
    marker.write_bytes(data)
    promises.check_served(root, promises.BEFORE)


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO], ids=errno.errorcode.get)
def test_an_error_at_any_operation(root: Path, scale: float, tally: Counter[str], error: int) -> None:
    """It is raised as it is, and the rest of a run can follow."""
    count = crash.operations(promises.work, promises.copy_of(root, root.parent))
    for k in crash.spread(range(count), 2 * scale * count):
        copy = promises.copy_of(root, root.parent)
        with crash.standing(crash.Shim(crash.fails_at(k, error))), pytest.raises(OSError) as caught:
            promises.work(copy)
        assert caught.value.errno == error
        check_after_error(copy)
        tally[f"operations that failed with {errno.errorcode[error]}"] += 1
    assert count > 50


def test_an_fsync_that_failed_is_not_tried_again_and_nothing_is_published(root: Path, tally: Counter[str]) -> None:
    """Linux forgets what it could not write: the second fsync of that descriptor would succeed and mean nothing."""
    store = partial(promises.store_of, root, "vectors")
    for k in range(crash.operations(store().prepare), 1000):
        tried: list[tuple[int, str, tuple[object, ...]]] = []

        def fate(number: int, name: str, arguments: tuple[object, ...], k: int = k, tried: list = tried) -> None:
            tried.append((number, name, arguments))
            if number == k and name == "fsync":
                raise OSError(errno.EIO, os.strerror(errno.EIO))

        with crash.standing(crash.Shim(fate)) as shim:
            error = crash.error_of(promises.put, store(), "vectors", (100 + k,))
        if shim.count <= k:
            break
        if tried[k][1] != "fsync":
            continue
        assert error == errno.EIO
        after = [name for number, name, arguments in tried if number > k]
        assert "fsync" not in after
        assert "replace" not in after
        assert promises.temps(root) == []
        tally["fsyncs that failed"] += 1
    promises.check(root, promises.BEFORE)


@pytest.mark.parametrize("suffix", ["h5", "json"])
def test_a_limit_of_file_size_anywhere_in_a_shard_or_record(
    root: Path, scale: float, tally: Counter[str], suffix: str
) -> None:
    """EFBIG, after a write that was cut short; a record meets the limit where its shard is there already."""
    store = promises.store_of(promises.copy_of(root, root.parent), "vectors")
    name = promises.put(store, "vectors", (0, 1))
    most = (store.folder / "shards" / f"{name}.{suffix}").stat().st_size
    if suffix == "json":
        shutil.copy(store.folder / "shards" / f"{name}.h5", root / "features" / store.key / "shards")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    for limit in crash.spread(range(most), 0.5 * scale * most):
        copy = promises.copy_of(root, root.parent)
        store = promises.store_of(copy, "vectors")
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
        try:
            error = crash.error_of(promises.put, store, "vectors", (0, 1))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert error == errno.EFBIG
        assert promises.temps(copy) == []
        promises.check_served(copy, promises.BEFORE)
        tally["file size limits"] += 1
    check_after_error(copy)


@pytest.mark.parametrize("few", range(5))
def test_too_many_open_files(root: Path, few: int) -> None:
    """Nothing is taken for damaged because it could not be opened."""

    def work() -> None:
        lowest = os.dup(0)
        os.close(lowest)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + few, lowest + 1000))
        assert crash.error_of(promises.work, root) in (0, errno.EMFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + 1000, lowest + 1000))

    assert crash.wait(crash.fork(work)) == 0
    assert not (root / "quarantine").exists()
    check_after_error(root)


def test_a_tiny_disk(fast_path: Path, scale: float, tally: Counter[str]) -> None:
    """Disks from one page to more than the work needs. Where nobody lets us mount them, they are played."""
    sizes = [4096 * (1 + i // 4) for i in crash.spread(range(120), 120 * scale)]
    if mounted.may_mount(fast_path):
        met = mounted.start("tiny", fast_path, *map(str, sizes))
        tally["real disks that were full"] += met["full"]
    else:
        met = Counter()
        for number, size in enumerate(sizes):
            with crash.standing(crash.Shim(crash.full_after(size))):
                met[mounted.fill(fast_path / str(number), number % 4)] += 1
        tally["played disks that were full"] += met["full"]
    assert met["full"] > 0
    assert met["large enough"] > 0
    assert met.total() == len(sizes)


def as_reader(work: Callable[[], object]) -> int:
    """Exit code of `work` in a child that owns nothing here, and isn't root."""

    def child() -> None:
        if os.getuid() == 0:
            os.setgid(NOBODY)
            os.setuid(NOBODY)
        work()

    return crash.wait(crash.fork(child))


@pytest.mark.parametrize("state", ["whole", "with damage"])
def test_a_cache_that_may_only_be_read(fast_path: Path, state: str) -> None:
    """Hits are served, a damaged shard is passed over, and a put says that it cannot be."""
    root = fast_path / "cache"
    (promises.lay_out_damaged if state == "with damage" else promises.lay_out)(root)
    Cache(root, HashIndex()).put_named("manifests", b"kept", ".jsonl")
    for path in [root, *root.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    fast_path.chmod(0o755)

    def read() -> None:
        promises.check_served(root, promises.BEFORE)
        for kind in ("vectors", "maps"):
            with pytest.raises(Unwritable) as caught:
                promises.put(promises.store_of(root, kind), kind, (0,))
            assert caught.value.errno == errno.EACCES
        cache = Cache(root, HashIndex())
        cache.put_named("manifests", b"kept", ".jsonl")
        with pytest.raises(Unwritable):
            cache.put_named("manifests", promises.MANIFEST, ".jsonl")

    before = disk.read_tree(root)
    assert as_reader(read) == 0
    assert disk.read_tree(root) == before
    for path in root.rglob("*"):
        path.chmod(path.stat().st_mode | stat.S_IWUSR)
    root.chmod(0o755)


def test_a_cache_on_a_read_only_disk(fast_path: Path) -> None:
    """As root, whom no mode of a file stops."""
    promises.lay_out_damaged(fast_path)
    Cache(fast_path, HashIndex()).put_named("manifests", b"kept", ".jsonl")
    if mounted.may_mount(fast_path):
        met = mounted.start("readonly", fast_path)
        assert met in (Counter(EACCES=2), Counter(EACCES=1, EROFS=1), Counter(EROFS=2))
    promises.check(fast_path, promises.BEFORE)
