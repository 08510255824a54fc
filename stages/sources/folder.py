"""Owns listing the images and archives of a folder, and which links are followed. Not what is in archives."""

import os
from pathlib import Path

from cache.errors import Unusable
from stages.sources.listing import ARCHIVES, EXTENSIONS, SYSTEM, FollowLinks, Listing, Reject, extension_of

_OUTPUTS = frozenset(["models", "plots"])
"""What commands write beside pipeline.yaml."""
_MARKS = frozenset(["CACHE.json", "EXPORT.json", "CACHEDIR.TAG", "pyvenv.cfg"])
"""A folder with one of these is a cache, an export or a virtual environment."""

LEAVES = "leaves {0}; to follow it: data.follow_links: all"


def list_folder(root: Path, called: str, follow_links: FollowLinks) -> tuple[Listing, list[str]]:
    """The images below `root`, and the names of archives; ignored files and links that are not followed are told.

    called: name of the folder in messages. Raises Unusable where it is missing or unreadable.
    """
    walk = _Walk(root, called, follow_links)
    walk.folder("")
    walk.linked_folders()
    walk.found.names = sorted(walk.paths)
    return walk.found, sorted(walk.archives)


class _Walk:
    """One pass over a folder of images. Each real folder is walked once, by whichever links."""

    def __init__(self, root: Path, called: str, follow_links: FollowLinks) -> None:
        self.root, self.called, self.follow_links = root, called, follow_links
        self.paths: list[str] = []
        self.archives: list[str] = []
        self.found = Listing()
        self._links: list[str] = []
        self._walked: set[str] = set()

    def folder(self, below: str) -> None:
        """All images under `root`/`below`; links to folders are left for later."""
        real = os.path.realpath(os.path.join(self.root, below))
        if real in self._walked:
            return
        self._walked.add(real)
        entries = self._entries(below)
        names = {entry.name for entry in entries}
        if below and names & _MARKS:
            self.found.ignored[f"folder {below}/"] += 1
            return
        skipped = SYSTEM | (_OUTPUTS if "pipeline.yaml" in names else frozenset())
        for entry in entries:
            name = f"{below}/{entry.name}" if below else entry.name
            kind = extension_of(entry.name)
            linked = entry.is_symlink()
            if entry.name.startswith("."):
                self.found.ignored["hidden"] += 1
            elif linked and os.path.isdir(entry.path):
                self._links.append(name)
            elif not linked and entry.is_dir():
                if entry.name in skipped:
                    self.found.ignored[f"folder {name}/"] += 1
                else:
                    self.folder(name)
            elif kind not in EXTENSIONS:
                if kind in ARCHIVES and (not linked or self._may_follow(name)):
                    self.archives.append(name)
                else:
                    self.found.ignored[kind or "without extension"] += 1
            elif linked and not self._may_follow(name):
                self.found.rejected.append(Reject(name, f"is a link that {LEAVES.format(self.called)}"))
            else:
                self.paths.append(name)

    def linked_folders(self) -> None:
        """Those whose images were not found where they are, or by another link."""
        while self._links:
            name = min(self._links)
            self._links.remove(name)
            if not self._may_follow(name):
                self.found.rejected.append(Reject(name, f"is a linked folder that {LEAVES.format(self.called)}"))
            else:
                self.folder(name)

    def _may_follow(self, name: str) -> bool:
        return self.follow_links == "all" or stays_under(os.path.join(self.root, name), self.root)

    def _entries(self, below: str) -> list[os.DirEntry[str]]:
        folder = os.path.join(self.root, below) if below else str(self.root)
        try:
            return list(os.scandir(folder))
        except OSError as error:
            if below:  # one folder; the rest goes on
                self.found.rejected.append(Reject(below, f"is a folder that cannot be read: {error.strerror}"))
                return []
            if isinstance(error, FileNotFoundError):
                hint = f"name the folder of the images with {self.called}"
                raise Unusable(f"{self.called}: {folder} is not there", hint) from error
            if isinstance(error, NotADirectoryError):
                raise Unusable(f"{self.called}: {folder} is a file; expected a folder of images") from error
            raise Unusable(f"cannot read the folder {folder}: {error.strerror}", f"check: ls -ld {folder}") from error


def stays_under(path: str, root: Path) -> bool:
    """Whether the file that `path` opens, whatever links it goes through, is below `root`."""
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(root))
