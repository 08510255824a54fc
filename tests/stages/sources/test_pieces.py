"""pieces.py: neighbours in a tar come by one request, and what is held is let go."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import closing

import pytest

from cache.hash_index import HashIndex
from stages.bases import catalogue
from stages.bases.recipe import Recipe
from stages.buckets.object_store import Denied
from stages.data.images import PixelSpec
from stages.extract import prefetch
from stages.sources import blobs, pieces
from stages.sources.source import Source
from tests.support import bucket_server
from tests.support.archives import samples, tar_of, two_labels
from tests.support.bucket_server import BucketServer

IMAGES = two_labels(20)
RECIPE = Recipe.of(catalogue.get_base("efficientnet_lite0"), "0" * 64, PixelSpec(32, 32), "f32", "float32")


@pytest.fixture(scope="module")
def server() -> Iterator[BucketServer]:
    with bucket_server.running() as running:
        running.put_files({"p/0.tar": tar_of(samples(IMAGES[:25])), "p/1.tar": tar_of(samples(IMAGES[25:]))})
        yield running


@pytest.fixture
def rows(server: BucketServer, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, list[str]]]:
    bucket_server.use(server, monkeypatch)
    members = Source("s3://team/p", index=HashIndex()).list().members.values()
    server.requests.clear()
    return [(member.sha256 or "", [member.place]) for member in members]


def read(rows: list[tuple[str, list[str]]]) -> int:
    with closing(prefetch.read_ahead(rows, [RECIPE], [])) as ahead:
        return sum(len(future.result()) for _, future in ahead)


def test_neighbours_come_by_one_request(rows: list[tuple[str, list[str]]], server: BucketServer) -> None:
    assert read(rows) == len(rows) == 40
    assert sorted(server.requests) == [("GET", "p/0.tar"), ("GET", "p/1.tar")]
    assert blobs._in_flight._held == 0


def test_pieces_are_no_larger_than_they_may_be(
    rows: list[tuple[str, list[str]]], server: BucketServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pieces, "PIECE_BYTES", 10_000)
    assert read(rows) == 40
    assert 10 < len(server.requests) < 20
    assert blobs._in_flight._held == 0


def test_each_image_has_its_own_bytes_in_any_order_and_more_than_once(rows: list[tuple[str, list[str]]]) -> None:
    order = [*rows[::-1], *rows[3:6], rows[3]]
    held = pieces.Pieces([paths[0] for _, paths in order])
    for image, paths in order:
        with held.reading(paths[0]) as one:
            assert hashlib.sha256(one.data).hexdigest() == image
    assert blobs._in_flight._held == 0


def test_a_task_that_stops_lets_go(rows: list[tuple[str, list[str]]]) -> None:
    with closing(prefetch.read_ahead(rows, [RECIPE], [])) as ahead:
        next(ahead)
    assert blobs._in_flight._held == 0


def test_a_denial_midway_ends_the_task_and_lets_go(
    rows: list[tuple[str, list[str]]], server: BucketServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pieces, "PIECE_BYTES", 10_000)
    server.fail = lambda method, name: "expired" if len(server.requests) > 3 else None
    with pytest.raises(Denied, match="expired"):
        read(rows)
    assert blobs._in_flight._held == 0


def test_other_bytes_than_were_listed_are_rejects(rows: list[tuple[str, list[str]]], server: BucketServer) -> None:
    """As of a tar that was written anew in between."""
    server.put_files({"p/1.tar": tar_of(samples(two_labels(8, 900)))})
    with closing(prefetch.read_ahead(rows, [RECIPE], [])) as ahead:
        outcomes = [type(future.exception()).__name__ for _, future in ahead]
    assert outcomes == ["NoneType"] * 25 + ["ImageRejected"] * 15
    server.put_files({"p/1.tar": tar_of(samples(IMAGES[25:]))})
