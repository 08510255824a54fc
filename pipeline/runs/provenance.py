"""Owns the record of a result: settings, rows, images, versions, machine, commit. Not the result itself."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from cache.store import FeatureStore
from pipeline.project.project import Project
from pipeline.runs.git_commit import read_commit
from stages.data.manifest import Manifest
from stages.runtime import hardware

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
