"""Owns fetching a model file from a hub: what comes along, whether the bytes are right, and the note of them.
Not the transfer, which is that of huggingface_hub, nor opening what came (engines/).

That client heeds HF_ENDPOINT, HF_HOME, HF_TOKEN, HF_HUB_OFFLINE and its other variables. What a reference gave is noted
in the user's own configuration, and compared from then on: a branch or a tag may give other bytes tomorrow.
"""

import hashlib
import json
import re
import shlex
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from cache import atomic_files, records
from cache.errors import NotAvailable, PipelineError, Unusable
from stages.runtime.suggest import suggest
from stages.runtime.user_folder import find_user_folder

_REFERENCE = re.compile(r"hf://(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>[^/@]+))?/(?P<path>[^/].*)")
_FORM = "write hf://OWNER/NAME/PATH, or hf://OWNER/NAME@REVISION/PATH, with the path of a file in that repository"
_SUFFIXES = (".onnx", ".xml", ".keras", ".h5", ".hdf5")
_SETTINGS = "preprocessor_config.json"
_NOTE = {"commit": str, "licence": str, "files": {records.ANY: str}}


class _Reference(NamedTuple):
    text: str
    repo: str
    revision: str | None
    path: str

    def at(self, commit: str) -> str:
        return f"hf://{self.repo}@{commit}/{self.path}"


class _Offer(NamedTuple):
    """What a repository has at a commit: path of a file -> its SHA-256, or None where the hub has none."""

    commit: str
    licence: str
    files: Mapping[str, str | None]


@dataclass(frozen=True)
class Fetched:
    """A model file on this machine; `beside` are the files that came along."""

    reference: str
    path: Path
    size: int
    sha256: str
    revision: str
    licence: str
    beside: tuple[Path, ...]


