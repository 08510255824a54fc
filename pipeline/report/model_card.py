"""Owns the sections on what made a model, and on what it is for: intended use, limits, licences.

After Mitchell et al. 2019, Model Cards for Model Reporting. What only people know stands in pipeline.yaml (card).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from cache.errors import PipelineError
from pipeline.evaluation.audit_findings import Audit
from pipeline.report.findings import across_splits
from pipeline.report.material import Material
from pipeline.report.page import Section
from pipeline.results.model import SHORT
from pipeline.serving import recorded_model
from pipeline.show.console import format_time
from stages.data.manifest import SPLITS
from stages.runtime.counted_words import count_of

_FEW_JUDGED = 200
_FEW_OF_CLASS = 20
_MOST_CLASSES = 30


def origin(material: Material) -> Section:
    """Base, data, splits, settings and versions, as its record has them."""
    model, record = material.model, material.model.record
    config, versions = record["config"], record.get("versions", {})
    taps = recorded_model.tap_names(model)
    of_taps = [(tap, record["extract"][tap]) for tap in taps if tap in record["extract"]]
    counts = model.manifest().counts(record.get("classes", ()), material.target.counted)
    settings = {
        name: value for name, value in model.settings.items() if name not in ("base", "extract", "taps", "data")
    }
    git, chosen = record.get("git") or {}, model.head.chosen.items()
    by = f"frozenbase {versions.get('frozenbase', '?')}"
    facts: list[tuple[str, str]] = [
        ("Model", f"{model.name}, key {model.key}"),
        *([("Tags", ", ".join(model.tags))] if model.tags else []),
        ("Made", f"{format_time(model.created)}, in {record['seconds']:,.1f} s, by {by}"),
        *(("Base", _describe_tap(tap, parts)) for tap, parts in of_taps),
        ("Settings", _plain(settings)),
        ("Chosen", _plain({name: value for name, value in chosen if not isinstance(value, Mapping | list | tuple)})),
        ("Splits", _describe_splits(config["data"])),
        ("Rows made by", "; ".join(record.get("rows_made_by", [])) or "not recorded"),
        ("Versions", ", ".join(f"{name} {version}" for name, version in versions.items())),
        ("Machine", str(record.get("machine", "not recorded"))),
        *([("Commit", f"{git['commit']}{', with changes' if git.get('dirty') else ''}")] if git.get("commit") else []),
        ("Again", f"pipeline reproduce {model.key[:SHORT]}"),
    ]  # fmt: skip
    splits = [split for split in SPLITS if any(of[split] for of in counts.values())]
    rows = [(name, *(of[split] for split in splits)) for name, of in list(counts.items())[:_MOST_CLASSES]]
    totals = [sum(of[split] for of in counts.values()) for split in splits]
    content = {"facts": [fact for fact in facts if fact[1]], "splits": splits, "counts": rows, "totals": totals,
               "hidden": len(counts) - len(rows), "word": material.target.word,
               "exclusive": material.target.exclusive}  # fmt: skip
    return Section("origin", "What made it", "origin.html", content)


def card(material: Material, audit: Audit | PipelineError | None) -> Section:
    """What it is for, what its figures cannot tell, and whose licences hold."""
    written = material.today.config.card
    content = {
        "predicts": _describe_purpose(material),
        "intended_use": written.intended_use,
        "limits": [*([written.limits] if written.limits else []), *_limits(material, audit)],
        "data_licence": written.data_licence,
        "weights": list(dict.fromkeys(recorded_model.licences(material.model))),
    }
    return Section("card", "Model card", "card.html", content)


def _describe_tap(tap: str, parts: Mapping[str, object]) -> str:
    base, pixels, of = (parts[name] for name in ("base", "pixels", "tap"))
    assert isinstance(base, dict)
    assert isinstance(pixels, dict)
    assert isinstance(of, dict)
    size = " x ".join(map(str, pixels["size"])) if isinstance(pixels["size"], list) else str(pixels["size"])
    return (
        f"{tap}: {base['name']}, weights {base['weights'][:SHORT]}, layer {of['layer']}, pooling {of['pooling']}, "
        f"{size} pixels, {pixels['fit']}, {parts['numerics']}; extract key {str(parts['key'])[:SHORT]}"
    )


def _describe_splits(data: Mapping[str, object]) -> str:
    split = data.get("split")
    grouped = f"; groups by {data['group_from']}" if data.get("group_from") else ""
    drawn = ", ".join(f"{name} {value}" for name, value in split.items()) if isinstance(split, dict) else ""
    return f"where the data has none: {drawn}{grouped}"


def _plain(settings: Mapping[str, object]) -> str:
    return ", ".join(f"{name} {_short(value)}" for name, value in settings.items() if value is not None)


def _short(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _describe_purpose(material: Material) -> str:
    record, target = material.model.record, material.target
    names = ", ".join(target[:10]) + (f" and {len(target) - 10:,} more" if len(target) > 10 else "")
    base = record["config"]["base"]["name"]
    tuned = "with its last blocks fine-tuned" if recorded_model.is_finetuned(material.model) else "frozen"
    what = {True: "one class of", False: f"{target.noun}:"}[target.exclusive]
    return f"Of a picture it says {what} {names}. It is a {material.model.head.kind} head on {base}, {tuned}."


def _describe_unknown(material: Material) -> str:
    unknown = material.model.unknown
    if unknown is None:
        return "It names one of its classes for any picture, whatever is on it."
    return (
        "It names one of its classes for any picture; of those unlike the images that it was fitted on it also says so "
        f"(unknown, at a false alarm rate of {unknown.rate:.0%}), which does not find all of them."
    )


def _limits(material: Material, audit: Audit | PipelineError | None) -> Sequence[str]:
    """What its own figures and data tell of its limits."""
    found = ["Its figures hold for images that come about as these did; of others they tell nothing."]
    shown = material.shown
    if shown.name != "test":
        found.append("There is no test set: settings were chosen on the images that judge it.")
    elif len(shown.numbers) < _FEW_JUDGED:
        found.append(f"It was tested on {count_of(len(shown.numbers), 'image')} alone: mind the intervals.")
    if material.target.exclusive:
        found.append(_describe_unknown(material))
        counts = material.model.manifest().counts(material.target, material.target.counted)
        rare = [(name, of["train"]) for name, of in counts.items() if of["train"] < _FEW_OF_CLASS]
        if rare:
            some = ", ".join(f"{name} ({n})" for name, n in rare[:5]) + (" and others" if len(rare) > 5 else "")
            found.append(f"It learnt from fewer than {_FEW_OF_CLASS} images of {some}.")
    if all(row.group is None for row in material.predicted.rows):
        found.append("No groups are given: pictures of one object may be both in train and in test.")
    if pairs := across_splits(audit):
        found.append(f"{count_of(pairs, 'pair')} of near copies lie in two splits, so figures may be too good.")
    found += [f"{note[:1].upper()}{note[1:]}." for note in material.model.calibration.notes or ()]
    return found
