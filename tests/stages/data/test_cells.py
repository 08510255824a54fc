"""cells.py: what a cell says is a label's text, or a sentence with its column; and the text is read as itself."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache.errors import Unusable
from stages.data import tables
from stages.data.cells import Cells, TargetKind
from stages.data.manifest import Manifest, Row

COLUMNS = {"path": "path", "label": "label", "split": "split", "group": "group"}
NAN, INFINITY = math.nan, math.inf


def label(kind: TargetKind, record: Mapping[str, Any], separator: str = ";") -> Any:
    """What the label is as JSON, None for none; all columns are the target's."""
    found = Cells(kind, list(record), separator).label(record)
    return None if found is None else json.loads(found)


@pytest.mark.parametrize(
    ("kind", "record", "expected"),
    [
        ("number", {"n": "1.5"}, {"n": 1.5}),
        ("number", {"n": " -2e3 "}, {"n": -2000.0}),
        ("number", {"n": 7}, {"n": 7.0}),
        ("number", {"n": 0}, {"n": 0.0}),
        ("number", {"n": ""}, None),
        ("number", {"n": None}, None),
        ("number", {"n": NAN}, None),
        ("number", {"n": "nan"}, None),
        ("number", {"a": "1", "b": "2"}, {"a": 1.0, "b": 2.0}),
        ("number", {"a": "1", "b": ""}, None),
        ("number", {"n": '{"a": 1.5, "b": 2}'}, {"a": 1.5, "b": 2.0}),
        ("number", {"n": {"a": 1.5, "b": None}}, None),
        ("labels", {"l": 1}, {"l": 1}),
        ("labels", {"l": "0.0"}, {}),
        ("labels", {"l": "rust;dent"}, {"rust": 1, "dent": 1}),
        ("labels", {"l": " rust ;; dent;rust"}, {"rust": 1, "dent": 1}),
        ("labels", {"l": ";"}, {}),
        ("labels", {"l": ""}, None),
        ("labels", {"l": None}, None),
        ("labels", {"l": 3}, {"3": 1}),
        ("labels", {"l": ["rust", "dent"]}, {"rust": 1, "dent": 1}),
        ("labels", {"l": []}, {}),
        ("labels", {"l": [1, 2]}, {"1": 1, "2": 1}),
        ("labels", {"l": '["rust", "dent"]'}, {"rust": 1, "dent": 1}),
        ("labels", {"l": "[]"}, {}),
        ("labels", {"l": "[1, 2]"}, {"1": 1, "2": 1}),
        ("labels", {"l": "[draft]"}, {"[draft]": 1}),
        ("labels", {"l": '{"rust": 1, "dent": null}'}, {"rust": 1, "dent": None}),
        ("labels", {"l": {"rust": True, "dent": 0}}, {"rust": 1}),
        ("labels", {"l": "{}"}, {}),
        ("labels", {"a": "1", "b": "0", "c": ""}, {"a": 1, "c": None}),
        ("labels", {"a": "True", "b": "false", "c": NAN}, {"a": 1, "c": None}),
        ("labels", {"a": 1.0, "b": 0.0, "c": True, "d": False}, {"a": 1, "c": 1}),
        ("labels", {"a": "yes", "b": "NO"}, {"a": 1}),
        ("labels", {"a": "0", "b": "0"}, {}),
        ("labels", {"a": "", "b": None}, None),
        ("soft", {"p": "0.25"}, {"0": 0.75, "1": 0.25}),
        ("soft", {"p": 1}, {"0": 0.0, "1": 1.0}),
        ("soft", {"p": ""}, None),
        ("soft", {"a": "0.25", "b": "0.75"}, {"a": 0.25, "b": 0.75}),
        ("soft", {"a": 0, "b": 1}, {"a": 0.0, "b": 1.0}),
        ("soft", {"a": 0.5, "b": 0.505}, {"a": 0.5 / 1.005, "b": 0.505 / 1.005}),
        ("soft", {"a": "", "b": NAN}, None),
        ("soft", {"p": '{"a": 0.25, "b": 0.75}'}, {"a": 0.25, "b": 0.75}),
        ("soft", {"p": {"a": 0.25, "b": 0.75}}, {"a": 0.25, "b": 0.75}),
    ],
    ids=str,
)
def test_what_a_row_says(kind: TargetKind, record: Mapping[str, Any], expected: Any) -> None:
    assert label(kind, record) == expected


