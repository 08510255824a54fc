"""Owns why rows or a model are not there, in words: what differs from the nearest that is. Not what a run would do."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from cache import records
from pipeline.config.finetune_schema import FineTune
from pipeline.config.head_schema import HEAD_KINDS, HeadConfig
from pipeline.project.project import Project
from pipeline.results.record_diff import Differences, find_differences
from pipeline.runs import boundary_rows
from pipeline.runs.finetuning import Tuning
from stages.data.manifest import Manifest, Row

_TAP = re.compile(r"(.*rows\.taps\.(\d+)\.)(\w+)")


class Why(NamedTuple):
    """A reason, the differences that it tells of, and how many seconds the nearest took; None where there is none."""

    reason: str
    differences: Differences
    seconds: float | None = None


def explain_rows(project: Project, components: Mapping[str, Any]) -> Why:
    """Why no image has rows of that key: against the entry that has rows of these images and differs least.

    Of several, it is the latest.
    """
    ids, ranked = project.manifest.ids, []
    for store in project.cache.stores():
        if store.components and len(store.missing(ids)) < len(ids):
            differences = find_differences(store.components, components)
            ranked.append((-len(differences), (store.folder / "spec.json").stat().st_mtime_ns, differences))
    differences = max(ranked, key=lambda entry: entry[:2])[2] if ranked else {}
    return Why("; ".join(_changed(differences)) or "the cache has no rows of these images", differences)


def explain_head(
    project: Project, name: str, spec: HeadConfig, folder: Path, manifest: Manifest, classes: Sequence[str]
) -> Why:
    """Why the head of those settings is not there: against the one in `folder`, of that name, that differs least."""
    stores = [project.store(tap) for tap in spec.taps]
    now = {
        "settings": spec.model_dump(exclude_none=True),
        "classes": list(classes),
        "rows": _rows_of([{"key": store.key, **store.components} for store in stores]),
    }
    return _nearest(folder, partial(_behind_head, name), now, manifest, "there is no head of that name yet")


def explain_finetune(tuning: Tuning, seed: int) -> Why:
    """Why the fine-tuned model of that seed is not there: against the one of its name that differs least."""
    boundary = boundary_rows.view_stores(tuning.project, tuning.spec)[0]
    stores = [tuning.project.store(tap) for tap in tuning.start.spec.taps]
    now = {
        "settings": {**_set(tuning.spec.settings), "seed": seed},
        "head": _set(tuning.start.spec.settings),
        "classes": list(tuning.classes),
        "rows": _before({"key": boundary.key, **boundary.components}),
        "head_rows": _rows_of([{"key": store.key, **store.components} for store in stores]),
    }
    folder, never = tuning.folder(seed).parent, "there is no fine-tuning of that name yet"
    return _nearest(folder, partial(_behind_tuned, tuning.name), now, tuning.manifest, never)


def _nearest(
    folder: Path, behind: Callable[[Mapping[str, Any]], Any], now: Mapping[str, Any], manifest: Manifest, never: str
) -> Why:
    """Why what `now` decides is not there: against the result in `folder` that differs least, by its record."""
    found = [(path, r) for path in folder.glob(f"*/{records.RECORD}") if (r := records.load(path)) is not None]
    if not found:
        return Why(never, {})
    ranked = []
    for path, made in found:
        differences = find_differences(behind(made), now)
        far = len(differences) + (made["manifest"] != manifest.digest)
        ranked.append((-far, made["created"], str(path.parent), made["seconds"], differences))
    *_, nearest, seconds, differences = max(ranked, key=lambda entry: entry[:3])
    moved: Iterator[str] = iter(())
    with suppress(FileNotFoundError):  # the record alone does not make a result
        moved = _moved(Manifest.from_bytes(Path(nearest, "manifest.jsonl").read_bytes()).samples, manifest.samples)
    texts = dict.fromkeys([*_changed(differences), *moved])  # rows of head and boundary change alike
    reason = "; ".join(texts) or "the one that is there is damaged, or by other code"
    return Why(reason, differences, seconds)


def _behind_head(name: str, made: Mapping[str, Any]) -> dict[str, Any]:
    """What decided a head that is there, but for its images."""
    return {
        "settings": _set(made["config"]["heads"][name]),
        "classes": list(made["classes"]),
        "rows": _rows_of(_head_taps(made, made["config"]["heads"][name])),
    }


def _behind_tuned(name: str, made: Mapping[str, Any]) -> dict[str, Any]:
    """What decided a fine-tuned model that is there, but for its images."""
    spec = made["config"]["finetune"][name]
    head = made["config"]["heads"][spec["head"]]
    return {
        "settings": {**_set(spec, FineTune.not_by_value()), "seed": made["seed"]},
        "head": _set(head, HEAD_KINDS[head["kind"]].spec.not_by_value()),
        "classes": list(made["classes"]),
        "rows": _before(made["extract"]["boundary"]),
        "head_rows": _rows_of(_head_taps(made, head)),
    }


def _head_taps(made: Mapping[str, Any], head: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """What a record has of the taps of a head, in the head's order: its JSON has them by name."""
    taps = [head["tap"]] if isinstance(head["tap"], str) else head["tap"]
    return [made["extract"][tap] for tap in taps]


