"""export_features.py and export.py: other programs read the same rows, and a file is whole or not there."""

from __future__ import annotations

import csv
import errno
import io
import json
import os
import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow.parquet as parquet
import pytest

import pipeline as frozenbase
from cache import atomic_files
from pipeline.serving import dataset
from pipeline.serving.dataset import Dataset
from pipeline.serving.export_features import WRITERS
from tests.conftest import Pipeline
from tests.support import fakes
from tests.support.process import run

N = 24
NAMES = {"ids", "labels", "splits", "groups", "paths", "features", "tap", "extract_key"}


def read(path: Path) -> dict[str, Any]:
    """What is in a file, by name, with None or "" for what is not there."""
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as arrays:
            return dict(arrays)
    if path.suffix in (".h5", ".hdf5"):
        with h5py.File(path) as file:
            text = {name: file[name].asstr()[:] for name in file if name != "features"}
            return {**text, "features": file["features"][:], **file.attrs}
    table = parquet.read_table(path)
    about = {key.decode(): value.decode() for key, value in table.schema.metadata.items()}
    shape = [int(n) for n in about.pop("shape").split(",")]
    features = np.array(table["features"].combine_chunks().flatten()).reshape(len(table), *shape)
    return {**{n: table[n].to_pylist() for n in table.column_names}, **about, "features": features}


def export(pipeline: Pipeline, config: Path, kind: str, *more: str) -> Path:
    path = config.parent / "out" / f"features.{kind}"
    ran = pipeline("export", "features", "-c", config, "--format", kind, "--output", path, *more)
    assert ran.code == 0, ran.err
    return path


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("more", [(), ("--split", "val"), ("--set", "extract.dtype=float16")], ids=str)
def test_what_is_in_the_file_is_what_python_gets(
    pipeline: Pipeline, project: Path, kind: str, more: tuple[str, ...]
) -> None:
    (project.parent / "images" / "none.png").write_bytes(fakes.numbered(1))
    groups = ("--set", r"data.group_from='(\d)\.png'")
    opened = frozenbase.open(project, (groups[1], *(text for text in more if "=" in text)))
    expected = opened.features("val" if "val" in more else None)
    found = read(export(pipeline, project, kind, *groups, *more))
    assert set(found) == NAMES | ({"files"} if kind == "parquet" else set())
    assert found["features"].dtype == ("float16" if "extract.dtype=float16" in more else "float32")
    assert np.array_equal(found["features"].astype(np.float32), expected.X)
    assert list(found["ids"]) == expected.ids.tolist()
    nothing = None if kind == "parquet" else ""
    assert list(found["labels"]) == [nothing if label is None else label for label in expected.y]
    rows = {row.id: row for row in opened.manifest}
    for name, field in (("splits", "split"), ("groups", "group"), ("paths", "path")):
        assert list(found[name]) == [getattr(rows[i], field) or nothing for i in expected.ids]
    assert str(found["tap"]) == "pooled"
    assert len(str(found["extract_key"])) == 64


def test_parquet_has_what_viewers_take(pipeline: Pipeline, project: Path) -> None:
    """Lists of one length and of floats, as embeddings, and text columns, one of them of files that are there."""
    table = parquet.read_table(export(pipeline, project, "parquet"))
    features = table.schema.field("features").type
    assert (features.list_size, str(features.value_type)) == (frozenbase.open(project).features().X.shape[1], "float")
    assert {str(table.schema.field(name).type) for name in table.column_names if name != "features"} == {"string"}
    files = [Path(path) for path in table["files"].to_pylist()]
    assert all(path.is_absolute() and path.is_file() for path in files)
    assert [path.read_bytes() for path in files] == [
        (project.parent / "images" / path).read_bytes() for path in table["paths"].to_pylist()
    ]


def test_parquet_has_what_a_model_predicts(pipeline: Pipeline, project: Path) -> None:
    pipeline("run", "head", "-c", project, expect=0)
    (project.parent / "images" / "none.png").write_bytes(fakes.numbered(1))
    table = parquet.read_table(export(pipeline, project, "parquet", "--model", "head/logistic"))
    ran = pipeline("predictions", "logistic", "-c", project)
    told = {row["id"]: row for row in csv.DictReader(io.StringIO(ran.out))}
    rows = table.select(["ids", "predicted", "p_bright", "p_dark"]).to_pylist()
    assert len(rows) == len(told) + 1
    for row in rows:
        expected = told.get(row["ids"])
        if expected is None:
            assert [row["predicted"], row["p_bright"], row["p_dark"]] == [None] * 3
        else:
            assert [row["predicted"], row["p_dark"]] == [expected["predicted"], float(expected["p_dark"])]
    ran = pipeline("export", "features", "-c", project, "-o", project.parent / "f.npz", "--model", "logistic")
    assert (ran.code, "--model adds columns to Parquet alone" in ran.err) == (2, True)


@pytest.mark.parametrize("kind", WRITERS)
def test_maps_keep_their_shape(pipeline: Pipeline, project: Path, kind: str) -> None:
    taps = "extract.taps={pooled: {}, maps: {pooling: none}}"
    found = read(export(pipeline, project, kind, "--tap", "maps", "--set", taps))
    assert np.array_equal(found["features"], frozenbase.open(project, taps).features(tap="maps").X)
    assert str(found["tap"]) == "maps"


