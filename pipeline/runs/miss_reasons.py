"""Owns why rows or a model are missing: what differs from the nearest existing ones. Not their state (status.py)."""

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from cache import records
from pipeline.config.finetune_schema import FineTune
from pipeline.config.head_schema import DEFAULT_RATE, HEAD_KINDS, HeadConfig
from pipeline.project.project import Project
from pipeline.results.model import read_record
from pipeline.results.record_diff import Differences, find_differences, flatten, shorten
from pipeline.runs import boundary_rows, train_heads
from pipeline.runs.finetuning import Tuning
from pipeline.runs.provenance import describe_rows
from stages.bases.published import find_published
from stages.data.manifest import Manifest, Row
from stages.heads import fitted
from stages.runtime.counted_words import count_of

_TAP = re.compile(r"(.*rows\.taps\.(\d+)\.)(\w+)")


class Why(NamedTuple):
    """A reason, the differences behind it, and the seconds that the nearest result took, if there is one."""

    reason: str
    differences: Differences
    seconds: float | None = None


def explain_rows(project: Project, tap: str) -> Why:
    """Why no image has rows of that tap's key: compared with the key that has rows of these images and differs least.

    Of several such keys, the latest.
    """
    ids, ranked, components = project.manifest.ids, [], project.store(tap).components
    for store in project.cache.stores():
        if store.components and len(store.missing(ids)) < len(ids):
            differences = find_differences(store.components, components)
            ranked.append((-len(differences), (store.folder / "spec.json").stat().st_mtime_ns, differences))
    differences = max(ranked, key=lambda entry: entry[:2])[2] if ranked else {}
    texts = _changed(differences, _published(project, tap) if differences else {})
    return Why("; ".join(texts) or "the cache has no rows of these images", differences)


def _published(project: Project, tap: str) -> dict[str, str]:
    """Components of the key that are as a file beside the tap's base says -> the name of that file."""
    choice = project.choice(tap)
    found = None if choice.base.format.reader is None else find_published(project.at(choice.file))
    if found is None:
        return {}
    now = flatten(project.store(tap).components)
    return {name: found.path.name for name, value in flatten(found.components()).items() if now.get(name) == value}


def explain_head(
    project: Project, name: str, spec: HeadConfig, folder: Path, manifest: Manifest, classes: Sequence[str]
) -> Why:
    """Why the head with those settings is missing: compared with the one in `folder` that differs least."""
    spec, manifest = train_heads.choose_rows(project, spec, manifest)
    now = {
        "config": {"heads": {name: spec.model_dump()}},
        "head_version": fitted.VERSION,
        "classes": classes,
        "extract": describe_rows({tap: project.store(tap) for tap in spec.taps}),
    }
    return _nearest(folder, partial(_head_inputs, name), now, manifest, "there is no head of that name yet")


def explain_finetune(tuning: Tuning, seed: int) -> Why:
    """Why the fine-tuned model of that seed is missing: compared with the one of its name that differs least."""
    project, spec, head = tuning.project, tuning.spec, tuning.start.spec
    boundary = project.rows_of(boundary_rows.boundary_spec(project, spec))
    now = {
        "config": {"heads": {spec.head: head.model_dump()}, "finetune": {tuning.name: spec.model_dump()}},
        "seed": seed,
        "classes": tuning.target,
        "extract": describe_rows({"boundary": boundary, **{tap: project.store(tap) for tap in head.taps}}),
    }
    folder, none = tuning.folder(seed).parent, "there is no fine-tuning of that name yet"
    return _nearest(folder, partial(_finetune_inputs, tuning.name), now, tuning.manifest, none)


def _nearest(
    folder: Path, inputs: Callable[[Mapping[str, Any]], Any], now: Mapping[str, Any], manifest: Manifest, none: str
) -> Why:
    """Why there is no result: its record would have what `now` has; it is compared with the one that differs least.

    `inputs` takes from a record what a result is made from. `none` is the reason if the folder has no result.
    """
    ranked, wanted = [], inputs(now)
    for path in folder.glob(f"*/{records.RECORD}"):
        if record := read_record(path):
            differences = find_differences(inputs(record), wanted)
            distance = len(differences) + (record["manifest"] != manifest.digest)
            fewer = abs(record["images"] - len(manifest.rows))  # a fine-tuning's start has no images of val
            at = (-distance, -fewer, record["created"], str(path.parent))
            ranked.append((*at, record["seconds"], differences))
    if not ranked:
        return Why(none, {})
    *_, nearest, seconds, differences = max(ranked, key=lambda entry: entry[:4])
    moved: Iterator[str] = iter(())
    with suppress(FileNotFoundError, ValueError):  # no result without its other files, whole
        before = Manifest.from_bytes(Path(nearest, "manifest.jsonl").read_bytes())
        pooled = all(row.split != "val" for row in manifest.rows)  # folds know no boundary of train and val
        moved = _moved((before.pooled if pooled else before).samples, manifest.samples)
    texts = dict.fromkeys([*_changed(differences), *moved])  # head and boundary rows may change for the same reason
    return Why(
        "; ".join(texts) or "the existing one is damaged, or of another version of this package", differences, seconds
    )


