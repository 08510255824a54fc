"""Owns talking to an object store: S3, GCS, Azure or a folder, all by `obstore`. Not what the objects are.

Credentials come from the environment, as that library reads them. Its own messages can hold requests, signatures and
what a server says, so none of their text goes on: only the status, and the codes that are known here.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urlsplit

from cache.errors import NotAvailable, Unusable

T = TypeVar("T")

_RETRIES: dict[str, Any] = {"max_retries": 6, "retry_timeout": timedelta(seconds=60)}
"""Of requests that fail by 429, 5xx, or the connection; the library waits between them, ever longer."""

_TIMEOUTS = {"connect_timeout": timedelta(seconds=10), "timeout": timedelta(minutes=10)}
"""The second is for a whole request: 32 MB at half a megabit a second."""

_READ_TIMEOUT = timedelta(seconds=60)
"""Without a byte."""

_EXPIRED = ("ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "RequestExpired")
_DENIED = ("AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "AuthenticationFailed")
_CREDENTIAL_HOSTS = ("169.254.169.254", "169.254.170.2", "metadata.google.internal")
_ENVIRONMENT = {"s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY", "gs": "GOOGLE_APPLICATION_CREDENTIALS",
                "az": "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY"}  # fmt: skip
_ALLOW_HTTP = {"s3": "AWS_ALLOW_HTTP", "gs": "GOOGLE_ALLOW_HTTP", "az": "AZURE_ALLOW_HTTP"}


WITHOUT_CACHE = "; a run goes on without it by --offline"


class Denied(NotAvailable):
    """The store refuses a request: no right to it, or credentials that are absent, wrong or expired."""


class Unreachable(NotAvailable):
    """The store gives no answer that can be used, after some tries: network, throttling, errors of its own."""


class Absent(Exception):
    """There is no such object."""


class Listed(NamedTuple):
    """An object: its name below the URL, bytes, and when it was written, in s since the epoch by the store's clock.

    version: another text for other bytes: the ETag, or what the store has instead, and the size.
    """

    name: str
    size: int
    written: float
    version: str = ""


class Got(NamedTuple):
    """Bytes of an object, and its `Listed.version` when they were read."""

    data: bytes
    version: str


class ObjectStore:
    """The objects below a URL. Its methods can be called from several threads.

    They raise Denied and Unreachable; `get`, `read` and `head` also Absent.
    """

    def __init__(self, url: str, make_folder: bool = False, without: str = WITHOUT_CACHE) -> None:
        """`url` is what `address.check_url` takes. make_folder: of a file:// URL, make it if it is not there.

        without: the end of hints: how to go on without it, where that is possible.

        Raises Unusable without obstore, or where the URL or the environment is not as it needs.
        """
        self.url, self._scheme, self._without = url, urlsplit(url).scheme, without
        self._client = _import_client()
        options: dict[str, Any] = {"mkdir": True} if make_folder else {}
        if self._scheme != "file":
            http = os.environ.get(_ALLOW_HTTP[self._scheme], "").lower() in ("1", "true", "yes", "on")
            options = {
                "client_options": {**_TIMEOUTS, "read_timeout": _READ_TIMEOUT, "allow_http": http},
                "retry_config": _RETRIES,
            }
        failed = False
        try:
            self._store = self._client.store.from_url(url, **options)
        except (self._client.exceptions.BaseError, ValueError, OSError):
            failed = True
        if failed:  # outside of the except clause, as in _ask
            if self._scheme == "file":
                raise NotAvailable(f"{url} is not there, or is no folder", "make it, or correct the URL")
            hint = f"set {_ENVIRONMENT[self._scheme]}"
            raise Unusable(f"{url} cannot be opened with the credentials in the environment", hint)

    def list(self, folder: str) -> Iterator[Listed]:
        """The objects whose names begin with `folder` and a slash, page by page, in no order."""

        def pages() -> list[Listed]:
            found = self._client.list(self._store, folder)
            return [_listed(meta) for page in found for meta in page]

        yield from self._ask(pages, f"list {folder or 'what is there'}")

    def get(self, name: str, most: int) -> bytes:
        """The bytes of an object. Raises ValueError, before they are read, where there are more than `most`."""

        def read() -> bytes:
            found = self._client.get(self._store, name)
            if found.meta["size"] > most:
                raise ValueError(f"it has {found.meta['size']:,} bytes; at most {most:,} are expected")
            return bytes(found.bytes())

        return self._ask(read, f"give {name}")

    def head(self, name: str) -> Listed:
        """An object, without its bytes."""
        return self._ask(lambda: _listed(self._client.head(self._store, name)), f"give {name}")

    def read(
        self, name: str, start: int = 0, size: int | None = None, on_size: Callable[[int], object] = lambda n: None
    ) -> Got:
        """`size` bytes of an object from `start` on, fewer where it ends before; by default all.

        on_size: called with their number before they are read; what it raises is raised.
        """
        part = {} if size is None else {"range": (start, start + size)}

        def read() -> Got:
            found = self._client.get(self._store, name, options=part)
            first, end = found.range
            on_size(end - first)
            return Got(bytes(found.bytes()), _listed(found.meta).version)

        return self._ask(read, f"give {name}")

    def put(self, name: str, data: bytes) -> None:
        """Write an object, and ask whether it is there: stores have said so of what was not (dvc#10448)."""

        def write() -> int:
            self._client.put(self._store, name, data)
            return int(self._client.head(self._store, name)["size"])

        try:
            size = self._ask(write, f"take {name}")
        except Absent as error:
            gone = "there is no such bucket, or the object is gone (HTTP 404)"
            raise Unreachable(*self._explain(f"take {name}", gone)) from error
        if size != len(data):
            raise Unreachable(*self._explain(f"take {name}", f"it has {size:,} of {len(data):,} bytes"))

    def delete(self, names: Sequence[str]) -> None:
        """Remove objects; absent ones are none the less gone."""
        try:
            self._ask(lambda: self._client.delete(self._store, list(names)), f"remove {len(names)} objects")
        except Absent:
            return

    def _ask(self, request: Callable[[], T], what: str) -> T:
        """Raises Denied, Unreachable or Absent for the library's errors, whose text is dropped with them."""
        errors = self._client.exceptions
        failure: NotAvailable | Absent
        try:
            return request()
        except FileNotFoundError:
            failure = Absent("it is not there")
        except (errors.PermissionDeniedError, errors.UnauthenticatedError, PermissionError) as error:
            failure = self._denied(what, str(error))
        except (errors.BaseError, OSError) as error:
            text = str(error)
            code, status = _code(text), _status(text)
            if code in _EXPIRED + _DENIED or status in (401, 403) or any(host in text for host in _CREDENTIAL_HOSTS):
                failure = self._denied(what, text)
            else:
                failure = Unreachable(*self._explain(what, _reason(text, code, status)))
        raise failure  # outside of the except clause: not even a traceback shows the library's error

    def _denied(self, what: str, text: str) -> Denied:
        code, status = _code(text), _status(text)
        message = f"{self.url} refuses to {what}"
        if any(host in text for host in _CREDENTIAL_HOSTS):
            return Denied(f"{message}: there are no credentials", f"set {_ENVIRONMENT.get(self._scheme, 'them')}")
        if code in _EXPIRED:
            return Denied(f"{message}: the credentials have expired ({code})", "get new ones, and run this again")
        known = code if code in _DENIED else ""
        why = ", ".join(filter(None, (f"HTTP {status}" if status else "", known))) or "no permission"
        return Denied(
            f"{message} ({why}): a denial says nothing of what is there",
            f"check the credentials and their rights{self._without}",
        )

    def _explain(self, what: str, reason: str) -> tuple[str, str]:
        return (
            f"{self.url} does not {what}: {reason}",
            f"check the network and the URL, and run this again{self._without}",
        )


def _import_client() -> Any:
    try:
        import obstore
        import obstore.exceptions
        import obstore.store
    except ImportError as error:
        hint = "pip install 'frozenbase[s3]'"
        raise Unusable("an object store (s3://, gs://, az://, file://) needs obstore", hint) from error
    return obstore


def _listed(meta: Any) -> Listed:
    written = meta["last_modified"].timestamp()
    version = meta["version"] or meta["e_tag"] or repr(written)
    return Listed(meta["path"], meta["size"], written, f"{version} {meta['size']}")


def _status(text: str) -> int | None:
    found = re.search(r"status code: (\d{3})\b", text)
    return int(found[1]) if found else None


def _code(text: str) -> str:
    found = re.search(r"<Code>(\w{1,40})</Code>", text)
    return found[1] if found else ""


def _reason(text: str, code: str, status: int | None) -> str:
    """Of an error that is no denial; no word of the text is taken over but codes that S3 documents."""
    if code == "NoSuchBucket":
        return "there is no such bucket (HTTP 404)"
    if status == 429 or code == "SlowDown":
        return f"too many requests (HTTP {status})"
    if status:
        return f"HTTP {status}"
    if "invalid path" in text:
        return "an object's name has an empty part, . or .. between its slashes, which the client cannot read"
    if "body error" in text or "end of file" in text:
        return "the answer ends early"
    return "no answer in time" if "TimedOut" in text or "timed out" in text else "the connection fails"
