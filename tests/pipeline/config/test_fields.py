"""fields.py: every field of pipeline.yaml has a place in keys, and changes those keys alone; with a numpy base."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest

from pipeline.config import head_schema, schema
from pipeline.config.fields import Section
from stages.bases import trust
from tests.conftest import Pipeline, counts
from tests.support import fakes

OTHER_VALUE = {
    "data.root": "other",
    "data.table": "table.jsonl",
    "data.columns.path": "path2",
    "data.columns.label": "label2",
    "data.columns.split": "split2",
    "data.columns.group": "group2",
    "data.group_from": r"'(\d\d)\.png'",
    "data.classes": "[dark, bright]",
    "data.split.method": "stratified",
    "data.split.val": "0.4",
    "data.split.test": "0.35",
    "data.split.seed": "5",
    "data.on_bad": "skip",
    "data.on_leak": "warn",
    "data.max_pixels": "50000000",
    "data.follow_links": "all",
    "base.name": "mobilenet_v2",
    "base.weights": "other.weights.h5",
    "base.trust": "true",
    "base.preprocess": "{scale: 2, order: bgr}",
    "extract.size": "32",
    "extract.fit": "crop",
    "extract.resize": "keras",
    "extract.resize_to": "20",
    "extract.decode": "full",
    "extract.taps.*.layer": "block3_add",
    "extract.taps.*.pooling": "max",
    "extract.taps.*.layout": "nchw",
    "extract.taps.*.prefix": "1",
    "extract.taps.*.base": "{weights: other.weights.h5}",
    "extract.taps.*.size": 32,
    "extract.taps.*.fit": "crop",
    "extract.taps.*.resize": "bicubic",
    "extract.taps.*.resize_to": "20",
    "extract.taps.*.numerics": "tensorflow-bf16",
    "extract.numerics": "tensorflow-bf16",
    "extract.engine": "tensorflow",
    "extract.batch": "3",
    "extract.shard_rows": "5",
    "extract.dtype": "float16",
    "heads.*.kind": "ridge",
    "heads.*.C": "0.5",
    "heads.*.seed": "1",
    "heads.*.unknown": "0.1",
    "heads.*.choose": "val",
    "heads.*.kinds": "[knn]",
    "heads.*.alpha": "2",
    "heads.*.folds": "3",
    "heads.*.k": "[1, 3]",
    "heads.*.temperature": "0.1",
    "heads.*.units": "[]",
    "heads.*.activation": "linear",
    "heads.*.dropout": "0.1",
    "heads.*.standardise": "false",
    "heads.*.optimizer": "rmsprop",
    "heads.*.lr": "0.01",
    "heads.*.weight_decay": "0.1",
    "heads.*.label_smoothing": "0.1",
    "heads.*.class_weight": "balanced",
    "heads.*.batch": "4",
    "heads.*.epochs": "2",
    "heads.*.patience": "null",
    "heads.*.log_dir": "logs",
    "cluster.workers": "2",
    "cluster.timeout": 60,
    "cache.dir": "other-cache",
    "card.intended_use": "sorting",
    "card.limits": "by day",
    "card.data_licence": "CC0",
    "cache.remote": "file:///not/asked",
}
BY_ANOTHER_TEST = {
    "heads.*.tap",  # test_a_head_s_key_sees_what_its_tap_is_not_how_it_is_called
    "heads.*.sweep",  # test_sweeps.py
    *(f"data.target.{field}" for field in ("kind", "columns", "separator", "units")),  # test_other_targets.py
}


def kind_with(field: str) -> str:
    """The first kind of head that has the field."""
    name = field.rpartition(".")[2] if field.startswith("heads.") else "kind"
    return next(kind for kind, row in head_schema.HEAD_KINDS.items() if name in row.spec.model_fields)


PLACES = schema.field_places()


def test_a_field_without_a_place_in_keys_is_an_error() -> None:
    class Unplaced(Section):
        new: int = 0

    with pytest.raises(AttributeError, match="keyed"):
        schema.field_places(Unplaced)


def test_the_walk_covers_every_field() -> None:
    tuned = {field for field in PLACES if field.startswith("finetune.")}  # test_finetuning.py
    assert set(OTHER_VALUE) | BY_ANOTHER_TEST | tuned == set(PLACES)


@pytest.mark.parametrize("field", OTHER_VALUE)
def test_every_field_moves_the_keys_it_should_and_no_other(
    pipeline: Pipeline, project: Path, field: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "stages.heads.dense", fakes.Dense)  # type: ignore[arg-type]
    folder = project.parent
    (folder / "w.weights.h5").write_bytes(b"weights")
    (folder / "own.h5").write_bytes(b"a model of one's own")
    (folder / "other.weights.h5").write_bytes(b"other weights")
    shutil.copytree(folder / "images", folder / "other")
    paths = sorted(path.relative_to(folder / "images") for path in (folder / "images").rglob("*.png"))
    columns = {"split2": None, "group2": None}
    rows = [
        {"path": str(p), "path2": str(p), "label": p.parent.name, "label2": p.parent.name, **columns} for p in paths
    ]
    (folder / "table.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    kind = "" if field == "heads.*.kind" else f", kind: {kind_with(field)}"
    kind += ", choose: val" if field == "data.split.val" else ""  # folds know no boundary of train and val
    trust.trust_file(folder / "own.h5")
    base = "name: own.h5" if field == "base.preprocess" else "weights: w.weights.h5"
    fit = "fit: crop, " if field.endswith("resize_to") else ""
    table = "  table: table.jsonl\n" if field.startswith("data.columns") else ""
    project.write_text(
        f"data:\n{table}  split: {{val: 0.3, test: 0.2}}\n"
        f"base: {{{base}}}\nextract: {{size: 16, {fit}taps: {{p: {{}}}}}}\n"
        f"heads: {{h: {{tap: p{kind}}}}}\n"
    )
    first = pipeline("run", "-c", project, "--json")
    assert counts(first) == (24, 0)
    dotted = field.replace("taps.*", "taps.p").replace("heads.*", "heads.h")
    changed = pipeline("run", "-c", project, "--json", "--set", f"{dotted}={OTHER_VALUE[field]}")
    stage = PLACES[field].stage
    fresh = stage == "extract" or field == "cache.dir"
    assert counts(changed) == ((24, 0) if fresh else (0, 24))
    assert (changed.json["extract"]["keys"] != first.json["extract"]["keys"]) == (stage == "extract")
    assert changed.json["heads"]["h"]["hit"] == (stage == "none")
    back = pipeline("run", "-c", project, "--json")
    assert counts(back) == (0, 24)
    assert back.json["heads"]["h"]["hit"]


def test_a_head_s_key_sees_what_its_tap_is_not_how_it_is_called(pipeline: Pipeline, project: Path) -> None:
    first = pipeline("run", "-c", project, "--json")
    text = (
        "data: {split: {val: 0.3, test: 0.2}}\nheads: {logistic: {tap: renamed}}\nextract: {size: 16, taps: {renamed: "
    )
    project.write_text(text + "{layer: head_activation}}}")
    again = pipeline("run", "-c", project, "--json")
    assert counts(again) == (0, 24)
    assert again.json["heads"]["logistic"]["hit"]
    assert again.json["extract"]["keys"]["renamed"] == first.json["extract"]["keys"]["pooled"]
    project.write_text(text + "{pooling: max}}}")
    other = pipeline("run", "-c", project, "--json")
    assert other.json["heads"]["logistic"]["key"] != first.json["heads"]["logistic"]["key"]