def _head_inputs(name: str, record: Mapping[str, Any]) -> dict[str, Any]:
    """What an existing head was made from, apart from its images."""
    return {
        "settings": {"unknown": DEFAULT_RATE, **_without_none(record["config"]["heads"][name])},  # older ones lack it
        "fitting": record.get("head_version"),
        "classes": list(record["classes"]),
        "rows": _describe_rows(_head_taps(record, record["config"]["heads"][name])),
    }


def _finetune_inputs(name: str, record: Mapping[str, Any]) -> dict[str, Any]:
    """What an existing fine-tuned model was made from, apart from its images."""
    spec = record["config"]["finetune"][name]
    head = record["config"]["heads"][spec["head"]]
    kind = HEAD_KINDS.get(head["kind"])
    return {
        "settings": {**_without_none(spec, FineTune.not_by_value()), "seed": record["seed"]},
        "head": _without_none(head, kind.spec.not_by_value() if kind else set()),
        "classes": list(record["classes"]),
        "rows": _shared_by_taps(record["extract"]["boundary"]),
        "head_rows": _describe_rows(_head_taps(record, head)),
    }


def _head_taps(record: Mapping[str, Any], head: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The components of a head's taps in the order of the head; records sort them by name."""
    taps = [head["tap"]] if isinstance(head["tap"], str) else head["tap"]
    return [record["extract"][tap] for tap in taps]


def _shared_by_taps(tap: Mapping[str, Any]) -> dict[str, Any]:
    """The components that all taps have in common; of a boundary, unfreeze_from and dtype name the others."""
    return {name: part for name, part in tap.items() if name not in ("key", "tap", "dtype")}


def _without_none(settings: Mapping[str, Any], but: Collection[str] = ()) -> dict[str, Any]:
    """The settings that are not None and not in `but`."""
    return {field: value for field, value in settings.items() if value is not None and field not in but}


def _describe_rows(taps: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """The components of a head's rows: those its taps have in common, and those of each tap, by number."""
    each = {str(n): {"key": tap["key"], "dtype": tap.get("dtype"), **tap["tap"]} for n, tap in enumerate(taps, start=1)}
    return {**_shared_by_taps(taps[0]), "taps": each}


def _changed(differences: Differences, published: Mapping[str, str] = MappingProxyType({})) -> Iterator[str]:
    """`weights changed: 5793... -> 77cc...`. Left out are keys and names of taps, which follow from the rest.

    published: field -> the file that sets it, which is named. Also left out is what comes with another base: its
    version, weights and preprocessing.
    """
    bases = {name.removesuffix("base.name") for name in differences if name.endswith("base.name")}
    implied = tuple(f"{prefix}{part}." for prefix in bases for part in ("base", "preprocess"))
    moved = {name.removesuffix("layer") for name, pair in differences.items() if _TAP.match(name) and None in pair}
    if "fitting" in differences:
        yield f"heads are fitted in another way: version {' -> '.join(map(str, differences['fitting']))}"
    new = {"settings.choose", "settings.folds"} if "fitting" in differences else set()
    for name, (before, now) in differences.items():
        if name == "fitting" or (name in new and before is None):
            continue
        tap = _TAP.match(name)
        if tap and tap[1] in moved:
            if tap[3] == "layer":
                yield f"tap {tap[2]} is {'new' if before is None else 'gone'}"
            continue
        last = name.rpartition(".")[2]
        if name.endswith("base.name"):
            yield f"base changed: {shorten(before)} -> {shorten(now)}"
        elif last != "key" and name not in ("settings.tap", "settings.log_dir") and not name.startswith(implied):
            whose = "its head's " if name.startswith("head.") else ""
            whose += f"tap {tap[2]}'s " if tap and tap[2] != "1" else ""
            by = f" ({published[name]})" if name in published else ""
            yield f"{whose}{last} changed: {shorten(before)} -> {shorten(now)}{by}"


def _moved(before: Sequence[Row], now: Sequence[Row]) -> Iterator[str]:
    """How the labelled images changed."""
    old, new = {row.id: row for row in before}, {row.id: row for row in now}
    counts = Counter(
        part
        for i in old.keys() & new.keys()
        for part in ("label", "split", "group")
        if getattr(old[i], part) != getattr(new[i], part)
    )
    texts = {
        ("{}", "new image"): len(new.keys() - old.keys()),
        ("{} gone", "image"): len(old.keys() - new.keys()),
        ("labels changed: {}", "row"): counts["label"],
        ("split changed: {} moved", "row"): counts["split"],
        ("groups changed: {}", "row"): counts["group"],
    }
    return (text.format(count_of(n, word)) for (text, word), n in texts.items() if n)