def fetch(text: str, repin: bool = False) -> Fetched:
    """The file that a reference means, and those that belong to it, downloaded unless they are there.

    Raises Unusable for what is no reference, or without huggingface_hub or a home folder; NotAvailable where the hub
    cannot be reached or refuses, where it has no such file, and for other bytes than it states, or than the first
    fetch of that reference gave (with `repin`, these are taken); Unwritable where a file cannot be written.
    """
    wanted, note, client = _parse(text), _note(text), _import_client()
    known = records.load(note, _NOTE)
    with atomic_files.naming_path(Path(client.constants.HF_ASSETS_CACHE), "written"):
        try:
            offer = _recall(known, wanted) if client.constants.HF_HUB_OFFLINE else _ask(client, wanted)
            # Not the client's cache, whose files are links: ONNX and OpenVINO refuse external data that is one.
            folder = client.cached_assets_path("frozenbase", wanted.repo, offer.commit)
            files = {
                name: Path(client.hf_hub_download(wanted.repo, name, revision=offer.commit, local_dir=folder))
                for name in (wanted.path, *_companions(wanted.path, offer.files))
            }
        except (OSError, ValueError, RuntimeError, client.errors.HTTPError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise  # of the disk
            raise _explain(client, error, wanted) from error
    digests = {name: atomic_files.sha256_of(path) for name, path in files.items()}
    for name, found in digests.items():
        if found != (offer.files[name] or found):
            atomic_files.remove(files[name])
            raise NotAvailable(
                f"{wanted.at(offer.commit)}: {name} came with SHA-256 {found}; expected {offer.files[name]}, as stated",
                "it was removed; run this again, and if that does not help, tell the owner of the repository",
            )
    if known and not repin:
        _compare(wanted, offer.commit, digests, known)
    atomic_files.publish(
        note, records.dump({"reference": text, "commit": offer.commit, "licence": offer.licence, "files": digests})
    )
    path, *beside = files.values()
    size = path.stat().st_size
    return Fetched(text, path, size, digests[wanted.path], offer.commit, offer.licence, tuple(beside))


def _compare(wanted: _Reference, commit: str, digests: Mapping[str, str], known: Mapping[str, Any]) -> None:
    """Raise NotAvailable where a file has other bytes than at the first fetch."""
    for name, found in digests.items():
        if found != (expected := known["files"].get(name, found)):
            again, earlier = shlex.quote(wanted.text), shlex.quote(wanted.at(known["commit"]))
            raise NotAvailable(
                f"{wanted.text}: {name} has SHA-256 {found} at revision {commit}; expected {expected}, as at the first "
                f"fetch, at revision {known['commit']}",
                f"the new file: pipeline bases fetch {again} --repin; the earlier one: pipeline bases fetch {earlier}",
            )


def _parse(text: str) -> _Reference:
    found = _REFERENCE.fullmatch(text)
    if found is None or ".." in PurePosixPath(found["path"]).parts:
        raise Unusable(f"{text!r} does not name a file on a hub", _FORM)
    if PurePosixPath(found["path"]).suffix not in _SUFFIXES:
        raise Unusable(f"{text} is no model file", f"name one that ends in {', '.join(_SUFFIXES)}")
    return _Reference(text, found["repo"], found["revision"], found["path"])


def _note(text: str) -> Path:
    """The file that notes what a reference gave."""
    folder = find_user_folder()
    if folder is None:
        what = "the digest of what is fetched cannot be noted: there is no home folder"
        raise Unusable(what, "set HOME, or XDG_CONFIG_HOME to an absolute path")
    return folder / "fetched" / f"{hashlib.sha256(text.encode()).hexdigest()}.json"


def _import_client() -> Any:
    try:
        import huggingface_hub.constants
        import huggingface_hub.errors
    except ImportError as error:
        raise Unusable("fetching from a hub needs huggingface_hub", "pip install 'frozenbase[hub]'") from error
    return huggingface_hub


def _ask(client: Any, wanted: _Reference) -> _Offer:
    """What the hub has at that revision. Raises NotAvailable where the file is not in it."""
    timeout = client.constants.HF_HUB_ETAG_TIMEOUT
    info = client.HfApi().model_info(wanted.repo, revision=wanted.revision, files_metadata=True, timeout=timeout)
    files = {file.rfilename: None if file.lfs is None else file.lfs.sha256 for file in info.siblings or ()}
    if info.sha is None or wanted.path not in files:
        models = [name for name in files if name.endswith(_SUFFIXES)]
        near = ", ".join(suggest(wanted.path, models, 3) or models[:5])
        raise NotAvailable(
            f"{wanted.repo} has no file {wanted.path!r} at revision {info.sha}",
            f"did you mean {near}?" if near else "it has no model file at all: name another repository, or revision",
        )
    return _Offer(info.sha, str((info.card_data or {}).get("license") or "not known"), files)


def _recall(known: Mapping[str, Any] | None, wanted: _Reference) -> _Offer:
    """What the last fetch of that reference found."""
    if known is None:
        raise NotAvailable(f"{wanted.text} was not fetched here yet, and HF_HUB_OFFLINE is set", "run once without it")
    return _Offer(known["commit"], known["licence"], known["files"])


def _companions(path: str, names: Collection[str]) -> list[str]:
    """Files of a repository that a model file needs: external data or weights, by name, and how it wants its pixels."""
    file, stem = PurePosixPath(path), str(PurePosixPath(path).with_suffix(""))
    begun = {".onnx": (f"{path}_data", f"{path}.data", f"{stem}.data"), ".xml": (f"{stem}.bin",)}.get(file.suffix, ())
    beside = sorted(name for name in names if name.startswith(begun) and PurePosixPath(name).parent == file.parent)
    settings = [name for name in (str(file.with_name(_SETTINGS)), _SETTINGS) if name in names]
    return beside + settings[:1]


def _explain(client: Any, error: Any, wanted: _Reference) -> PipelineError:
    """The error of ours for one of the client's."""
    errors, hub, repo = client.errors, client.constants.ENDPOINT, wanted.repo
    while isinstance(error, errors.LocalEntryNotFoundError) and error.__cause__ is not None:
        error = error.__cause__  # what kept the client from asking
    status = error.response.status_code if isinstance(error, errors.HfHubHTTPError) else None
    if isinstance(error, errors.HFValidationError):
        return Unusable(f"{wanted.text!r} does not name a file on a hub", _FORM)
    if isinstance(error, errors.OfflineModeIsEnabled):
        return NotAvailable(f"{wanted.text} is not all here, and HF_HUB_OFFLINE is set", "run once without it")
    if isinstance(error, errors.GatedRepoError):
        advice = f"accept it on {hub}/{repo}, and set HF_TOKEN to a token of that account"
        return NotAvailable(f"{repo} is gated: {hub} gives its files to those who have accepted its licence", advice)
    if isinstance(error, errors.RevisionNotFoundError):
        return NotAvailable(f"{repo} has no revision {wanted.revision!r}", f"name a branch, a tag or a commit; {_FORM}")
    if status in (401, 403, 404):
        why = "there is no such repository or file, or it is not for you"
        advice = "check its name; for a private one, set HF_TOKEN to a token that may read it"
        return NotAvailable(f"{hub} does not give {wanted.text} (HTTP {status}): {why}", advice)
    if status == 429:
        after = error.response.headers.get("Retry-After")
        advice = f"try again {f'in {after} s' if (after or '').isdigit() else 'later'}"
        return NotAvailable(f"{hub} has had too many requests from you (HTTP 429)", advice)
    if isinstance(error, json.JSONDecodeError):
        return NotAvailable(f"{hub} is no hub: it answers with what is not JSON", "correct HF_ENDPOINT, or the proxy")
    reason = f"HTTP {status}" if status else " ".join(str(error).split())[:300] or type(error).__name__
    return NotAvailable(
        f"{wanted.text} cannot be downloaded from {hub}: {reason}",
        "check the network and run this again; or copy the file from a machine that has it, and give its path",
    )