def _before(tap: Mapping[str, Any]) -> dict[str, Any]:
    """What lies behind the rows of a tap but for which they are; of a boundary unfreeze_from and dtype tell that."""
    return {name: part for name, part in tap.items() if name not in ("key", "tap", "dtype")}


def _set(settings: Mapping[str, Any], but: Collection[str] = ()) -> dict[str, Any]:
    """The settings that have a value, as far as they decide anything."""
    return {field: value for field, value in settings.items() if value is not None and field not in but}


def _rows_of(taps: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """What lies behind the rows of a head: what its taps share, and what each is, by number."""
    each = {str(n): {"key": tap["key"], "dtype": tap.get("dtype"), **tap["tap"]} for n, tap in enumerate(taps, start=1)}
    return {**_before(taps[0]), "taps": each}


def _changed(differences: Differences) -> Iterator[str]:
    """`weights changed: 5793... -> 77cc...`; keys and the tap's name follow from the rest, and go unsaid.

    So does what another base brings along: its version, its weights, and how it wants its pixels.
    """
    bases = {name.removesuffix("base.name") for name in differences if name.endswith("base.name")}
    brought = tuple(f"{prefix}{part}." for prefix in bases for part in ("base", "preprocess"))
    alone = {name.removesuffix("layer") for name, pair in differences.items() if _TAP.match(name) and None in pair}
    for name, (before, now) in differences.items():
        tap = _TAP.match(name)
        if tap and tap[1] in alone:
            if tap[3] == "layer":
                yield f"tap {tap[2]} is {'new' if before is None else 'gone'}"
            continue
        last = name.rpartition(".")[2]
        if name.endswith("base.name"):
            yield f"base changed: {before} -> {now}"
        elif last != "key" and name not in ("settings.tap", "settings.log_dir") and not name.startswith(brought):
            whose = "its head's " if name.startswith("head.") else ""
            whose += f"tap {tap[2]}'s " if tap and tap[2] != "1" else ""
            yield f"{whose}{last} changed: {_short(before)} -> {_short(now)}"


def _short(value: Any) -> str:
    text = str(value)
    return f"{text[:4]}..." if isinstance(value, str) and len(text) == 64 else text


def _moved(before: Sequence[Row], now: Sequence[Row]) -> Iterator[str]:
    """In words, what became of the labelled images."""
    old, new = {row.id: row for row in before}, {row.id: row for row in now}
    counts = Counter(
        part
        for i in old.keys() & new.keys()
        for part in ("label", "split", "group")
        if getattr(old[i], part) != getattr(new[i], part)
    )
    texts = {
        "{} new images": len(new.keys() - old.keys()),
        "{} images gone": len(old.keys() - new.keys()),
        "labels changed: {} rows": counts["label"],
        "split changed: {} rows moved": counts["split"],
        "groups changed: {} rows": counts["group"],
    }
    return (text.format(n) for text, n in texts.items() if n)
