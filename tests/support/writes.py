"""Who changes the disk: by Python's audit hook, with the module that did it; by inotify, whoever did it, C++ too.

python -m tests.support.writes LOG runs the commands that stdin lists, one JSON array a line, in one process.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import struct
import sys
import threading
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, NamedTuple, Self

from tests.support import REPOSITORY, launch

_WRITE = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_PATHS = {
    "os.rename": (0, 1), "os.link": (1,), "os.symlink": (1,), "os.remove": (0,), "os.mkdir": (0,), "os.rmdir": (0,),
    "os.truncate": (0,), "os.chmod": (0,), "os.chown": (0,), "os.utime": (0,), "os.setxattr": (0,),
    "sqlite3.connect": (0,),
}  # fmt: skip
"""Audit events that change the disk, and which of their arguments are paths. `open` is another matter."""
_FOLDERS = {"os.rename": {0: 2, 1: 3}, "os.link": {1: 3}, "os.remove": {0: 1}, "os.mkdir": {0: 2}, "os.rmdir": {0: 1}}
"""Where a path may be relative to an open folder: which argument that is."""
_ROOT = f"{REPOSITORY}{os.sep}"
_OURS = tuple(f"{_ROOT}{package}{os.sep}" for package in ("cache", "stages", "pipeline"))


class Write(NamedTuple):
    """A change: the innermost module of ours that led to it, its function, and the path. Neither where none did."""

    module: str
    function: str
    path: str


def watch_python(log: Path) -> None:
    """From now on, note all changes that Python makes in this process."""
    file = open(log, "a", buffering=1)  # noqa: SIM115 (it must outlive this function)

    def note(event: str, arguments: tuple[Any, ...]) -> None:
        paths = []
        if event == "open":
            path, _, flags = arguments
            paths = [path] if flags & _WRITE and not isinstance(path, int) else []
        elif event in _PATHS:
            for number in _PATHS[event]:
                folder = arguments[_FOLDERS[event][number]] if number in _FOLDERS.get(event, {}) else -1
                paths.append(_place(arguments[number], folder))
        for path in (path for path in paths if path != ":memory:"):
            module, function = _caller(sys._getframe(1))
            file.write(json.dumps([module, function, os.path.abspath(os.fsdecode(path))]) + "\n")

    sys.addaudithook(note)


def _place(path: Any, folder: int) -> Any:
    if isinstance(path, int):
        return os.readlink(f"/proc/self/fd/{path}")
    return path if folder < 0 else os.path.join(os.readlink(f"/proc/self/fd/{folder}"), os.fsdecode(path))


def _caller(frame: FrameType | None) -> tuple[str, str]:
    while frame is not None:
        if frame.f_code.co_filename.startswith(_OURS):
            return frame.f_code.co_filename.removeprefix(_ROOT), frame.f_code.co_name
        frame = frame.f_back
    return "", ""


def read(log: Path) -> list[Write]:
    return [Write(*json.loads(line)) for line in log.read_text().splitlines()]


class FolderWatch:
    """While it lasts, notes each path under `roots` that is created, changed, moved or removed by any process."""

    _CREATE, _FOLDER, _OVERFLOW = 0x100, 0x40000000, 0x4000
    _MASK = 0x2 | 0x40 | 0x80 | _CREATE | 0x200  # modified, moved from, moved to, created, deleted

    def __init__(self, *roots: Path) -> None:
        self.changed: set[str] = set()
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._fd = self._libc.inotify_init()
        self._folders: dict[int, str] = {}
        self._over = threading.Event()
        for root in roots:
            self._add(str(root))
        self._thread = threading.Thread(target=self._listen, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._over.set()
        self._thread.join()
        os.close(self._fd)

    def _add(self, root: str) -> None:
        for folder, _, _ in os.walk(root):
            number = self._libc.inotify_add_watch(self._fd, os.fsencode(folder), self._MASK)
            if number >= 0:  # else it is gone already
                self._folders[number] = folder

    def _listen(self) -> None:
        while True:
            ready = select.select([self._fd], [], [], 0.2)[0]
            if not ready and self._over.is_set():
                return
            data = os.read(self._fd, 1 << 16) if ready else b""
            while data:
                number, mask, _, length = struct.unpack_from("iIII", data)
                name, data = os.fsdecode(data[16 : 16 + length].rstrip(b"\0")), data[16 + length :]
                assert not mask & self._OVERFLOW
                path = os.path.join(self._folders.get(number, "?"), name)
                if mask & self._MASK:
                    self.changed.add(path)
                if mask & self._FOLDER and mask & (self._CREATE | 0x80):
                    self._add(path)
                    for folder, folders, files in os.walk(path):  # made before there was a watch
                        self.changed |= {os.path.join(folder, inner) for inner in (*folders, *files)}


def main() -> None:
    from pipeline.cli.main import main as pipeline

    if os.environ.get("FAKE"):
        launch.fake()
    watch_python(Path(sys.argv[1]))
    for line in sys.stdin:
        try:
            pipeline(json.loads(line), prog_name="pipeline")
        except SystemExit as done:
            if done.code:
                sys.exit(f"{line}: {done.code}")


if __name__ == "__main__":
    main()
