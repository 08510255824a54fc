"""Owns `cache export` and `cache import`: a folder with a project's rows and settings. Not copying (transfer.py)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from cache import atomic_files, records, registrations, transfer
from cache.errors import Unusable
from cache.hash_index import HashIndex
from cache.store import Cache
from cache.transfer import Copied
from pipeline.config import yaml_file
from pipeline.config.schema import RunConfig
from pipeline.project.project import Options, Progress, Project
from pipeline.runs import extraction, rejects, retention
from stages.bases import weights

MARKER = "EXPORT.json"
MANIFEST = "manifest.jsonl"
_CACHE = ".features"


@dataclass(frozen=True)
class Moved:
    """What was copied to `folder`; `config` is the pipeline.yaml to go on with, `manifest` the file of its images."""

    taken: Copied
    folder: Path
    config: Path
    manifest: Path | None

    def to_json(self) -> dict[str, Any]:
        refused = [{"path": path, "reason": reason} for path, reason in self.taken.refused]
        manifest = None if self.manifest is None else str(self.manifest)
        places = {"folder": str(self.folder), "config": str(self.config), "manifest": manifest}
        return {**vars(self.taken), "refused": refused, **places}


def export_rows(project: Project, folder: Path) -> Moved:
    """Write pipeline.yaml, the manifest and the shards it needs to `folder`, so that `pipeline run head` works there.

    An existing export is updated. Raises Unusable where the folder holds something else, NotAvailable where rows are
    missing (the project's options must set `require_cached`), ImagesRejected as a run would.
    """
    if folder.exists() and not (folder.is_dir() and ((folder / MARKER).exists() or _is_empty(folder))):
        raise Unusable(f"{folder} exists, and is not an export", "name a folder that is new or empty")
    target, taken = Cache(folder / _CACHE, HashIndex()), Copied()
    with registrations.running_job(project.cache.root, project.keys.values()):
        report, manifest = extraction.run_extraction(project, {})
        rejects.fail_on_rejects(project, report)
        # first, so that an export that was killed can be continued
        atomic_files.publish(folder / MARKER, records.dump({"of": str(project.path)}))
        for store in {store.key: store for store in map(project.store, report.keys)}.values():
            names = store.serving(manifest.ids)
            with project.progress(f"copying {len(names)} shards", len(names)) as advance:
                transfer.copy_shards(store, target, names, taken, advance)
    weights.remember_digest(project.base, project.weights, target)
    target.put_named("manifests", manifest.to_bytes(), ".jsonl")
    atomic_files.publish(folder / MANIFEST, manifest.to_bytes())
    atomic_files.publish(folder / "pipeline.yaml", _settings(project))
    atomic_files.publish(folder / MARKER, records.dump({"of": str(project.path), "manifest": manifest.digest}))
    return Moved(taken, folder, folder / "pipeline.yaml", folder / MANIFEST)


def import_rows(folder: Path, config: Path, progress: Progress, overrides: tuple[str, ...] = ()) -> Moved:
    """Copy the rows of an export, or of any cache folder, into the cache of `config`; all digests are checked.

    Where there is no pipeline.yaml yet, that of the export is written, with its manifest, after the rows.
    """
    root = folder if (folder / "CACHE.json").is_file() else folder / _CACHE
    if not (root / "CACHE.json").is_file():
        raise Unusable(
            f"{folder} is neither an export nor a cache: no CACHE.json in it or in its {_CACHE}",
            "name the folder that pipeline cache export wrote",
        )
    config = yaml_file.config_path(config).absolute()
    manifest = (records.load(folder / MARKER) or {}).get("manifest")
    new = _new_project(folder, config.parent, manifest) if manifest is not None and not config.exists() else {}
    settings = yaml_file.load(folder / "pipeline.yaml", overrides) if new else None
    project = Project(config, Options(overrides, offline=True), progress, settings)
    taken = _copy_all(Cache(root, HashIndex()), project)
    for path, data in new.items():
        atomic_files.publish(path, data)
    here = project.cache.root / "manifests" / f"{manifest}.jsonl"
    return Moved(taken, project.cache.root, config, here if here.is_file() else None)


def _copy_all(source: Cache, project: Project) -> Copied:
    """Copy shards, manifests, and digests of weights, except for names that stand for other weights here."""
    target, taken = project.cache, Copied()
    stores = source.stores()
    bad = [str(store.folder / "spec.json") for store in stores if not store.components]
    taken.refused += [(path, "its components do not match its key") for path in bad]
    good = [store for store in stores if store.components]
    keys, total = [store.key for store in good], sum(len(store.names()) for store in good)
    with registrations.running_job(target.root, keys), project.progress(f"reading {total} shards", total) as advance:
        for store in good:
            transfer.copy_shards(store, target, store.names(), taken, advance)
        manifests = transfer.copy_named(source, target, "manifests", ".jsonl", taken)
        weights.copy_notes(source, target)
        retention.register_project(project, [*keys, *manifests], also_before=True)
    return taken


def _new_project(folder: Path, target: Path, manifest: str) -> dict[Path, bytes]:
    """The files that make `target` a project. The manifest must be whole: half of it would be half the images."""
    path = folder / MANIFEST
    if not path.is_file() or atomic_files.sha256_of(path) != manifest:
        raise Unusable(
            f"{path} was changed after the export", "export again; correct labels in the manifest after the import"
        )
    if (target / MANIFEST).exists() and atomic_files.sha256_of(target / MANIFEST) != manifest:
        raise Unusable(f"{target / MANIFEST} exists already", "import into another folder, or move it away first")
    return {target / MANIFEST: path.read_bytes(), target / "pipeline.yaml": (folder / "pipeline.yaml").read_bytes()}


def _settings(project: Project) -> bytes:
    """pipeline.yaml for a host without images: the project's settings, with the manifest as data.table."""
    settings = project.config.model_dump(include={"base", "extract", "heads"})
    del settings["base"]["trust"]  # to be set where the model is opened
    data = project.config.data.model_dump(exclude_defaults=True, include={"root", "classes", "on_bad", "on_leak"})
    tree = {"data": {**data, "table": MANIFEST}, **settings}
    RunConfig.model_validate(tree)
    about = "# Exported by pipeline cache export. The table holds images, labels and splits; no image is needed.\n"
    return (about + yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)).encode()


def _is_empty(folder: Path) -> bool:
    """Whether it is empty, except for the temp file of an export that was killed at its first step."""
    return all(path.name.startswith(f".{MARKER}.") for path in folder.iterdir())
