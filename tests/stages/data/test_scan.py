"""scan.py: what is found, what is ignored, and what is said of the rest."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from pathlib import Path

import pytest

from cache.errors import Unusable
from cache.hash_index import HashIndex
from stages.data import scan
from stages.data.manifest import Manifest, Row
from tests.support.fakes import numbered

COLUMNS = {"path": "path", "label": "label", "split": "split", "group": "group"}


def lay(root: Path, *paths: str) -> None:
    for number, path in enumerate(paths):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(numbered(number))


def found(root: Path) -> scan.Found:
    return scan.hash_files(scan.scan_folders(root), root, HashIndex())


def labels(root: Path) -> dict[str, tuple[str | None, str | None]]:
    return {row.path: (row.label, row.split) for row in found(root).rows}


def test_class_folders(tmp_path: Path) -> None:
    lay(tmp_path, "cat/1.png", "dog/deep/2.JPG", "dog/3.webp", "dog/4.HEIC")
    assert labels(tmp_path) == {
        "cat/1.png": ("cat", None),
        "dog/3.webp": ("dog", None),
        "dog/4.HEIC": ("dog", None),
        "dog/deep/2.JPG": ("dog", None),
    }


def test_the_id_is_the_sha256_of_the_bytes(tmp_path: Path) -> None:
    lay(tmp_path, "cat/1.png")
    assert found(tmp_path).rows == [Row(hashlib.sha256(numbered(0)).hexdigest(), "cat/1.png", "cat")]


def test_split_folders(tmp_path: Path) -> None:
    lay(tmp_path, "train/cat/1.png", "Validation/cat/2.png", "test/dog/3.png")
    assert labels(tmp_path) == {
        "train/cat/1.png": ("cat", "train"),
        "Validation/cat/2.png": ("cat", "val"),
        "test/dog/3.png": ("dog", "test"),
    }


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    lay(tmp_path, "train/1.png", "bus/2.png")
    assert labels(tmp_path) == {"bus/2.png": ("bus", None), "train/1.png": ("train", None)}


@pytest.mark.parametrize("intruder", ["sample.png", "extra/5.png"])
def test_split_folders_beside_something_else_are_not_taken_for_classes(tmp_path: Path, intruder: str) -> None:
    lay(tmp_path, "train/cat/1.png", "test/cat/2.png", intruder)
    with pytest.raises(Unusable, match=rf"test/, train/ look like splits, but {intruder[:5]}"):
        found(tmp_path)


def test_images_without_folders_have_no_label(tmp_path: Path) -> None:
    lay(tmp_path, "1.png", "2.png")
    assert labels(tmp_path) == {"1.png": (None, None), "2.png": (None, None)}


def test_other_files_and_hidden_ones_are_counted_by_kind(tmp_path: Path) -> None:
    lay(tmp_path, "cat/1.png")
    for name in ("cat/notes.txt", "cat/.DS_Store", ".hidden.png", "Thumbs.db"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / ".git").mkdir()
    (tmp_path / "linked").symlink_to(tmp_path / "cat", target_is_directory=True)
    result = found(tmp_path)
    assert [row.path for row in result.rows] == ["cat/1.png"]
    assert result.ignored == {"hidden": 3, ".db": 1, ".txt": 1}


def test_a_link_out_of_the_root_is_a_reject(tmp_path: Path) -> None:
    lay(tmp_path, "secret.png", "images/cat/1.png")
    (tmp_path / "images/cat/out.png").symlink_to(tmp_path / "secret.png")
    (tmp_path / "images/cat/in.png").symlink_to(tmp_path / "images/cat/1.png")
    result = found(tmp_path / "images")
    assert [row.path for row in result.rows] == ["cat/1.png", "cat/in.png"]
    assert result.rejected == [("cat/out.png", "is a link that leaves data.root")]


def test_a_linked_class_folder_is_not_lost_in_silence(tmp_path: Path) -> None:
    lay(tmp_path, "elsewhere/1.png", "images/cat/1.png")
    (tmp_path / "images/dog").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    assert found(tmp_path / "images").rejected == [("dog", "is a linked folder that leaves data.root")]


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda root: None, r"data\.root: .* is not there"),
        (lambda root: root.write_bytes(b""), r"data\.root: .* is a file; expected a folder"),
        (lambda root: root.mkdir(), r"no images \(0 other files\); looked for \.avif, \.bmp"),
        (lambda root: lay(root, "a/.hidden.png"), r"no images \(1 other files\)"),
    ],
)
def test_a_folder_that_cannot_be_used(tmp_path: Path, prepare: object, message: str) -> None:
    prepare(tmp_path / "images")  # type: ignore[operator]
    with pytest.raises(Unusable, match=message):
        found(tmp_path / "images")


def as_nobody(root: Path) -> str:
    """What `found(root)` raises for a user who is not root: read in a child process, since root may read all."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            if os.getuid() == 0:
                os.setuid(65534)
            rejected = found(root).rejected
            os.write(write, f"rejected {rejected}".encode())
        except Unusable as error:
            os.write(write, f"{error} | {error.hint}".encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    os.close(write)
    with os.fdopen(read) as file:
        return file.read()


def test_folders_and_files_that_may_not_be_read() -> None:
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        root.chmod(0o755)
        lay(root, "cat/1.png", "cat/2.png", "dog/3.png")
        (root / "cat/2.png").chmod(0)
        assert as_nobody(root) == "rejected [Reject(path='cat/2.png', reason='cannot be read: Permission denied')]"
        (root / "dog").chmod(0)
        said = as_nobody(root)
        (root / "dog").chmod(0o755)
        assert said == f"cannot read the folder {root}/dog: Permission denied | check: ls -ld {root}/dog"


def table(path: Path, root: Path, /, **columns: str) -> scan.Found:
    return scan.hash_files(scan.read_table(path, {**COLUMNS, **columns}, root), root, HashIndex())


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
        ("t.csv", "path,label\n,x\n", "row 1 has no path"),
        ("t.jsonl", '{"path": "a\\u0000.png"}\n', "row 1 has the path 'a.x00.png', which no file can have"),
        ("t.jsonl", '{"path": "a\\ud800.png"}\n', "which no file can have"),
        ("t.csv", "path,split\n1.png,holdout\n", "row 1 has split 'holdout'; expected train, val or test"),
        (
            "t.csv",
            f"id,path\n{'a' * 64},1.png\nx,2.png\n",
            "1 of 2 rows have no id of 64 hex digits, the first is row 2",
        ),
        ("t.csv", "path\n../../etc/passwd.png\n", "leaves data.root"),
        ("t.jsonl", '{"path": "1.png", "label": ["a", "b"]}\n', "one label per image is expected"),
        ("t.jsonl", "{torn\n", "cannot be read"),
        ("t.jsonl", "[1]\n", "a line is not a JSON object"),
        ("t.parquet", "not parquet", "cannot be read"),
        ("t.xlsx", "x", "is of an unknown kind; expected .csv, .jsonl or .parquet"),
    ],
)
def test_a_table_that_cannot_be_used(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(Unusable, match=message):
        table(tmp_path / name, tmp_path)


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
    assert caught.value.hint == f"name the column with data.columns.{part}"


def test_links_that_lead_in_a_circle_are_rejects(tmp_path: Path) -> None:
    lay(tmp_path, "cat/1.png")
    (tmp_path / "cat/loop.png").symlink_to(tmp_path / "cat/loop.png")
    result = found(tmp_path)
    assert [row.path for row in result.rows] == ["cat/1.png"]
    assert [reject.path for reject in result.rejected] == ["cat/loop.png"]


def test_a_table_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(Unusable, match=r"data\.table: .*gone\.csv is not there"):
        table(tmp_path / "gone.csv", tmp_path)