@pytest.mark.parametrize(
    ("kind", "record", "message"),
    [
        ("number", {"n": "old"}, "n is 'old', which is no number"),
        ("number", {"n": "1,5"}, "n is '1,5', which is no number"),
        ("number", {"n": "[1, old"}, r"n is '\[1, old', which is no number"),
        ("number", {"n": "[1.5, 2]"}, "which is no number"),
        ("number", {"n": '{"a": "old"}'}, "a is 'old', which is no number"),
        ("number", {"a": 1, "b": "?"}, r"b is '\?', which is no number"),
        ("number", {"n": "inf"}, "n is infinite"),
        ("number", {"n": -INFINITY}, "n is infinite"),
        ("number", {"n": '{"n": Infinity}'}, "n is infinite"),
        ("number", {"n": 10**400}, "which is no number"),
        ("labels", {"a": "2", "b": "0"}, "a is '2'; a label is 1, 0, or empty where it is unknown"),
        ("labels", {"a": "1", "b": "maybe"}, "b is 'maybe'; a label is 1, 0"),
        (
            "labels",
            {"l": "0.25"},
            "l is 0.25, between 0 and 1: neither a name nor a mark; of probabilities the kind is",
        ),
        ("labels", {"a": 0.5, "b": 0}, "a is 0.5; a label is 1, 0"),
        ("labels", {"l": '{"rust": 0.5}'}, "rust is 0.5; a label is 1, 0"),
        ("soft", {"a": 0.5, "b": 0.6}, r"a \+ b is 1.1; shares of one image sum to 1"),
        ("soft", {"a": 0, "b": 0}, r"a \+ b is 0; shares of one image sum to 1"),
        ("soft", {"a": 1.5, "b": -0.5}, "a is 1.5; a share is 0 to 1"),
        ("soft", {"a": -0.2, "b": 0.6, "c": 0.6}, "a is -0.2; a share is 0 to 1"),
        ("soft", {"a": 0.6, "b": 0.6, "c": -0.2}, "c is -0.2; a share is 0 to 1"),
        ("soft", {"a": 1, "b": ""}, "b is empty, though other shares are there"),
        ("soft", {"a": "most", "b": 0}, "a is 'most', which is no number"),
        ("soft", {"p": 1.5}, "p is 1.5; a probability is 0 to 1"),
        ("soft", {"p": '{"a": 5, "b": 3}'}, "a is 5; a share is 0 to 1"),
        ("soft", {"p": "[0.5, 0.5]"}, "which is no number"),
    ],
    ids=str,
)
def test_a_cell_of_another_kind_is_named(kind: TargetKind, record: Mapping[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        label(kind, record)


@pytest.mark.parametrize(("text", "separator"), [("a|b", "|"), ("a, b", ","), ("a b", " "), ("a--b", "--")])
def test_labels_are_separated_by_what_is_set(text: str, separator: str) -> None:
    assert label("labels", {"l": text}, separator) == {"a": 1, "b": 1}
    assert label("labels", {"l": text}, "/") == {text: 1}


NAMES = ["a", "b", "ü;"]
RECORDS: dict[TargetKind, Any] = {
    "number": st.tuples(*[st.floats(allow_nan=False, allow_infinity=False)] * 3),
    "labels": st.tuples(*[st.sampled_from(["", "0", "1"])] * 3),
    "soft": st.tuples(*[st.floats(0.01, 1)] * 3).map(lambda w: tuple(x / sum(w) for x in w)),
}


@pytest.mark.parametrize("kind", RECORDS)
@given(data=st.data())
def test_the_text_of_a_label_is_read_as_itself(kind: TargetKind, data: st.DataObject) -> None:
    text = Cells(kind, NAMES).label(dict(zip(NAMES, data.draw(RECORDS[kind]), strict=True)))
    if text is not None:
        assert Cells(kind, ["label"]).label({"label": text}) == text


def read(path: Path, kind: TargetKind, columns: Sequence[str]) -> list[Row]:
    return tables.read_table(path, COLUMNS, path.parent, cells=Cells(kind, columns)).rows


@pytest.mark.parametrize(
    ("kind", "records"),
    [
        ("number", [{"a": 1 / 3, "b": -1e-9}, {"a": 2, "b": None}]),
        ("labels", [{"a": 1, "b": None}, {"a": 0, "b": 0}, {"a": None, "b": None}]),
        ("soft", [{"a": 0.1, "b": 0.9}, {"a": 0.333, "b": 0.666}, {"a": 0.0, "b": 1.0}]),
    ],
)
@pytest.mark.parametrize("columns", [["a", "b"], ["label"]])
def test_a_saved_manifest_is_read_back_equal(
    tmp_path: Path, kind: TargetKind, records: Sequence[Mapping[str, Any]], columns: Sequence[str]
) -> None:
    """By the columns of the table that it was made from, and by its own."""
    path = tmp_path / "t.jsonl"
    lines = [{"id": f"{i:064x}", "path": f"{i}.png", "split": "train", **r} for i, r in enumerate(records)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    rows = read(path, kind, ["a", "b"])
    assert any(row.label is not None for row in rows)
    saved = tmp_path / "manifest.jsonl"
    saved.write_bytes(Manifest(tuple(rows)).to_bytes())
    assert read(saved, kind, columns) == rows


def test_a_table_of_csv_jsonl_and_parquet_says_the_same(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    records = [{"path": "1.png", "a": 1, "b": None}, {"path": "2.png", "a": 0, "b": 1}]
    (tmp_path / "t.csv").write_text("path,a,b\n1.png,1,\n2.png,0,1\n")
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    pq.write_table(pa.Table.from_pylist(records), tmp_path / "t.parquet")
    pq.write_table(pa.Table.from_pylist([{"path": "1.png", "l": ["x", "y"]}]), tmp_path / "lists.parquet")
    for kind in ("csv", "jsonl", "parquet"):
        found = [row.label for row in read(tmp_path / f"t.{kind}", "labels", ["a", "b"])]
        assert found == ['{"a": 1, "b": null}', '{"b": 1}']
    assert [row.label for row in read(tmp_path / "lists.parquet", "labels", ["l"])] == ['{"x": 1, "y": 1}']


def test_a_mistake_says_its_row_and_a_missing_column_those_there(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("path,age\n1.png,3\n2.png,\n3.png,old\n")
    with pytest.raises(Unusable, match=r"t\.csv: line 4: age is 'old', which is no number"):
        read(path, "number", ["age"])
    with pytest.raises(Unusable, match=r"t\.csv: no column 'size'; it has 'age', 'path'") as caught:
        read(path, "number", ["age", "size"])
    assert "data.target.columns" in caught.value.hint


def test_a_column_of_probabilities_is_of_the_second_class() -> None:
    """Their names are 0 and 1, or the two that pipeline.yaml has."""
    record = {"cracked": "0.25"}
    assert label("soft", record) == {"0": 0.75, "1": 0.25}
    named = Cells("soft", ["cracked"], classes=["intact", "cracked"]).label(record)
    assert json.loads(named or "") == {"intact": 0.75, "cracked": 0.25}
