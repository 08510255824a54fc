"""Owns what is in a tar file: images with labels, in WebDataset's layout or in class folders. Not where it lies.

Members of one sample have one name up to the first dot behind the last slash: 007.jpg, 007.cls. The label is the text
of .cls, or else of .txt, or else of "label" or "class" in .json. Where no sample has any, it is the first folder.
"""

import contextlib
import hashlib
import json
import os
import tarfile
from typing import BinaryIO

from stages.sources.listing import EXTENSIONS, SYSTEM, Contents, Inside, OnHashed, Reject, extension_of

_LABELS = (".cls", ".txt", ".json")
"""By precedence."""

_MOST_LABEL = 1_000_000
_LONGEST = 200
_PIECE = 1_000_000


def read_tar(file: BinaryIO, size: int, most: int, on_hashed: OnHashed | None) -> Contents:
    """What is in a tar of `size` bytes; with `on_hashed`, with the SHA-256 of each image of up to `most` bytes.

    A damaged tar gives what is before the damage, and a reject. Raises OSError where the file cannot be read.
    """
    found, labels = Contents(), dict[str, dict[str, str]]()
    images: dict[str, Inside] = {}
    try:
        with tarfile.open(fileobj=file, mode="r:", encoding="utf-8") as tar:
            while (member := tar.next()) is not None:
                tar.members = []  # type: ignore[attr-defined]  # else it keeps them all
                _add(file, size, most, member, found, images, labels, on_hashed)
            file.seek(tar.offset)
            if file.read(tarfile.BLOCKSIZE).strip(b"\0"):
                raise tarfile.ReadError(f"byte {tar.offset} begins no member")
    except tarfile.TarError as error:
        found.rejected.append(Reject("", f"is no whole tar ({error}): what is behind it is not read"))
    said = {sample: _choose(by_kind) for sample, by_kind in labels.items()}
    long = sum(label is not None and len(label) > _LONGEST for label in said.values())
    if long:
        found.notes.append(f"{long} texts are longer than {_LONGEST} characters, and are no labels")
    for name, image in images.items():
        label = said.get(_sample_of(name)) if labels else name.partition("/")[0] if "/" in name else None
        found.members.append(image._replace(label=None if label is None or len(label) > _LONGEST else label))
    return found


def _add(
    file: BinaryIO, size: int, most: int, member: tarfile.TarInfo, found: Contents, images: dict[str, Inside],
    labels: dict[str, dict[str, str]], on_hashed: OnHashed | None,
) -> None:  # fmt: skip
    name, kind = member.name.removeprefix("./"), extension_of(member.name)
    if member.isdir():
        return
    parts = name.split("/")
    if not member.isreg() or member.issparse():
        found.ignored["link or special file"] += 1
    elif parts[-1].startswith("."):
        found.ignored["hidden"] += 1
    elif {*parts} & SYSTEM:
        found.ignored["of a system"] += 1
    elif kind in _LABELS and member.size <= _MOST_LABEL:
        file.seek(member.offset_data)
        labels.setdefault(_sample_of(name), {})[kind] = file.read(member.size).decode("utf-8", "backslashreplace")
    elif kind not in EXTENSIONS:
        found.ignored[kind or "without extension"] += 1
    elif name.startswith("/") or {"..", ".", ""} & {*parts} or "\0" in name:
        found.rejected.append(Reject(name, "has a name that would lead out of its archive"))
    elif name in images:
        found.rejected.append(Reject(name, "has the name of an earlier one, which is used"))
    elif member.offset_data + member.size > size:
        found.rejected.append(Reject(name, "cannot be read: its archive ends before it does"))
    elif member.size > most:
        found.rejected.append(Reject(name, f"{member.size} bytes, more than {most}"))
    else:
        digest = None if on_hashed is None else _hash(file, member)
        images[name] = Inside(name, member.offset_data, member.size, sha256=digest)
        if on_hashed is not None:
            on_hashed(1)


def _hash(file: BinaryIO, member: tarfile.TarInfo) -> str:
    digest, left = hashlib.sha256(), member.size
    file.seek(member.offset_data)
    while left and (piece := file.read(min(_PIECE, left))):
        digest.update(piece)
        left -= len(piece)
    if left:
        raise OSError("it ends early")
    return digest.hexdigest()


def _sample_of(name: str) -> str:
    folder, base = os.path.split(name)
    return f"{folder}/{base.partition('.')[0]}"


def _choose(by_kind: dict[str, str]) -> str | None:
    """The label of a sample, from the texts of its members by their kind."""
    for kind in _LABELS:
        if kind not in by_kind:
            continue
        text = by_kind[kind].strip()
        if kind != ".json":
            return text or None
        with contextlib.suppress(ValueError, RecursionError):
            said = json.loads(text)
            for name in ("label", "class"):
                if isinstance(said, dict) and isinstance(said.get(name), str | int):
                    return str(said[name]).strip() or None
    return None
