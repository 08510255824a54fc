"""A model hub on 127.0.0.1 that speaks the protocol of huggingface_hub's client, and fails where it is told to.

Files of git are sent by the hub itself; those of LFS (models and their data) by a second host, localhost, to which it
redirects. No Xet storage is announced, so the client uses plain HTTP.
"""

from __future__ import annotations

import hashlib
import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import unquote, urlsplit

REPO = "owner/net"
_IN_GIT = (".json", ".md")


def commit_of(files: dict[str, bytes]) -> str:
    return hashlib.sha1(repr(sorted(files.items())).encode()).hexdigest()


class Hub(http.server.ThreadingHTTPServer):
    """One repository, owner/net. Tests set what is public.

    status: "api", "resolve" or "cdn" -> what that part answers instead: a status, and headers. cuts: of the next
    answers of the cdn, how many bytes are sent before the connection is closed. swapped: path -> bytes that are sent in
    place of the file's. token: without it there is nothing to see. silent: nothing is answered. requests: "GET /path",
    in order; ranges: the header Range of each request to the cdn.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.commits: dict[str, dict[str, bytes]] = {}
        self.branches: dict[str, str] = {}
        self.card: dict[str, Any] | None = {"license": "apache-2.0"}
        self.status: dict[str, tuple[int, dict[str, str]]] = {}
        self.cuts: list[int] = []
        self.swapped: dict[str, bytes] = {}
        self.token = ""
        self.silent = False
        self.over = threading.Event()
        self.requests: list[str] = []
        self.ranges: list[str | None] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def push(self, files: dict[str, bytes], branch: str = "main") -> str:
        """Commit files as all there is in that branch."""
        commit = commit_of(files)
        self.commits[commit], self.branches[branch] = files, commit
        return commit


@contextmanager
def running() -> Iterator[Hub]:
    with Hub() as hub:
        thread = threading.Thread(target=hub.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield hub
        finally:
            hub.over.set()
            hub.shutdown()
            thread.join()


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        hub = self.server
        hub.requests.append(f"{self.command} {path}")
        part = "api" if path.startswith("/api/") else "cdn" if path.startswith("/cdn/") else "resolve"
        if hub.silent:
            hub.over.wait(30)
            self.close_connection = True
        elif part in hub.status:
            self._send(*hub.status[part])
        elif part == "cdn":
            assert "Authorization" not in self.headers, "the token must not leave the hub"
            self._send_content(*path.removeprefix("/cdn/").split("/", 1))
        elif hub.token and self.headers["Authorization"] != f"Bearer {hub.token}":
            self._send(401, {"X-Error-Message": "Invalid username or password."})
        elif part == "api":
            self._send_listing(path)
        else:
            self._send_file(path)

    def _send_listing(self, path: str) -> None:
        repo, _, revision = path.removeprefix("/api/models/").partition("/revision/")
        commit = self._commit(revision or "main")
        if repo != REPO:
            self._send(404, {"X-Error-Code": "RepoNotFound"})
        elif commit is None:
            self._send(404, {"X-Error-Code": "RevisionNotFound"})
        else:
            siblings = [_sibling(name, data) for name, data in self.server.commits[commit].items()]
            info = {"id": REPO, "sha": commit, "siblings": siblings, "cardData": self.server.card}
            self._send(200, {"Content-Type": "application/json"}, json.dumps(info).encode())

    def _send_file(self, path: str) -> None:
        repo, _, rest = path[1:].partition("/resolve/")
        revision, _, name = rest.partition("/")
        commit = self._commit(revision)
        if repo != REPO or commit is None:
            self._send(404, {"X-Error-Code": "RepoNotFound" if repo != REPO else "RevisionNotFound"})
            return
        data = self.server.commits[commit].get(name)
        common = {"X-Repo-Commit": commit}
        if data is None:
            self._send(404, {"X-Error-Code": "EntryNotFound", **common})
        elif name.endswith(_IN_GIT):
            self._send(200, {"ETag": f'"{_blob(data)}"', **common}, self.server.swapped.get(name, data))
        else:
            sha256 = hashlib.sha256(data).hexdigest()
            linked = {"X-Linked-Etag": f'"{sha256}"', "X-Linked-Size": str(len(data))}
            there = f"http://localhost:{self.server.server_port}/cdn/{commit}/{name}"
            self._send(302, {"Location": there, "ETag": f'"{sha256}"', **linked, **common})

    def _send_content(self, commit: str, name: str) -> None:
        data = self.server.swapped.get(name, self.server.commits[commit][name])
        self.server.ranges.append(self.headers["Range"])
        start = int((self.headers["Range"] or "bytes=0-").removeprefix("bytes=").removesuffix("-"))
        headers = {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"} if start else {}
        cut = self.server.cuts.pop(0) if self.server.cuts else None
        self._send(206 if start else 200, headers, data[start:], cut)

    def _commit(self, revision: str) -> str | None:
        commit = self.server.branches.get(revision, revision)
        return commit if commit in self.server.commits else None

    def _send(self, status: int, headers: dict[str, str], body: bytes = b"", cut: int | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body[:cut])
            self.close_connection = self.close_connection or cut is not None

    def log_message(self, *words: Any) -> None:
        pass


def _blob(data: bytes) -> str:
    """The name that git gives to a file's content."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def _sibling(name: str, data: bytes) -> dict[str, Any]:
    facts: dict[str, Any] = {"rfilename": name, "size": len(data), "blobId": _blob(data)}
    if not name.endswith(_IN_GIT):
        facts["lfs"] = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest(), "pointerSize": 134}
    return facts
