"""Owns the record of a result: settings, rows, images, versions, machine, commit. Not the result itself."""

import os
import subprocess
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cache import atomic_files
from cache.errors import Unwritable
from cache.store import FeatureStore
from pipeline.project.project import Project
from stages.data.manifest import Manifest
from stages.runtime import hardware

_GIT = {"GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": os.devnull, "GIT_OPTIONAL_LOCKS": "0"}
PACKAGES = ("frozenbase", "scikit-learn", "scipy", "numpy", "h5py")


def make_record(
    project: Project, about: Mapping[str, Any], stores: Mapping[str, FeatureStore], manifest: Manifest
) -> dict[str, Any]:
    """record.json: `about` the result, what its rows were computed from (by name of the store), its images, and git."""
    return {
        "schema": 1,
        **about,
        "extract": describe_rows(stores),
        "manifest": manifest.digest,
        "images": len(manifest.rows),
        "created": round(time.time(), 3),
        "git": read_commit(project.folder),
    }


def describe_rows(stores: Mapping[str, FeatureStore]) -> dict[str, Any]:
    """What the rows were computed from: key and components of each store, by its name."""
    return {name: {"key": store.key, **store.components} for name, store in stores.items()}


def environment(stores: Sequence[FeatureStore], ids: Sequence[str], packages: Sequence[str]) -> dict[str, Any]:
    """What is in no key but may change a last bit: what computed the rows of `ids`, this machine, versions.

    packages: those that fit the result, beside PACKAGES.
    """
    made = [record for store in stores for record in store.shard_records(store.serving(ids))]
    made_with: dict[str, set[str]] = defaultdict(set)
    for record in made:
        for package, version in record.get("versions", {}).items():
            made_with[package].add(version)
    return {
        "rows_made_by": sorted({f"{r.get('engine')} on {r.get('device')}" for r in made}),
        "rows_versions": {package: sorted(found) for package, found in made_with.items()},
        "machine": hardware.cpu_name(),
        "blas": hardware.blas(),
        "versions": hardware.versions([*PACKAGES, *packages]),
    }


def read_commit(folder: Path) -> dict[str, Any] | None:
    """Commit of the repository that `folder` is in, and whether tracked files differ from it; None outside of one.

    A repository is as untrusted as the images in it, and its configuration names programs (fsmonitor, hooks, filters).
    So git compares files in an empty repository of ours, which takes only objects and index from the real one.
    """
    clean = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")} | _GIT

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
