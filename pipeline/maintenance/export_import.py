"""Owns `cache export` and `cache import`: a folder with a project's rows and settings. Not copying (transfer.py)."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePath
from typing import Any

import yaml

from cache import atomic_files, keys, records, registrations, regular_files, transfer
from cache.errors import Unusable
from cache.hash_index import HashIndex
from cache.store import Cache
from cache.transfer import Copied
from pipeline.config import yaml_file
from pipeline.config.schema import BaseChoice, RunConfig
from pipeline.project.project import Options, Progress, Project
from pipeline.results.record_diff import flatten
from pipeline.runs import extraction, rejects, retention
from stages.bases import catalogue, weights
from stages.bases.recipe import find_fault
from stages.engines import parity
from stages.sources.blobs import is_url

MARKER = "EXPORT.json"
MANIFEST = "manifest.jsonl"
_CACHE = ".features"


@dataclass(frozen=True)
class Moved:
    """What was copied to `folder`; `config` is the pipeline.yaml to go on with, `manifest` the file of its images.

    `left_out` are fields of the export's pipeline.yaml that an import does not take over.
    """

    taken: Copied
    folder: Path
    config: Path
    manifest: Path | None
    left_out: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        refused = [{"path": path, "reason": reason} for path, reason in self.taken.refused]
        own = {name: value for name, value in vars(self).items() if name != "taken"}
        return {**vars(self.taken), "refused": refused, **own}


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
    digests = {choice: project.weights(choice) for choice in project.config.bases}
    for choice, found in digests.items():
        weights.remember_digest(choice.base, found, target)
    target.put_named("manifests", manifest.to_bytes(), ".jsonl")
    atomic_files.publish(folder / MANIFEST, manifest.to_bytes())
    tree = _portable(project.config, {choice: found.sha256 for choice, found in digests.items()})
    atomic_files.publish(folder / "pipeline.yaml", _to_yaml(tree))
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
    manifest = (_their_record(folder) or {}).get("manifest")
    new: dict[Path, bytes] = {}
    settings: RunConfig | None = None
    left_out: tuple[str, ...] = ()
    if manifest is not None and not config.exists():
        tree, left_out = _their_settings(folder, Cache(root, HashIndex()))
        new = {**_their_manifest(folder, config.parent, manifest), config: _to_yaml(tree)}
        settings = yaml_file.override(tree, str(folder / "pipeline.yaml"), overrides)
    project = Project(config, Options(overrides, offline=True), progress, settings)
    taken = _copy_all(Cache(root, HashIndex()), project, manifest)
    for path, data in new.items():
        atomic_files.publish(path, data)
    here = project.cache.root / "manifests" / f"{manifest}.jsonl"
    return Moved(taken, project.cache.root, config, here if here.is_file() else None, left_out)


def _copy_all(source: Cache, project: Project, manifest: str | None) -> Copied:
    """Copy shards, manifests, and digests of weights, except for names that stand for other weights here.

    Of these the project needs what its settings ask for, and the `manifest` of the export.
    """
    target, taken = project.cache, Copied()
    stores = source.stores()
    bad = [str(store.folder / "spec.json") for store in stores if not store.components]
    taken.refused += [(path, "its components do not match its key") for path in bad]
    good = [store for store in stores if store.components]
    names, total = [store.key for store in good], sum(len(store.names()) for store in good)
    with registrations.running_job(target.root, names), project.progress(f"reading {total} shards", total) as advance:
        for store in good:
            there = target.features(store.components).shard_records()  # before: imported shards don't vouch for others
            checks = partial(find_fault, store.components), partial(parity.note_unchecked, there)
            transfer.copy_shards(store, target, store.names(), taken, advance, *checks)
        manifests = transfer.copy_named(source, target, "manifests", ".jsonl", taken)
        weights.copy_notes(source, target)
        needed = {*names, *manifests} & {*retention.current_names(project), manifest}
        retention.register_project(project, needed, also_before=True)
    return taken


def _their_record(folder: Path) -> dict[str, Any] | None:
    """EXPORT.json, None where there is none. Raises Unusable where it is not as an export writes it."""
    path = folder / MARKER
    try:
        regular_files.check_unlinked(path, folder)
        record = records.read(path, {"manifest": str | None}) if path.exists() else None
        if record is not None and not keys.is_digest(record.get("manifest") or "0" * 64):
            raise ValueError("its manifest is no SHA-256")
    except (OSError, ValueError) as error:
        raise Unusable(f"{path} is not the record of an export: {error}", "export again") from error
    return record


def _their_manifest(folder: Path, target: Path, digest: str) -> dict[Path, bytes]:
    """The manifest, for the folder `target`. It must be whole: half of it would be half the images."""
    path = folder / MANIFEST
    try:
        data = transfer.read_foreign(path, folder)
        if hashlib.sha256(data).hexdigest() != digest:
            raise ValueError("its bytes are others")
    except (OSError, ValueError) as error:
        raise Unusable(
            f"{path} was changed after the export: {error}",
            "export again; correct labels in the manifest after the import",
        ) from error
    if (target / MANIFEST).exists() and atomic_files.sha256_of(target / MANIFEST) != digest:
        raise Unusable(f"{target / MANIFEST} exists already", "import into another folder, or move it away first")
    return {target / MANIFEST: data}


def _their_settings(folder: Path, source: Cache) -> tuple[dict[str, Any], tuple[str, ...]]:
    """What an import takes over of an export's pipeline.yaml, and the fields that it leaves out."""
    path = folder / "pipeline.yaml"
    try:
        transfer.check_foreign(path, folder)
    except (OSError, ValueError) as error:
        raise Unusable(f"{path} cannot be read: {error}", "export again") from error
    written = yaml_file.read(path)
    cluster = written.pop("cluster", None)  # never taken over; a scheduler in it would be refused
    theirs = yaml_file.validate(written, str(path))
    digests = {}
    for choice in filter(_names_file, theirs.bases):
        known = weights.recorded_digests(choice.base.name, choice.setting, source)
        if len(known) != 1:
            raise Unusable(
                f"{path}: a base is the file {choice.setting}, and the export has {len(known)} digests of it; expected "
                "1",
                "export it again with this version, or write a pipeline.yaml of your own before the import",
            )
        digests[choice] = known[0]
    tree = _portable(theirs, digests)
    said = theirs.model_dump(exclude_defaults=True) | ({"cluster": cluster} if isinstance(cluster, dict) else {})
    ours, others = flatten(tree), flatten(said)
    return tree, tuple(name for name, value in others.items() if ours.get(name) != value and name != "data.table")


