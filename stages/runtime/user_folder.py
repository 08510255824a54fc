"""Owns where this user's own configuration lies. Not what is noted there (stages/bases)."""

import contextlib
from pathlib import Path

import platformdirs


def find_user_folder() -> Path | None:
    """The folder; None for a user without a home directory.

    A relative folder would be one below the current folder, which may have come from others.
    """
    with contextlib.suppress(RuntimeError):
        folder = Path(platformdirs.user_config_dir("frozenbase"))
        return folder if folder.is_absolute() else None
    return None
