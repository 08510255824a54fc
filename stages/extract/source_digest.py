"""Owns the digest of this package's source, by which two processes know that they run the same code."""

import hashlib
from functools import cache
from importlib.util import find_spec
from pathlib import Path

PACKAGES = ("pipeline", "stages", "cache")


@cache
def source_digest() -> str:
    """SHA-256 of all files of the three packages, by their names within them; the install path does not matter.

    Computed once per process, so that it stays that of the code which the process runs.
    """
    files = {}
    for package in PACKAGES:
        spec = find_spec(package)
        for folder in (spec and spec.submodule_search_locations) or ():
            for path in Path(folder).rglob("*"):
                name = path.relative_to(folder)
                if path.is_file() and not any(part.startswith((".", "__pycache__")) for part in name.parts):
                    files[f"{package}/{name.as_posix()}"] = hashlib.sha256(path.read_bytes()).hexdigest()
    return hashlib.sha256("".join(f"{name} {files[name]}\n" for name in sorted(files)).encode()).hexdigest()
