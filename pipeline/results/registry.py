"""Owns which results there are, and how they are named: by name, tag or key. Not what is in one (model.py)."""

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
from pipeline.results.model import SHORT, Model, read_record
from pipeline.results.record_diff import distinguishing_fields

_LATEST = "models/*/*/last.json"
_LAST: records.Fields = {"key": str | None, "beaten": list | None, "chosen": dict | None}
_PREFIX = re.compile(r"[0-9a-f]{6,64}")
_TAG = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")


def list_models(folder: Path) -> list[Model]:
    """All results of the project in `folder`, damaged ones too: by name, the current one first, then the latest."""
    tagged: dict[tuple[str, str], list[str]] = defaultdict(list)
    for tag, names in tags(folder).items():
        tagged[names].append(tag)
    last = {"/".join(path.parent.parts[-2:]): records.load(path, _LAST) for path in folder.glob(_LATEST)}
    latest = {name: record for name, record in last.items() if record}
    found: dict[str, list[Model]] = defaultdict(list)
    for path in folder.glob(f"models/*/*/*/{records.RECORD}"):
        stage, name, key = path.parent.parts[-3:]
        if keys.is_digest(key):
            names = (f"{stage}/{name}", key)
            run = latest.get(names[0], {})
            record, beaten = read_record(path), key in run.get("beaten", ())
            judged = (run.get("chosen") or {}).get(key)
            choice = (
                choice_folder(folder, names[0], judged) if isinstance(judged, str) and keys.is_digest(judged) else None
            )
            current = key == run.get("key")
            found[names[0]].append(Model(*names, path.parent, record, tuple(tagged[names]), beaten, current, choice))
    models = [model for same in found.values() for model in _with_differences(same)]
    models.sort(key=lambda model: (model.name, not model.current, -model.created, model.key))
    first = {model.name: model.key for model in reversed(models) if model.name not in latest}  # an older project
    return [replace(model, current=True) if first.get(model.name) == model.key else model for model in models]


def _with_differences(same: list[Model]) -> list[Model]:
    """The models of one name, with the settings that they don't share; where these don't tell them apart, also with
    the rows and versions behind them."""
    known = [model for model in same if model.record]
    fields = distinguishing_fields([model.settings for model in known])
    if len({repr(found) for found in fields}) < len(known):
        fields = distinguishing_fields([{**model.settings, **model.behind} for model in known])
    differs = {model.key: found for model, found in zip(known, fields, strict=True)}
    return [replace(model, differs=differs.get(model.key, {})) for model in same]


def choice_folder(folder: Path, name: str, key: str) -> Path:
    """Where the choice among a sweep's points is judged: metrics.json and predictions as in a model's folder."""
    return folder / "models" / name / "choices" / key


def record_latest(
    folder: Path,
    name: str,
    key: str | None,
    points: Iterable[str] = (),
    trial: bool = False,
    choice: str | None = None,
) -> None:
    """Let `name`, such as head/NAME, mean the model of that key, which the last run gave; of a sweep, the best.

    `points` are the keys of the sweep: all but `key` count as beaten until a run returns them. While the best is not
    known, `key` is None. Then, and after a `trial` of other settings than those in pipeline.yaml, the name keeps its
    meaning. choice: the key of the choice that gave the best; its figures count as the model's until a run returns it
    otherwise, but no trial changes those of the model that the name means.
    """
    path = folder / "models" / name / "last.json"
    before = records.load(path, _LAST) or {}
    chosen = dict(before.get("chosen") or {})
    if key and not (trial and key == before.get("key")):
        chosen.pop(key, None)
        chosen |= {key: choice} if choice else {}
    key = key or before.get("key")
    beaten = sorted({*before.get("beaten", ()), *points} - {key})
    now = {"key": before.get("key") if trial else key, "beaten": beaten, **({"chosen": chosen} if chosen else {})}
    if now != before:
        with contextlib.suppress(OSError):
            atomic_files.publish(path, records.dump(now))


