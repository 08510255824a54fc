"""A copy of this package's source, for processes that run other code than this one."""

from __future__ import annotations

import shutil
from pathlib import Path

import cache
from stages.extract.source_digest import PACKAGES


def copy_to(folder: Path) -> Path:
    """Copy the packages into `folder`, without compiled files."""
    for package in PACKAGES:
        source = Path(cache.__path__[0]).parent / package
        shutil.copytree(source, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    return folder
