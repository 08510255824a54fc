"""Owns which commit a project's folder is at. Not the record it goes into (provenance.py).

A repository is as untrusted as the images in it, and its configuration names programs (fsmonitor, hooks, filters). So
git compares files in an empty repository of ours, which takes only objects and index from the real one.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

from cache import atomic_files
from cache.errors import Unwritable

_ENVIRONMENT = {"GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": os.devnull, "GIT_OPTIONAL_LOCKS": "0"}


def read_commit(folder: Path) -> dict[str, Any] | None:
    """Commit of the repository that `folder` is in, and whether tracked files differ from it; None outside of one."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")} | _ENVIRONMENT

    def git(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["git", "-C", str(folder), *words], env=clean | variables, capture_output=True, text=True, timeout=10
        )

    try:
        found = git("rev-parse", "HEAD", "--show-toplevel", "--git-path", "index", "--git-path", "objects")
        if found.returncode:
            return None
        commit, top, index, objects = found.stdout.splitlines()
        with atomic_files.temporary_folder() as empty:
            kind = f"--object-format={'sha1' if len(commit) == 40 else 'sha256'}"
            git("init", "--quiet", "--bare", "--template=", kind, str(empty))
            words = ("diff", "--quiet", "--no-ext-diff", "--no-textconv", "--ignore-submodules", commit, "--", top)
            changed = git(
                *words,
                GIT_DIR=str(empty),
                GIT_WORK_TREE=top,
                GIT_INDEX_FILE=str(folder.absolute() / index),
                GIT_OBJECT_DIRECTORY=str(folder.absolute() / objects),
            )
        return {"commit": commit, "dirty": bool(changed.returncode)} if changed.returncode in (0, 1) else None
    except (OSError, ValueError, subprocess.SubprocessError, Unwritable):
        return None