def find(folder: Path, text: str) -> Model:
    """The model of a tag, `head/NAME`, NAME, the first digits of a key, or `head/NAME/DIGITS`.

    A name means its current model: what pipeline.yaml, without --set, gave at its last run. Raises Unusable where none
    or several match, or the model is damaged.
    """
    models, tagged = list_models(folder), tags(folder)
    if text in tagged:
        found = [model for model in models if (model.name, model.key) == tagged[text]]
        if not found:
            names = " ".join(tagged[text])[:80].strip() or "nothing that can be read"
            raise Unusable(
                f"the tag {text} names {names}, which is not there",
                f"restore its folder from a copy, or delete the tag: pipeline tag --delete {text}",
            )
    else:
        named = [model for model in models if text in (model.name, model.name.partition("/")[2])]
        found = [model for model in named if model.current]
        if named and not found:
            raise Unusable(
                f"{text!r} means what pipeline.yaml without --set makes, and that is not there; there are others: "
                f"{_first_ten(list(map(str, named)))}",
                f"pipeline run makes it; or name one by its key: {named[0].name}/{named[0].key[:SHORT]}",
            )
        found = found or _by_key(models, text)
    if not found:
        raise _unknown(folder, models, text)
    if len(found) > 1:
        raise Unusable(
            f"{text!r} may mean {len(found)} models: {_first_ten(list(map(str, found)))}",
            f"give more of the key, or all of it: {found[0].name}/{found[0].key[:SHORT]}",
        )
    if found[0].damaged:
        raise Unusable(
            f"{found[0]} is damaged: files in {found[0].folder} are missing or were changed",
            "restore that folder from a copy, or name another model (pipeline models -v names the damaged files)",
        )
    return found[0]


def tags(folder: Path) -> dict[str, tuple[str, str]]:
    """Tag -> (name, key) of its model; two empty strings for a tag that cannot be read."""
    found = {path.stem: records.load(path) or {} for path in sorted(folder.glob("models/tags/*.json"))}
    return {tag: (str(text.get("model", "")), str(text.get("key", ""))) for tag, text in found.items()}


def tagged_records(folder: Path) -> dict[str, dict[str, Any] | None]:
    """Tag -> its model's record; None where it is missing or cannot be read."""
    records_of = {(model.name, model.key): model.record or None for model in list_models(folder)}
    return {tag: records_of.get(names) for tag, names in tags(folder).items()}


def set_tag(folder: Path, text: str, tag: str, force: bool = False) -> Model:
    """Tag the model `text`. Raises Unusable where `tag` cannot be one or, without `force`, is another model's."""
    if not _TAG.fullmatch(tag) or _PREFIX.fullmatch(tag.lower()):
        raise Unusable(
            f"{tag!r} cannot be a tag: expected letters, digits, - _ and . that don't look like a key's digits",
            "for example: v3",
        )
    model = find(folder, text)
    if any(tag == known.name.partition("/")[2] for known in list_models(folder)):
        raise Unusable(f"{tag!r} cannot be a tag: it is the name of a head", "choose another, for example: v3")
    names, before = (model.name, model.key), tags(folder).get(tag)
    if before is not None and before != names and not force:
        raise Unusable(
            f"the tag {tag} names {before[0]} {before[1][:SHORT]} already", "choose another tag, or move it: --force"
        )
    if before != names:
        content = {"model": model.name, "key": model.key, "created": int(time.time())}
        atomic_files.publish(folder / "models" / "tags" / f"{tag}.json", records.dump(content))
    return model


def delete_tag(folder: Path, tag: str) -> None:
    """Raises Unusable where there is no such tag. The model stays."""
    known = tags(folder)
    if tag not in known:
        there = f"there are {_first_ten(list(known))}" if known else "there are none"
        raise Unusable(f"no tag {tag!r} in {folder / 'models'}; {there}", "pipeline models")
    atomic_files.remove(folder / "models" / "tags" / f"{tag}.json")


def _by_key(models: list[Model], text: str) -> list[Model]:
    """Models whose key begins with the digits; two names of the same settings have one key, so a name may precede."""
    name, _, digits = text.rpartition("/")
    prefix = digits.lower()
    if not _PREFIX.fullmatch(prefix):
        return []
    return [model for model in models if model.key.startswith(prefix) and name in ("", model.name)]


def _unknown(folder: Path, models: list[Model], text: str) -> Unusable:
    if not models:
        return Unusable(f"no model {text!r}: there are none in {folder / 'models'}", "pipeline run makes them")
    known = f"there are {_first_ten(list(dict.fromkeys(model.name for model in models)))}"
    if tagged := list(tags(folder)):
        known += f"; and the tags {_first_ten(tagged)}"
    return Unusable(f"no model {text!r} in {folder / 'models'}; {known}", "pipeline models")


def _first_ten(names: list[str]) -> str:
    return ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")