def _portable(config: RunConfig, digests: Mapping[BaseChoice, str]) -> dict[str, Any]:
    """The settings that go to another machine: no trust, no cluster, no place outside the project's folder.

    digests: of the files that bases are or are given as. The manifest becomes data.table.
    """
    settings = config.model_dump(include={"extract", "heads"})
    if config.base in digests or not _names_file(config.base):  # else no tap uses it
        settings["base"] = _portable_base(config.base, digests)
    taps = settings["extract"]["taps"]
    for name, tap in config.extract.taps.items():
        taps[name] = {field: value for field, value in taps[name].items() if value is not None}
        if tap.base is not None:
            taps[name]["base"] = _portable_base(tap.base, digests)
    data = config.data.model_dump(exclude_defaults=True, include={"root", "classes", "target", "on_bad", "on_leak"})
    written = data.get("root", "")
    root = PurePath(written)
    if is_url(written) or root.is_absolute() or ".." in root.parts or written.startswith("~"):
        del data["root"]
    tree = {"data": {**data, "table": MANIFEST}, **settings}
    RunConfig.model_validate(tree)
    return tree


def _portable_base(choice: BaseChoice, digests: Mapping[BaseChoice, str]) -> dict[str, Any]:
    base = choice.model_dump(exclude={"trust"})
    if catalogue.is_model_file(choice.name):
        base["name"] = PurePath(choice.name).name
    if _names_file(choice):
        base["weights"] = f"sha256:{digests[choice]}"
    return base


def _names_file(choice: BaseChoice) -> bool:
    """Whether base.name or base.weights is a path without a digest."""
    return choice.setting != "imagenet" and not choice.setting.startswith("sha256:")


def _to_yaml(tree: dict[str, Any]) -> bytes:
    about = "# Exported by pipeline cache export. The table holds images, labels and splits; no image is needed.\n"
    return (about + yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)).encode()


def _is_empty(folder: Path) -> bool:
    """Whether it is empty, except for the temp file of an export that was killed at its first step."""
    return all(path.name.startswith(f".{MARKER}.") for path in folder.iterdir())
