"""Runs in a mount namespace of its own, to try the cache on tiny disks and on one that is read-only.

python -m tests.support.mounted tiny FOLDER BYTES..., or readonly FOLDER; prints what it met as JSON.
"""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

from cache.hash_index import HashIndex
from cache.store import Cache
from tests.support import REPOSITORY, crash, promises


def may_mount(folder: Path) -> bool:
    """Whether this person may mount in a namespace of their own: root outside of a container, and many others."""
    mount = ["mount", "-t", "tmpfs", "tmpfs", str(folder)]
    return subprocess.run([*_namespace(), *mount], capture_output=True).returncode == 0


def start(*words: str | Path) -> Counter[str]:
    """Run this module there; a crash of the interpreter, at its exit too, is an error."""
    command = [*_namespace(), sys.executable, "-m", "tests.support.mounted", *map(str, words)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, f"{done.returncode}: {done.stderr}"
    return Counter(json.loads(done.stdout))


def fill(root: Path, first: int) -> str:
    """Work until the disk is full: the error says so, nothing lies about, and what was promised is there."""
    promised: set[promises.Item] = set()
    error = crash.error_of(promises.work, root, promised.add, first)
    assert error in (0, errno.ENOSPC)
    assert promises.temps(root) == []
    promises.check_served(root, promised)
    return "full" if error else "large enough"


def tiny(folder: Path, sizes: list[str]) -> Counter[str]:
    met: Counter[str] = Counter()
    for number, size in enumerate(sizes):
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], check=True)
        met[fill(folder / "cache", number % 4)] += 1
        subprocess.run(["umount", folder], check=True)
    return met


def readonly(folder: Path) -> Counter[str]:
    subprocess.run(["mount", "--bind", folder, folder], check=True)
    subprocess.run(["mount", "-o", "remount,ro,bind", folder], check=True)
    promises.check_served(folder, promises.BEFORE)
    Cache(folder, HashIndex()).put_named("manifests", b"kept", ".jsonl")
    stores = [(promises.store_of(folder, kind), kind) for kind in ("vectors", "maps")]
    errors = [crash.error_of(promises.put, store, kind, (0,)) for store, kind in stores]
    return Counter(errno.errorcode[error] for error in errors)


def _namespace() -> list[str]:
    return ["unshare", "-m"] if os.getuid() == 0 else ["unshare", "-Urm"]


if __name__ == "__main__":
    what, place, *rest = sys.argv[1:]
    print(json.dumps(tiny(Path(place), rest) if what == "tiny" else readonly(Path(place))))  # noqa: T201
