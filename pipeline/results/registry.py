"""Owns which results there are, and what they are called: by name, tag or key. Not what is in one (model.py)."""

from __future__ import annotations

import contextlib
import re
import time
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from cache import atomic_files, keys, records
from cache.errors import Unusable
from pipeline.results.model import SHORT, Model
from pipeline.results.record_diff import distinguishing

_LAST = "models/*/*/last.json"
_PREFIX = re.compile(r"[0-9a-f]{6,64}")
_TAG = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")


def list_models(folder: Path) -> list[Model]:
    """All results of the project in `folder`, damaged ones too: by name, its last run's first, then the latest."""
    tagged: dict[tuple[str, str], list[str]] = defaultdict(list)
    for tag, names in tags(folder).items():
        tagged[names].append(tag)
    last = {"/".join(path.parent.parts[-2:]): records.load(path) or {} for path in folder.glob(_LAST)}
    found: dict[str, list[Model]] = defaultdict(list)
    for path in folder.glob(f"models/*/*/*/{records.RECORD}"):
        stage, name, key = path.parent.parts[-3:]
        if keys.is_digest(key):
            names = (f"{stage}/{name}", key)
            beaten = key in last.get(names[0], {}).get("beaten", ())
            found[names[0]].append(Model(*names, path.parent, records.load(path) or {}, tuple(tagged[names]), beaten))
    models = [model for same in found.values() for model in _told_apart(same)]
    return sorted(models, key=lambda m: (m.name, m.key != last.get(m.name, {}).get("key"), -m.created, m.key))


def _told_apart(same: list[Model]) -> list[Model]:
    """The models of one name, with what tells them from each other."""
    known = [model for model in same if model.record]
    differs = {m.key: told for m, told in zip(known, distinguishing([m.settings for m in known]), strict=True)}
    return [replace(model, differs=differs.get(model.key, {})) for model in same]


def record_latest(folder: Path, name: str, key: str | None, points: Iterable[str] = ()) -> None:
    """Let `name`, such as head/NAME, mean that model: its last run gave it, new or old; of a sweep, the best.

    `points` are the keys of the sweep: all but `key` count as beaten, until a run gives them. Before the best is known
    `key` is None, and the name means what it did.
    """
    path = folder / "models" / name / "last.json"
    before = records.load(path) or {}
    key = key or before.get("key")
    now = {"key": key, "beaten": sorted({*before.get("beaten", ()), *points} - {key})}
    if now != before:
        with contextlib.suppress(OSError):
            atomic_files.publish(path, records.dump(now))


def find(folder: Path, text: str) -> Model:
    """The model that a tag, `head/NAME`, NAME, a key's first digits, or `head/NAME/` and those mean.

    A name means what its last run gave. Raises Unusable where nothing or several bear it, or it is damaged.
    """
    models = list_models(folder)
    tag = tags(folder).get(text)
    if tag is not None:
        found = [model for model in models if (model.name, model.key) == tag]
        if not found:
            raise _without_model(text, tag)
    else:
        found = _named(models, text) or _by_key(models, text)
    if not found:
        raise _unknown(folder, models, text)
    if len(found) > 1:
        several = ", ".join(map(str, found[:10])) + (f", and {len(found) - 10} more" if len(found) > 10 else "")
        raise Unusable(
            f"{text!r} may mean {len(found)} models: {several}",
            f"give more of the key, or all of it: {found[0].name}/{found[0].key[:SHORT]}",
        )
    if found[0].damaged:
        raise Unusable(
            f"{found[0]} is damaged: files in {found[0].folder} are gone, or not as they were written",
            "bring that folder back from a copy, or name another model (pipeline models -v names the damaged files)",
        )
    return found[0]


def tags(folder: Path) -> dict[str, tuple[str, str]]:
    """Tag -> (name, key) of its model; of a tag that cannot be read, two empty ones."""
    found = {path.stem: records.load(path) or {} for path in sorted(folder.glob("models/tags/*.json"))}
    return {tag: (str(text.get("model", "")), str(text.get("key", ""))) for tag, text in found.items()}


def tagged_records(folder: Path) -> dict[str, dict[str, Any] | None]:
    """Tag -> its model's record, None where that is not there or cannot be read."""
    records_of = {(model.name, model.key): model.record or None for model in list_models(folder)}
    return {tag: records_of.get(names) for tag, names in tags(folder).items()}


def set_tag(folder: Path, text: str, tag: str, force: bool = False) -> Model:
    """Call the model `text` by the name `tag`. Raises Unusable for what is no tag, or names another model already."""
    if not _TAG.fullmatch(tag) or _PREFIX.fullmatch(tag.lower()):
        raise Unusable(
            f"{tag!r} cannot be a tag: expected letters, digits, - _ and . that don't look like a key's digits",
            "for example: v3",
        )
    model = find(folder, text)
    if _named(list_models(folder), tag):
        raise Unusable(f"{tag!r} cannot be a tag: heads go by that name", "choose another, for example: v3")
    names, before = (model.name, model.key), tags(folder).get(tag)
    if before is not None and before != names and not force:
        raise Unusable(
            f"the tag {tag} names {before[0]} {before[1][:SHORT]} already", "choose another tag, or move it: --force"
        )
    if before != names:
        text_of_tag = {"model": model.name, "key": model.key, "created": int(time.time())}
        atomic_files.publish(_tag_path(folder, tag), records.dump(text_of_tag))
    return model


def delete_tag(folder: Path, tag: str) -> None:
    """Raises Unusable where there is no such tag. The model stays."""
    known = tags(folder)
    if tag not in known:
        raise Unusable(f"no tag {tag!r} in {folder / 'models'}; {_listed('there are', list(known))}", "pipeline models")
    atomic_files.remove(_tag_path(folder, tag))


def _tag_path(folder: Path, tag: str) -> Path:
    return folder / "models" / "tags" / f"{tag}.json"


def _named(models: list[Model], text: str) -> list[Model]:
    """The first of each name that `text` is, with or without its stage."""
    latest: dict[str, Model] = {}
    for model in models:
        if text in (model.name, model.name.partition("/")[2]):
            latest.setdefault(model.name, model)
    return list(latest.values())


def _by_key(models: list[Model], text: str) -> list[Model]:
    """The same settings under two names have one key, so it may stand behind the name."""
    name, _, digits = text.rpartition("/")
    prefix = digits.lower()
    if not _PREFIX.fullmatch(prefix):
        return []
    return [model for model in models if model.key.startswith(prefix) and name in ("", model.name)]


def _unknown(folder: Path, models: list[Model], text: str) -> Unusable:
    if not models:
        return Unusable(f"no model {text!r}: there are none in {folder / 'models'}", "pipeline run makes them")
    names = list(dict.fromkeys(model.name for model in models))
    known = "; ".join(filter(None, [_listed("there are", names), _listed("and the tags", list(tags(folder)), "")]))
    return Unusable(f"no model {text!r} in {folder / 'models'}; {known}", "pipeline models")


def _listed(words: str, names: list[str], nothing: str = "there are none") -> str:
    more = f" and {len(names) - 10} more" if len(names) > 10 else ""
    return f"{words} {', '.join(names[:10])}{more}" if names else nothing


def _without_model(tag: str, names: tuple[str, str]) -> Unusable:
    return Unusable(
        f"the tag {tag} names {' '.join(names)[:80].strip() or 'nothing that can be read'}, which is not there",
        f"bring its folder back from a copy, or let go of it: pipeline tag --delete {tag}",
    )
