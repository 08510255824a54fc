"""tables.py: rows as the table has them, or what is wrong with it, and where."""

from __future__ import annotations

import hashlib
import json
import unicodedata
from pathlib import Path

import pytest

from cache.errors import Unusable
from cache.hash_index import HashIndex
from stages.data import scan, tables
from stages.data.manifest import Manifest, Row
from stages.runtime.silent_imports import import_parquet
from tests.support.fakes import numbered

COLUMNS = {"path": "path", "label": "label", "split": "split", "group": "group"}


def lay(root: Path, *paths: str) -> None:
    for number, path in enumerate(paths):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(numbered(number))


def table(path: Path, root: Path, /, **columns: str) -> scan.Found:
    return scan.hash_files(tables.read_table(path, {**COLUMNS, **columns}, root), root, HashIndex())


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_a_table_of_each_kind(tmp_path: Path, kind: str) -> None:
    lay(tmp_path, "images/1.png", "images/2.png")
    records = [
        {"path": "1.png", "label": "007", "split": "train", "group": "g"},
        {"path": "2.png", "label": "no", "split": "validation", "group": None},
    ]
    path = tmp_path / f"labels.{kind}"
    if kind == "csv":
        path.write_text("path,label,split,group\n1.png,007,train,g\n2.png,no,validation,\n")
    elif kind == "jsonl":
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
    else:
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.Table.from_pylist(records), path)
    rows = table(path, tmp_path / "images").rows
    assert [row[1:] for row in rows] == [("1.png", "007", "train", "g"), ("2.png", "no", "val", None)]
    assert rows[0].id == hashlib.sha256(numbered(0)).hexdigest()


def test_columns_of_other_names_and_numbers_as_labels(tmp_path: Path) -> None:
    lay(tmp_path, "1.png")
    path = tmp_path / "t.jsonl"
    path.write_text('{"file": "1.png", "y": 3}\n')
    assert table(path, tmp_path, path="file", label="y").rows[0].label == "3"


def test_a_saved_manifest_is_believed_and_no_file_is_read(tmp_path: Path) -> None:
    manifest = Manifest((Row("a" * 64, "gone/1.png", "x", "train", "g"), Row("b" * 64, "gone/2.png")))
    path = tmp_path / "manifest.jsonl"
    path.write_bytes(manifest.to_bytes())
    assert tuple(table(path, tmp_path).rows) == manifest.rows


def test_an_id_column_of_another_kind_is_not_ours(tmp_path: Path) -> None:
    lay(tmp_path, "1.png")
    (tmp_path / "t.csv").write_text("id,path\nimg1,1.png\n")
    assert table(tmp_path / "t.csv", tmp_path).rows[0].id == hashlib.sha256(numbered(0)).hexdigest()


def test_a_file_that_the_table_names_and_is_not_there_is_a_reject(tmp_path: Path) -> None:
    lay(tmp_path, "1.png")
    (tmp_path / "t.csv").write_text("path,label\n1.png,x\ngone.png,x\n")
    result = table(tmp_path / "t.csv", tmp_path)
    assert len(result.rows) == 1
    assert result.rejected == [("gone.png", "cannot be read: No such file or directory")]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.csv", "path,label\n", "no rows"),
        ("t.csv", "file,label\n1.png,x\n", "no column 'path'; it has 'file', 'label'"),
        ("t.csv", "path,label\n,x\n", "t.csv: line 2 has no path"),
        ("t.csv", "path,label\n0.png,x\n00.jpg,Felis catus, domestic\n", "line 3: 3 fields; the header has 2"),
        ("t.csv", "path,label\n0.png\n", "line 2: 1 fields; the header has 2"),
        ("t.csv", "path,label,label\n0.png,a,b\n", "two columns of one name"),
        ("t.csv", "path,Label\n1.png,x\n", "no column 'label'; it has 'path', 'Label'"),
        ("t.csv", "path, label\n1.png,x\n", "no column 'label'; it has 'path', ' label'"),
        ("t.csv", "path,class\n1.png,x\n", "no column 'label'; it has 'path', 'class'"),
        ("t.csv", "path,cat,dog\n1.png,0,1\n2.png,1,0\n", "no column 'label'; it has 'path', 'cat', 'dog'"),
        ("t.csv", "path,label,Split\n1.png,x,train\n", "no column 'split'; it has 'path', 'label', 'Split'"),
        ("t.csv", "path,label,GROUP\n1.png,x,g\n", "no column 'group'; it has"),
        ("t.jsonl", '{"path": "a\\u0000.png"}\n', "line 1 has the path 'a.x00.png', which no file can have"),
        ("t.jsonl", '{"path": "a\\ud800.png"}\n', "which no file can have"),
        ("t.csv", "path,split\n1.png,holdout\n", "line 2 has split 'holdout'; expected train, val or test"),
        (
            "t.csv",
            f"id,path\n{'a' * 64},1.png\nx,2.png\n",
            "1 of 2 rows have no id of 64 hex digits, the first is line 3",
        ),
        ("t.csv", "path\n../../etc/passwd.png\n", "leaves data.root"),
        ("t.csv", "path\nsub/../secret.png\n", "leaves data.root"),
        ("t.jsonl", '{"path": "1.png", "label": ["a", "b"]}\n', "one class per image is expected"),
        ("t.jsonl", "{torn\n", "cannot be read"),
        ("t.jsonl", "[1]\n", "a line is not a JSON object"),
        ("t.parquet", "not parquet", "cannot be read"),
        ("t.xlsx", "x", "is of an unknown kind; expected .csv, .jsonl or .parquet"),
    ],
)
def test_a_table_that_cannot_be_used(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "outside/deep").mkdir(parents=True)
    (tmp_path / "root/sub").symlink_to(tmp_path / "outside/deep")
    (tmp_path / "outside/secret.png").write_bytes(b"x")
    (tmp_path / name).write_text(content)
    with pytest.raises(Unusable, match=message):
        table(tmp_path / name, tmp_path / "root")


