"""What one does without an index: SHA-256 of every file, to know what changed: python -m benchmarks.hash_all FOLDER."""

from __future__ import annotations

import hashlib
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path


def digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def main() -> None:
    paths = sorted(Path(sys.argv[1]).rglob("*.png"))
    with ThreadPoolExecutor(8) as threads:
        print(len(set(threads.map(digest, paths))))


if __name__ == "__main__":
    main()
