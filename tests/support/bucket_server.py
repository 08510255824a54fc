"""An S3 server on 127.0.0.1, which is moto's, with faults in front of it; and tiny shards to send there."""

from __future__ import annotations

import logging
import re
import socket
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cache.hash_index import HashIndex
from cache.store import Cache, FeatureStore
from stages.buckets.object_store import ObjectStore
from stages.remote.push import Pushed, Pusher
from stages.sources import blobs

BUCKET = "team"
KEY, SECRET, TOKEN = "AKIASENTINELKEY00001", "sentinel/secret+key/0123456789", "sentinel-session-token"
STATUSES = {
    "403": (403, "AccessDenied"), "404": (404, "NoSuchKey"), "429": (429, "TooManyRequests"),
    "500": (500, "InternalError"), "expired": (400, "ExpiredToken"),
}  # fmt: skip

Fail = Callable[[str, str], str | None]
"""(method, object or "" for a listing) -> what goes wrong: a key of STATUSES, reset, truncated, swapped or slow."""


class BucketServer:
    """Its bucket is `team`. fail: asked before each request. requests: (method, object), in order."""

    def __init__(self) -> None:
        from moto.server import DomainDispatcherApplication, create_backend_app
        from werkzeug.serving import make_server

        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        self._moto = DomainDispatcherApplication(create_backend_app)
        self.fail: Fail = lambda method, name: None
        self.requests: list[tuple[str, str]] = []
        self._over = threading.Event()
        self._server = make_server("127.0.0.1", 0, self._answer, threaded=True)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()
        _put_bucket(self._server.server_port)

    @property
    def environment(self) -> dict[str, str]:
        return {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self._server.server_port}",
            "AWS_ALLOW_HTTP": "true",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_SESSION_TOKEN": TOKEN,
        }

    def put_at_once(self, names: Iterable[str]) -> None:
        """Empty objects, without a request."""
        self.put_files(dict.fromkeys(names, b""))

    def put_files(self, files: Mapping[str, bytes]) -> None:
        """Objects with those bytes, without a request."""
        from moto.s3.models import s3_backends

        for name, data in files.items():
            s3_backends["123456789012"]["aws"].put_object(BUCKET, name, data)

    def close(self) -> None:
        self._over.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _answer(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        method, name = environ["REQUEST_METHOD"], environ["PATH_INFO"].removeprefix(f"/{BUCKET}").lstrip("/")
        self.requests.append((method, name))
        fault = self.fail(method, name)
        if fault in STATUSES:
            status, code = STATUSES[fault]
            start(f"{status} no", [("Content-Type", "application/xml")])
            return [f"<Error><Code>{code}</Code><Message>{SECRET}</Message></Error>".encode()]
        if fault == "slow":
            self._over.wait(2)
        elif fault == "reset":
            environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
            raise ConnectionError("reset")
        elif fault in ("truncated", "swapped"):
            return self._spoil(fault, environ, start)
        return self._moto(environ, start)  # type: ignore[no-any-return]

    def _spoil(self, fault: str, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        """Half of the answer's body, and then no connection; or another body of the same length."""
        body = b"".join(self._moto(environ, start))
        if fault == "swapped":
            yield body[:-1] + bytes([body[-1] ^ 1]) if body else body
            return
        yield body[: len(body) // 2]
        environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)


def _put_bucket(port: int) -> None:
    import http.client

    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.request("PUT", f"/{BUCKET}", headers={"Authorization": "AWS4-HMAC-SHA256 Credential=a/b/us-east-1/s3/c"})
    assert connection.getresponse().status == 200
    connection.close()


@contextmanager
def running() -> Iterator[BucketServer]:
    server = BucketServer()
    try:
        yield server
    finally:
        server.close()


def use(server: BucketServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have this process speak to that server, which fails nothing and has seen nothing, with few tries."""
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    be_impatient(monkeypatch)
    blobs._open_store.cache_clear()
    server.fail = lambda method, name: None
    server.requests.clear()


def be_impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two tries, with a millisecond between them, and a second for each."""
    from stages.buckets import object_store

    short = timedelta(milliseconds=1)
    backoff = {"init_backoff": short, "max_backoff": short, "base": 2}
    monkeypatch.setattr(object_store, "_RETRIES", {"max_retries": 1, "retry_timeout": timedelta(5), "backoff": backoff})
    monkeypatch.setattr(object_store, "_TIMEOUTS", {"timeout": timedelta(seconds=1)})


def fill(store: FeatureStore, shards: int, rows: int = 4, first: int = 0) -> list[str]:
    """Put `shards` shards of `rows` rows, of images with those numbers from `first` on; their ids, in order."""
    rng, ids = np.random.default_rng(first), []
    for number in range(shards):
        some = [f"{first + rows * number + i:x}".rjust(16, "a").ljust(64, "0") for i in range(rows)]
        about = {"engine": "fake", "device": "none", "versions": {}, "seconds": 0.1}
        store.put(some, rng.normal(size=(rows, 8)).astype(np.float32), about)
        ids += some
    return ids


def push_all(remote: ObjectStore, store: FeatureStore) -> Pushed:
    """All shards of the store."""
    done = Pushed()
    pusher = Pusher(remote, done)
    for name in store.names():
        pusher.push(store, name)
    return done


def new_store(root: Path, base: str = "net") -> FeatureStore:
    return Cache(root, HashIndex()).features({"schema": 1, "base": base, "dtype": "float32"})


def object_kind(name: str) -> str:
    """rows, record, ids, spec, manifest or listing."""
    kinds = {r"\.h5$": "rows", r"spec\.json$": "spec", r"\.json$": "record", "/ids/": "ids", r"\.jsonl$": "manifest"}
    return next((kind for pattern, kind in kinds.items() if re.search(pattern, name)), "listing")