@pytest.mark.parametrize(
    ("name", "content", "place"),
    [
        ("t.csv", 'path;split;note\n\n1.png;;"two\nlines"\n\n2.png;none;\n', "line 6"),
        ("t.jsonl", '{"path": "1.png"}\n\n{"path": "2.png", "split": "none"}\n', "line 3"),
    ],
)
def test_a_mistake_is_where_an_editor_shows_it(tmp_path: Path, name: str, content: str, place: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(Unusable, match=f"{place} has split 'none'"):
        table(tmp_path / name, tmp_path)


def test_parquet_has_rows_instead_of_lines(tmp_path: Path) -> None:
    pyarrow, parquet = import_parquet()
    parquet.write_table(pyarrow.table({"path": ["1.png", "2.png"], "split": [None, "none"]}), tmp_path / "t.parquet")
    with pytest.raises(Unusable, match="row 2 has split 'none'"):
        table(tmp_path / "t.parquet", tmp_path)


@pytest.mark.parametrize("separator", [";", "\t"])
def test_a_table_with_another_separator(tmp_path: Path, separator: str) -> None:
    lay(tmp_path, "1.png")
    (tmp_path / "t.csv").write_text(f"path{separator}label\n1.png{separator}a,b\n")
    assert table(tmp_path / "t.csv", tmp_path).rows[0].label == "a,b"


@pytest.mark.parametrize("part", ["label", "split", "group"])
def test_a_misspelt_column_is_not_silence(tmp_path: Path, part: str) -> None:
    (tmp_path / "t.csv").write_text("path,label\n1.png,x\n")
    with pytest.raises(Unusable, match="no column 'patient'; it has 'path', 'label'") as caught:
        table(tmp_path / "t.csv", tmp_path, **{part: "patient"})
    near = ": 'label'" if part == "label" else ""
    assert caught.value.hint == f"name the column with data.columns.{part}{near}"


@pytest.mark.parametrize("cell", [["wide cat"], {"wide cat": 1}])
def test_a_name_in_cells_of_json_is_kept_once_for_all_rows(tmp_path: Path, cell: object) -> None:
    path = tmp_path / "labels.jsonl"
    path.write_text(2 * (json.dumps({"path": "1.png", "label": cell}) + "\n"))
    one, two = tables.read_records(path, [])
    assert one == two == {"path": "1.png", "label": cell}
    assert next(iter(one["label"])) is next(iter(two["label"]))


def test_a_table_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(Unusable, match=r"data\.table: .*gone\.csv is not there"):
        table(tmp_path / "gone.csv", tmp_path)


def test_a_link_in_a_path_counts_as_the_system_takes_it(tmp_path: Path) -> None:
    """`sub/../x.png` is not x.png, where sub is a link."""
    lay(tmp_path, "root/x.png", "outside/x.png", "root/real/deep/y.png", "root/real/x.png")
    (tmp_path / "outside/deep").mkdir()
    (tmp_path / "root/sub").symlink_to("../outside/deep")
    (tmp_path / "root/in").symlink_to("real/deep")
    path = tmp_path / "t.csv"
    path.write_text("path,label\nin/../x.png,a\nsub/../x.png,b\n")
    with pytest.raises(Unusable, match=r"'sub/\.\./x\.png' leaves data\.root"):
        table(path, tmp_path / "root")
    rows = scan.hash_files(
        tables.read_table(path, COLUMNS, tmp_path / "root", "all"), tmp_path / "root", HashIndex()
    ).rows
    assert [row.id for row in rows] == [hashlib.sha256(numbered(number)).hexdigest() for number in (3, 1)]
    path.write_text("path,label\nin/../x.png,a\n")
    assert len(table(path, tmp_path / "root").rows) == 1
    path.write_text("path,label\n../outside/x.png,a\n")
    with pytest.raises(Unusable, match=r"leaves data\.root"):
        tables.read_table(path, COLUMNS, tmp_path / "root", "all")


@pytest.mark.parametrize(
    "written",
    [
        "cat\\00.jpg",
        "cat/00.JPG",
        "cat/00",
        "CAT/00.jpg",
        "./cat/00.JPG",
        unicodedata.normalize("NFD", "k\u00e4fer/1.jpg"),
    ],
)
def test_a_path_that_is_nearly_that_of_one_file_stands_for_it_and_is_noted(tmp_path: Path, written: str) -> None:
    lay(tmp_path, "cat/00.jpg", "k\u00e4fer/1.jpg", "cat/01.jpg")
    (tmp_path / "t.csv").write_text(f"path,label\ncat/01.jpg,x\n{written},y\n")
    result = table(tmp_path / "t.csv", tmp_path)
    meant = "cat/00.jpg" if "00" in written else "k\u00e4fer/1.jpg"
    assert [(row.path, row.label) for row in result.rows] == [("cat/01.jpg", "x"), (meant, "y")]
    (note,) = result.notes
    assert note.endswith(
        f"1 paths name no file as they are written, and stand for the only near one: {written!r} for {meant!r}"
    )


def test_a_path_that_is_nearly_that_of_several_files_is_a_reject_that_names_them(tmp_path: Path) -> None:
    lay(tmp_path, "cat/00.jpg", "cat/00.png", "cat/01.jpg")
    (tmp_path / "t.csv").write_text("path,label\ncat/00,x\ncat/01.jpg,y\nnowhere.jpg,y\n")
    result = table(tmp_path / "t.csv", tmp_path)
    assert [row.path for row in result.rows] == ["cat/01.jpg"]
    assert result.rejected == [
        ("cat/00", "no such file; near are 'cat/00.jpg', 'cat/00.png'"),
        ("nowhere.jpg", "cannot be read: No such file or directory"),
    ]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_encodings_of_spreadsheets(tmp_path: Path, encoding: str, kind: str) -> None:
    lay(tmp_path, "1.png")
    text = "path,label\n1.png,K\u00e4fer\n" if kind == "csv" else '{"path": "1.png", "label": "K\u00e4fer"}\n'
    (tmp_path / f"t.{kind}").write_bytes(text.encode(encoding))
    result = table(tmp_path / f"t.{kind}", tmp_path)
    assert [row.label for row in result.rows] == ["K\u00e4fer"]
    line = 2 if kind == "csv" else 1
    told = f"t.{kind} is not UTF-8 (line {line}), and is read as Windows-1252: save it as UTF-8 if names or labels "
    told += "come out wrong"
    assert result.notes == ([told] if encoding == "cp1252" else [])
    (tmp_path / f"t.{kind}").write_bytes(text.encode("utf-16-le"))
    with pytest.raises(Unusable, match="is not UTF-8 text, perhaps UTF-16 without a byte order mark"):
        table(tmp_path / f"t.{kind}", tmp_path)


@pytest.mark.parametrize("text", ["nan", "None", "NULL", "N/A"])
def test_a_label_that_may_mean_none_is_asked_about(tmp_path: Path, text: str) -> None:
    lay(tmp_path, "1.png", "2.png")
    (tmp_path / "t.csv").write_text(f"path,label\n1.png,{text}\n2.png,cat\n")
    (note,) = table(tmp_path / "t.csv", tmp_path).notes
    assert note == f"the label {text!r} (1 image) is taken for a class; where it means none, leave it empty"


def test_a_table_without_labels_may_have_other_columns(tmp_path: Path) -> None:
    lay(tmp_path, "1.png", "2.png")
    (tmp_path / "t.csv").write_text("path,date,camera\n1.png,2024,a\n2.png,2025,b\n")
    assert [row.label for row in table(tmp_path / "t.csv", tmp_path).rows] == [None, None]
