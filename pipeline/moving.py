"""Owns `cache export` and `cache import`: a project's rows in one folder, with all that its heads need elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from cache import files, roots, transfer
from cache.errors import Unusable
from cache.statindex import StatIndex
from cache.store import Cache
from cache.transfer import Taken
from pipeline import graph, upkeep
from pipeline.config import RunConfig
from pipeline.graph import Options, Progress, Project

MANIFEST = "manifest.jsonl"
_CACHE = ".features"


@dataclass(frozen=True)
class Moved:
    """What was moved to where; `config` is the pipeline.yaml to go on with, `manifest` the file of its images."""

    taken: Taken
    folder: Path
    config: Path
    manifest: Path | None

    def to_json(self) -> dict[str, Any]:
        refused = [{"path": path, "reason": reason} for path, reason in self.taken.refused]
        moved = {**vars(self.taken), "refused": refused}
        manifest = None if self.manifest is None else str(self.manifest)
        return {**moved, "folder": str(self.folder), "config": str(self.config), "manifest": manifest}


def export(project: Project, folder: Path) -> Moved:
    """Write `folder` so that `pipeline run head` works in it: pipeline.yaml, manifest, and the shards it needs.

    An export that is there already is brought up to date. Raises Unusable where the folder holds something else,
    NotAvailable where rows are missing (the project's options must say so), ImagesRejected as a run would.
    """
    if folder.exists() and not (folder.is_dir() and ((folder / _CACHE / "CACHE.json").exists() or _is_empty(folder))):
        raise Unusable(f"{folder} is there, and is no export", "name a folder that is new or empty")
    if (folder / _CACHE).resolve() == project.cache.root.resolve():
        raise Unusable(f"{folder} is the project itself", "name another folder")
    report, manifest = graph.run_extract(project)
    graph.check_rejects(project, report)
    target, taken = Cache(folder / _CACHE, StatIndex()), Taken()
    for key in dict.fromkeys(report.keys.values()):
        source = next(store for tap in report.keys if (store := project.store(tap)).key == key)
        names = source.serving(manifest.ids)
        with (
            project.progress(f"copying {len(names)} shards", len(names)) as advance,
            roots.job(project.cache.root, [key]),
        ):
            transfer.take(source, target, names, taken, advance)
    transfer.take_named(project.cache, target, "weights", ".json", taken)
    target.put_named("manifests", manifest.to_bytes(), ".jsonl")
    files.publish(folder / MANIFEST, manifest.to_bytes())
    files.publish(folder / "pipeline.yaml", _settings(project))
    return Moved(taken, folder, folder / "pipeline.yaml", folder / MANIFEST)


def bring(folder: Path, config: Path, progress: Progress, overrides: tuple[str, ...] = ()) -> Moved:
    """Take the rows of an export, or of any cache folder, into the cache of `config`; digests are checked on the way.

    Where there is no pipeline.yaml yet, the export's own is written, and its manifest beside it.
    """
    root = folder if (folder / "CACHE.json").is_file() else folder / _CACHE
    if not (root / "CACHE.json").is_file():
        raise Unusable(
            f"{folder} is neither an export nor a cache: no CACHE.json in it or in its {_CACHE}",
            "name the folder that pipeline cache export wrote",
        )
    source, taken = Cache(root, StatIndex()), Taken()
    config = config / "pipeline.yaml" if config.is_dir() else config
    manifest = _manifest(folder, source)
    if manifest is not None and not config.exists():
        files.publish(config.parent.absolute() / MANIFEST, (folder / MANIFEST).read_bytes())
        files.publish(config.absolute(), (folder / "pipeline.yaml").read_bytes())
    project = Project(config, Options(overrides, offline=True), progress)
    stores = [store for store in source.stores() if store.components]
    bad = [str(store.folder / "spec.json") for store in source.stores() if not store.components]
    taken.refused += [(path, "its components give another key") for path in bad]
    total, keys = sum(len(store.names()) for store in stores), [store.key for store in stores]
    with progress(f"reading {total} shards", total) as advance, roots.job(project.cache.root, keys):
        for store in stores:
            transfer.take(store, project.cache, store.names(), taken, advance)
        for kind, suffix in (("weights", ".json"), ("manifests", ".jsonl")):
            transfer.take_named(source, project.cache, kind, suffix, taken)
        upkeep.register(project, [*keys, manifest])
    here = None if manifest is None else project.cache.root / "manifests" / f"{manifest}.jsonl"
    return Moved(taken, project.cache.root, config, here)


def _manifest(folder: Path, source: Cache) -> str | None:
    """Digest of an export's manifest, which its cache holds too; None for a cache that is no export.

    Raises Unusable where they are not the same: half a table would be half the images.
    """
    path = folder / MANIFEST
    if not path.is_file():
        return None
    digest = files.sha256_of(path)
    if not (source.root / "manifests" / f"{digest}.jsonl").is_file():
        raise Unusable(
            f"{path} is not as it was exported", "export again; labels are corrected in the manifest after the import"
        )
    return digest


def _settings(project: Project) -> bytes:
    """pipeline.yaml for a host without images: what was set, with the manifest as its table."""
    settings = project.config.model_dump(include={"base", "extract", "heads"})
    data = project.config.data.model_dump(exclude_defaults=True, include={"root", "classes", "on_bad", "on_leak"})
    tree = {"data": {**data, "table": MANIFEST}, **settings}
    RunConfig.model_validate(tree)
    about = "# Exported by pipeline cache export. The table holds images, labels and splits; no image is needed.\n"
    return (about + yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)).encode()


def _is_empty(folder: Path) -> bool:
    return next(folder.iterdir(), None) is None
