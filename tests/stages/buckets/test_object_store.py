"""object_store.py against moto's S3 server: what is listed, read and written, and one sentence for each refusal."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cache.errors import NotAvailable, PipelineError, Unusable
from stages.buckets import object_store
from stages.buckets.object_store import Absent, Denied, ObjectStore, Unreachable
from tests.support import bucket_server
from tests.support.bucket_server import KEY, SECRET, TOKEN, BucketServer


@pytest.fixture(scope="module")
def server() -> Iterator[BucketServer]:
    with bucket_server.running() as running:
        yield running


@pytest.fixture
def remote(server: BucketServer, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> ObjectStore:
    bucket_server.use(server, monkeypatch)
    return ObjectStore(f"s3://team/{request.node.name.replace('[', '-').replace(']', '')}")


def test_what_was_written_is_listed_and_read(remote: ObjectStore) -> None:
    remote.put("v1/a/1", b"one")
    remote.put("v1/a/2", b"")
    remote.put("v1/ab/3", b"three")
    assert {(o.name, o.size) for o in remote.list("v1/a")} == {("v1/a/1", 3), ("v1/a/2", 0)}
    assert remote.get("v1/a/1", 3) == b"one"
    remote.delete(["v1/a/1", "v1/a/never"])
    assert [o.name for o in remote.list("v1/a")] == ["v1/a/2"]
    with pytest.raises(Absent):
        remote.get("v1/a/1", 3)


def test_a_listing_goes_over_pages(remote: ObjectStore, server: BucketServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(object_store, "_TIMEOUTS", {})  # moto takes a while for a page
    remote = ObjectStore(remote.url)
    server.put_at_once(f"test_a_listing_goes_over_pages/v1/n/{number}" for number in range(1003))
    assert len({o.name for o in remote.list("v1/n")}) == 1003
    assert len(server.requests) == 2


def test_an_object_that_is_too_large_is_not_read(remote: ObjectStore) -> None:
    remote.put("v1/large", b"x" * 100)
    with pytest.raises(ValueError, match="100 bytes; at most 99"):
        remote.get("v1/large", 99)


@pytest.mark.parametrize("fault", ["403", "expired"])
@pytest.mark.parametrize("what", ["list", "get", "put", "delete"])
def test_a_denial_is_no_miss(remote: ObjectStore, server: BucketServer, fault: str, what: str) -> None:
    server.fail = lambda method, name: fault
    with pytest.raises(Denied, match=r"refuses to (list|give|take|remove)") as refused:
        _do(remote, what)
    said = "expired" if fault == "expired" else "HTTP 403"
    assert said in refused.value.message
    assert len(server.requests) == 1  # asking again does not help


@pytest.mark.parametrize(
    ("fault", "said"),
    [("429", "too many requests"), ("500", "HTTP 500"), ("reset", "connection fails")],
)
@pytest.mark.parametrize("what", ["list", "get", "put"])
def test_a_failure_is_no_miss_either(
    remote: ObjectStore, server: BucketServer, fault: str, said: str, what: str
) -> None:
    server.fail = lambda method, name: fault
    with pytest.raises(Unreachable, match=said):
        _do(remote, what)


def test_a_store_that_does_not_answer_is_given_up(remote: ObjectStore, server: BucketServer) -> None:
    server.fail = lambda method, name: "slow"
    with pytest.raises(Unreachable, match="no answer in time"):
        remote.get("v1/x", 100)


@pytest.mark.parametrize("fault", ["429", "500", "reset", "slow", "truncated"])
def test_a_failure_that_passes_is_not_noticed(remote: ObjectStore, server: BucketServer, fault: str) -> None:
    remote.put("v1/x", b"content" * 1000)
    server.fail = fail_once(fault)
    assert remote.get("v1/x", 10_000) == b"content" * 1000


def test_an_answer_that_ends_early_is_no_content(remote: ObjectStore, server: BucketServer) -> None:
    remote.put("v1/x", b"content" * 1000)
    server.fail = lambda method, name: "truncated"
    with pytest.raises(Unreachable, match="does not give v1/x"):
        remote.get("v1/x", 10_000)


def test_a_put_that_left_nothing_is_told(remote: ObjectStore, server: BucketServer) -> None:
    """As a proxy that says yes to what it drops."""
    server.fail = lambda method, name: "404" if method == "HEAD" else None
    with pytest.raises(Unreachable, match="the object is gone"):
        remote.put("v1/x", b"content")


def test_a_bucket_that_is_not_there_is_no_empty_one(server: BucketServer, remote: ObjectStore) -> None:
    with pytest.raises(Unreachable, match="there is no such bucket"):
        list(ObjectStore("s3://nobody-s-bucket/x").list("v1"))
    with pytest.raises(NotAvailable, match="file:///nobody/s is not there"):
        ObjectStore("file:///nobody/s")


@pytest.mark.parametrize("fault", ["403", "404", "429", "500", "expired", "reset", "truncated"])
@pytest.mark.parametrize("what", ["list", "get", "put", "delete"])
def test_no_error_tells_a_secret(remote: ObjectStore, server: BucketServer, fault: str, what: str) -> None:
    server.fail = lambda method, name: fault
    try:
        _do(remote, what)
    except (PipelineError, Absent) as error:
        told = f"{error} {error!r} {getattr(error, 'hint', '')} {_chain(error)}"
        assert not [secret for secret in (SECRET, TOKEN, KEY, "Signature") if secret in told]


@pytest.mark.parametrize("url", ["az://container/x", "file:///nobody/s"])
def test_a_store_that_cannot_be_opened_tells_no_secret(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "team")
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", "no-base64")
    with pytest.raises((Unusable, NotAvailable)) as refused:
        ObjectStore(url)
    assert (refused.value.__cause__, refused.value.__context__) == (None, None)  # which are the library's own words


def test_without_obstore_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "obstore", None)
    with pytest.raises(Unusable, match="needs obstore") as refused:
        ObjectStore("s3://team/x")
    assert refused.value.hint == "pip install 'frozenbase[s3]'"


def test_a_folder_is_made_only_to_write(tmp_path: Path) -> None:
    with pytest.raises(NotAvailable):
        ObjectStore(f"file://{tmp_path}/new")
    ObjectStore(f"file://{tmp_path}/new", make_folder=True)
    assert (tmp_path / "new").is_dir()


def fail_once(fault: str) -> bucket_server.Fail:
    left = [fault]
    return lambda method, name: left.pop() if left else None


def _do(remote: ObjectStore, what: str) -> None:
    if what == "list":
        list(remote.list("v1"))
    elif what == "get":
        remote.get("v1/x", 100)
    elif what == "put":
        remote.put("v1/x", b"content")
    else:
        remote.delete(["v1/x"])


def _chain(error: BaseException | None) -> str:
    """All that a traceback would show."""
    return "" if error is None else f"{error!r} {_chain(error.__cause__)} {_chain(error.__context__)}"