@pytest.mark.parametrize("kind", ["parquet", "hdf5"])
def test_it_is_written_block_by_block(
    pipeline: Pipeline, project: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = read(export(pipeline, project, kind))["features"]
    sizes: list[int] = []
    blocks = Dataset.blocks

    def counting(self: Dataset) -> Any:
        for part, rows in blocks(self):
            sizes.append(len(rows))
            yield part, rows

    monkeypatch.setattr(Dataset, "blocks", counting)
    monkeypatch.setattr(dataset, "CHUNK_BYTES", 7 * whole[0].nbytes)
    assert np.array_equal(read(export(pipeline, project, kind, "--force"))["features"], whole)
    assert sizes == [7, 7, 7, 3]


@pytest.mark.parametrize("kind", WRITERS)
def test_a_file_name_that_is_not_utf_8_comes_out_escaped(pipeline: Pipeline, project: Path, kind: str) -> None:
    images = project.parent / "images" / "dark"
    (images / "0000.png").rename(images / os.fsdecode(b"\xff.png"))
    assert "dark/\\udcff.png" in list(read(export(pipeline, project, kind))["paths"])


@pytest.mark.parametrize("kind", WRITERS)
def test_a_failing_disk_leaves_what_was_there(
    pipeline: Pipeline, project: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = export(pipeline, project, kind)
    before = path.read_bytes()

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    fsync = os.fsync
    monkeypatch.setattr(
        atomic_files.os, "fsync", lambda fd: fsync(fd) if os.path.isdir(f"/proc/self/fd/{fd}") else full()
    )
    ran = pipeline("export", "features", "-c", project, "--format", kind, "--output", path, "--force")
    assert ran.code == 1
    assert f"{path} cannot be written: No space left on device" in ran.err
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]


def test_what_is_there_is_replaced_only_by_force(pipeline: Pipeline, project: Path, tmp_path: Path) -> None:
    path = tmp_path / "features.npz"
    path.write_bytes(b"mine")
    words = ("export", "features", "-c", project, "--format", "npz", "--output", path)
    ran = pipeline(*words)
    assert (ran.code, path.read_bytes()) == (2, b"mine")
    assert "is there already" in ran.err
    assert "--force" in ran.err
    assert not (project.parent / ".features").exists()
    assert pipeline(*words, "--force").code == 0
    assert read(path)["features"].shape == (N, 6)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--output", "."), "is a folder; expected the name of a file"),
        (("--output", "x.npz", "--tap", "early"), "no tap 'early' in pipeline.yaml; it has pooled"),
        (("--output", "x.npz", "--split", "all"), "'all' is not one of"),
        ((), "Missing option '-o' / '--output'"),
    ],
)
def test_what_cannot_be_exported_is_exit_2(
    pipeline: Pipeline, project: Path, words: tuple[str, ...], message: str
) -> None:
    ran = pipeline("export", "features", "-c", project, "--format", "npz", *words)
    assert ran.code == 2
    assert message in ran.err


def test_what_it_says(pipeline: Pipeline, project: Path) -> None:
    words = ("export", "features", "-c", project, "--format", "hdf5", "--output", project.parent / "f.h5")
    ran = pipeline(*words)
    assert f"wrote {project.parent / 'f.h5'}: 24 x 6 float32" in ran.out
    report = json.loads(pipeline(*words, "--force", "--json").out)["written"]
    assert report["shape"] == [N, 6]
    assert report["bytes"] == (project.parent / "f.h5").stat().st_size
    assert (report["tap"], report["format"], report["dtype"]) == ("pooled", "hdf5", "float32")


@pytest.mark.parametrize(("name", "kind"), [("f.npz", "npz"), ("f.parquet", "parquet"), ("f.h5", "hdf5")])
def test_the_kind_of_file_is_that_of_its_name(
    pipeline: Pipeline, project: Path, tmp_path: Path, name: str, kind: str
) -> None:
    ran = pipeline("export", "features", "-c", project, "-o", tmp_path / name, "--json")
    assert ran.json["written"]["format"] == kind
    assert read(tmp_path / name)["features"].shape[0] > 0


def test_a_name_that_tells_no_kind_asks_for_one(pipeline: Pipeline, project: Path, tmp_path: Path) -> None:
    ran = pipeline("export", "features", "-c", project, "-o", tmp_path / "f")
    assert ran.code == 2
    assert "expected a name that ends in .npz, .parquet, .h5, .hdf5" in ran.err


def test_without_pyarrow_it_says_what_to_install(project: Path, tmp_path: Path) -> None:
    """Before anything is computed."""
    words = ("export", "features", "-c", project, "--format", "parquet", "--output", tmp_path / "x.parquet")
    _, err = run(*words, expect=2, HIDE="pyarrow")
    assert "Parquet files need pyarrow, which is not installed" in err
    assert "pip install 'frozenbase[parquet]'" in err
    assert not (project.parent / ".features").exists()


def test_from_cached_rows_it_imports_no_tensorflow_and_needs_no_images(project: Path, tmp_path: Path) -> None:
    run("run", "extract", "-c", project)
    run("cache", "export", tmp_path / "laptop", "-c", project)
    shutil.rmtree(project.parent / "images")
    words = ("export", "features", "-c", tmp_path / "laptop", "--format", "npz", "--output", tmp_path / "x.npz")
    run(*words, WATCH=str(tmp_path / "log"))
    assert json.loads((tmp_path / "log").read_text().splitlines()[-1]) == ["imported"]
    assert read(tmp_path / "x.npz")["features"].shape == (N, 6)
