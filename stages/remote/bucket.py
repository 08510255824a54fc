"""Owns where a team's cache has what: names of objects, and which shards count. Not moving them (pull.py, push.py).

    v1/features/<key>/spec.json
    v1/features/<key>/shards/<sha256>.h5, .json    as in a cache; the record is written last
    v1/features/<key>/ids/<sha256>                 which images that shard has rows of
    v1/manifests/<digest>.jsonl
    v1/blobs/<sha256>                              a file of a base, for workers that share no file system

There is no index that all write to: one listing of a key says all. An ids object is a hint, to choose what is pulled:
the SHA-256 of what follows, and the first 8 bytes of each id. Rows count by the ids in the shard itself.
"""

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from cache import keys
from stages.buckets.object_store import Listed, ObjectStore

ROOT = "v1"
_HEAD, _HINT = 32, 8


class Parts(NamedTuple):
    """The objects of a shard: rows, ids and record."""

    rows: str
    ids: str
    record: str


class Kept(NamedTuple):
    """A shard that counts: bytes of its three objects, and when its record was written."""

    rows_bytes: int
    ids_bytes: int
    record_bytes: int
    written: float

    @property
    def bytes(self) -> int:
        return self.rows_bytes + self.ids_bytes + self.record_bytes

    @property
    def rows(self) -> int:
        return max(0, self.ids_bytes - _HEAD) // _HINT

    def is_like(self, rows_bytes: int, rows: int) -> bool:
        """Whether its objects have the sizes that a shard of so many bytes and rows gives."""
        return self.rows_bytes == rows_bytes and self.ids_bytes == _HEAD + _HINT * rows


@dataclass(frozen=True)
class Contents:
    """What the store has of a key: shards that count, and objects of those that lack a part, by the shard's name."""

    whole: dict[str, Kept]
    torn: dict[str, list[Listed]]
    spec: Listed | None


def spec_name(key: str) -> str:
    return f"{_folder(key)}/spec.json"


def manifest_name(digest: str) -> str:
    return f"{ROOT}/manifests/{digest}.jsonl"


def parts_of(key: str, shard: str) -> Parts:
    folder = _folder(key)
    return Parts(f"{folder}/shards/{shard}.h5", f"{folder}/ids/{shard}", f"{folder}/shards/{shard}.json")


def list_key(remote: ObjectStore, key: str) -> Contents:
    """What the store has of a key, by one listing."""
    return _sort_objects(key, list(remote.list(_folder(key))))


def list_keys(remote: ObjectStore) -> dict[str, Contents]:
    """The same of all keys."""
    found: dict[str, list[Listed]] = defaultdict(list)
    for listed in remote.list(f"{ROOT}/features"):
        _, _, key, *rest = listed.name.split("/")
        if keys.is_digest(key) and rest:
            found[key].append(listed)
    return {key: _sort_objects(key, objects) for key, objects in sorted(found.items())}


def list_manifests(remote: ObjectStore) -> dict[str, Listed]:
    """Digest -> object of each manifest."""
    found = {listed.name.split("/")[-1].removesuffix(".jsonl"): listed for listed in remote.list(f"{ROOT}/manifests")}
    return {digest: listed for digest, listed in found.items() if keys.is_digest(digest)}


def blob_name(digest: str) -> str:
    return f"{ROOT}/blobs/{digest}"


def list_blobs(remote: ObjectStore) -> dict[str, Listed]:
    """Digest -> object of each file of a base."""
    found = {listed.name.split("/")[-1]: listed for listed in remote.list(f"{ROOT}/blobs")}
    return {digest: listed for digest, listed in found.items() if keys.is_digest(digest)}


def hint_of(ids: Sequence[str]) -> bytes:
    """The ids object of a shard with the rows of those images, SHA-256 in hex."""
    body = bytes.fromhex("".join(image[: 2 * _HINT] for image in ids))
    return hashlib.sha256(body).digest() + body


def read_hint(data: bytes) -> np.ndarray:
    """What `short_ids` gives for the images that the shard has rows of. Raises ValueError where it is damaged."""
    body = data[_HEAD:]
    if not body or len(body) % _HINT or hashlib.sha256(body).digest() != data[:_HEAD]:
        raise ValueError("it is not as it was written")
    return np.frombuffer(body, ">u8").astype(np.uint64)


def short_ids(ids: Sequence[str]) -> np.ndarray:
    """The first 8 bytes of each id, as numbers: uint64 (n,)."""
    return np.array([int(image[: 2 * _HINT], 16) for image in ids], np.uint64)


def _folder(key: str) -> str:
    return f"{ROOT}/features/{key}"


def _sort_objects(key: str, objects: Sequence[Listed]) -> Contents:
    by_name = {listed.name: listed for listed in objects}
    shards = {listed.name.split("/")[-1].removesuffix(".h5").removesuffix(".json") for listed in objects}
    whole, torn = {}, {}
    for shard in sorted(filter(keys.is_digest, shards)):
        parts = parts_of(key, shard)
        there = [by_name[name] for name in parts if name in by_name]
        if len(there) == len(parts):
            rows, ids, record = there
            whole[shard] = Kept(rows.size, ids.size, record.size, record.written)
        else:
            torn[shard] = there
    return Contents(whole, torn, by_name.get(spec_name(key)))
