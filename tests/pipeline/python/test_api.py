"""api.py and dataset.py: X, y and ids belong together, whole or lazy, and heads come trained."""

from __future__ import annotations

import json
import logging
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import dask.array
import numpy as np
import pytest

import pipeline as frozenbase
from cache import shards
from cache.errors import ImagesRejected, NotAvailable, Unusable
from cache.shards import ShardLayout
from pipeline.serving import dataset
from stages.data.images import PixelSpec, decode
from tests.conftest import Pipeline, cache_files, counts
from tests.support import fakes

N = 24


@pytest.fixture(autouse=True)
def _fake(fake_embed: None) -> None:
    """All tests here extract with the fake base."""


def reds(config: Path, ids: np.ndarray) -> list[float]:
    """What the fake base says first of each image, reckoned from its file."""
    opened = frozenbase.open(config)
    paths = {row.id: config.parent / "images" / row.path for row in opened.manifest}
    spec = PixelSpec(16, 16, "squash", "bilinear", "scaled")
    return [float(decode(paths[i].read_bytes(), spec).astype(np.float32).mean(axis=(0, 1))[0]) for i in ids]


def test_x_y_and_ids_belong_together(project: Path) -> None:
    X, y, ids = frozenbase.open(project).features()
    assert (X.shape, X.dtype, y.dtype, ids.dtype.kind) == ((N, 6), np.float32, object, "U")
    assert np.allclose(X[:, 0], reds(project, ids))
    labels = {row.id: row.label for row in frozenbase.open(project).manifest}
    assert y.tolist() == [labels[i] for i in ids]
    assert ids.tolist() == sorted(labels)


def test_results_are_short_in_a_prompt_and_tables_elsewhere(project: Path) -> None:
    opened = frozenbase.open(project)
    head = opened.head("logistic")
    assert head.metrics == opened.metrics("logistic")
    assert head.metrics["folds"]["n"] > 0
    model = opened.model("logistic")
    found = opened.predict("logistic", project.parent / "images" / "dark")
    assert repr(head) == "<TrainedHead logistic, 2 classes>"
    assert repr(model) == f"<Model head/logistic {model.key[:12]}>"
    assert repr(found) == f"<Predicted head/logistic {model.key[:12]}, 12 images: dark 12>"
    for result in (head, model):
        frame = result.to_frame().set_index("figure")
        assert frame.loc["accuracy", "folds"] == head.metrics["folds"]["accuracy"]
        assert frame.loc["log_loss", "folds_high"] == head.metrics["folds"]["ci"]["log_loss"][1]
        assert "<td>accuracy</td>" in result._repr_html_()
    frame = found.to_frame()
    assert found.unknown_score is not None
    told = ["unknown", "unknown_score"]
    assert list(frame.columns) == ["id", "path", "predicted", "confidence", *told, "p_bright", "p_dark"]
    assert len(frame) == 12
    hostile = replace(found, paths=("<script>", *found.paths[1:]))
    assert "&lt;script&gt;" in hostile._repr_html_()
    assert "<script>" not in hostile._repr_html_()
    many = replace(found, **{name: getattr(found, name) * 3 for name in ("paths", "ids")},
                   probabilities=np.tile(found.probabilities, (3, 1)),
                   unknown_score=np.tile(found.unknown_score, 3))  # fmt: skip
    assert (many._repr_html_().count("<tr>"), "and 16 more" in many._repr_html_()) == (21, True)


def test_a_data_frame_without_pandas_names_what_to_install(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    head = frozenbase.open(project).head("logistic")
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(NotAvailable, match="a data frame needs pandas") as caught:
        head.to_frame()
    assert caught.value.hint == "pip install pandas"


def test_splits_are_those_of_the_manifest_and_together_all(project: Path) -> None:
    opened = frozenbase.open(project)
    for split in ("train", "val", "test"):
        found = opened.features(split)
        assert set(found.ids) == {row.id for row in opened.manifest if row.split == split}
        assert len(found.X) == len(found.y) == len(found.ids)


def test_a_run_s_rows_are_taken_and_missing_ones_computed(pipeline: Pipeline, project: Path) -> None:
    frozenbase.open(project).features()
    assert counts(pipeline("run", "extract", "-c", project, "--json")) == (0, N)
    fakes.two_classes(project.parent / "images", 3, start=100)
    assert len(frozenbase.open(project).features().X) == N + 6
    assert counts(pipeline("run", "extract", "-c", project, "--json")) == (0, N + 6)


def test_compute_false_raises_where_a_row_is_missing_and_serves_what_is_there(project: Path) -> None:
    opened = frozenbase.open(project)
    with pytest.raises(NotAvailable, match=f"{N} of {N} images have no feature row"):
        opened.features(compute=False)
    expected = opened.features().X
    assert np.array_equal(opened.features(compute=False).X, expected)


def test_the_array_is_one_s_own(project: Path) -> None:
    opened = frozenbase.open(project)
    X = opened.features().X
    X[:] = 0
    assert opened.features().X.any()


def test_rows_stored_as_float16_come_as_float32(project: Path) -> None:
    opened = frozenbase.open(project, {"extract.dtype": "float16"})
    assert opened.features().X.dtype == np.float32
    assert opened.features(lazy=True).X.dtype == np.float32
    assert np.allclose(opened.features().X, frozenbase.open(project).features().X, rtol=1e-3)


def test_a_tap_by_its_name(project: Path) -> None:
    taps = {"pooled": {}, "early": {"pooling": "max"}, "maps": {"pooling": "none"}}
    opened = frozenbase.open(project, {"extract.taps": taps})
    assert opened.features(tap="early").X.shape == (N, 3)
    assert opened.features(tap="maps").X.shape == (N, 2, 2, 3)
    assert opened.features(tap="maps", lazy=True).X.compute().shape == (N, 2, 2, 3)
    one = opened.features(tap="maps", lazy=True).X[3, :, 1]
    assert np.array_equal(one.compute(), opened.features(tap="maps").X[3, :, 1])


@pytest.mark.parametrize("overrides", [("extract.size=32",), "extract.size=32", {"extract.size": 32}])
def test_settings_are_overridden_as_by_set(
    pipeline: Pipeline, project: Path, overrides: tuple[str, ...] | str | dict[str, int]
) -> None:
    frozenbase.open(project, overrides).features()
    assert counts(pipeline("run", "extract", "-c", project, "--json", "--set", "extract.size=32")) == (0, N)


def test_a_folder_stands_for_its_pipeline_yaml(project: Path) -> None:
    assert frozenbase.open(project.parent).manifest == frozenbase.open(str(project)).manifest


def test_copies_count_once_and_images_without_a_label_come_last(project: Path) -> None:
    images = project.parent / "images"
    shutil.copy(images / "dark" / "0000.png", images / "dark" / "copy.png")
    for number in range(3):
        (images / f"{number}.png").write_bytes(fakes.numbered(number))
    X, y, ids = frozenbase.open(project).features()
    assert len(X) == len(set(ids)) == N + 3
    assert y[-3:].tolist() == [None] * 3
    assert None not in y[:-3]
    assert np.allclose(X[:, 0], reds(project, ids))


def test_one_image_under_two_labels_is_refused(project: Path) -> None:
    images = project.parent / "images"
    shutil.copy(images / "dark" / "0000.png", images / "bright" / "copy.png")
    with pytest.raises(Unusable, match="1 image with two labels"):
        frozenbase.open(project).features()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"tap": "none"}, "no tap 'none' in pipeline.yaml; it has pooled"),
        ({"split": "training"}, "there is no split 'training'"),
    ],
)
def test_what_is_not_there_is_said_before_anything_is_computed(
    project: Path, words: dict[str, str], message: str
) -> None:
    with pytest.raises(Unusable, match=message):
        frozenbase.open(project).features(**words)  # type: ignore[arg-type]
    assert cache_files(project) == {}


def test_a_split_without_images_is_said_to_be_empty(project: Path) -> None:
    opened = frozenbase.open(project, {"data.split.test": 0})
    with pytest.raises(Unusable, match=r"no image is in test \(train \d+, val \d+, test 0\)"):
        opened.features("test")


def test_an_image_that_cannot_be_decoded_stops_it_or_is_left_out(project: Path) -> None:
    (project.parent / "images" / "dark" / "bad.png").write_bytes(b"no image")
    with pytest.raises(ImagesRejected, match=r"1 of 25 images was rejected: dark/bad.png"):
        frozenbase.open(project).features()
    assert len(frozenbase.open(project, {"data.on_bad": "skip"}).features().X) == N
    assert len(frozenbase.open(project, {"data.on_bad": "skip"}).features(compute=False).X) == N


@pytest.mark.parametrize("pooling", ["avg", "none"])
def test_a_lazy_array_is_the_same_and_never_reads_more_than_a_chunk(
    project: Path, monkeypatch: pytest.MonkeyPatch, pooling: str
) -> None:
    words = {"extract.shard_rows": 7, "extract.taps": {"pooled": {}, "tap": {"pooling": pooling}}}
    opened = frozenbase.open(project, words)
    expected = opened.features(tap="tap")
    loads: list[int] = []
    rows = shards.read_rows

    def counting(layout: ShardLayout, positions: np.ndarray) -> np.ndarray:
        loads.append(len(positions))
        return rows(layout, positions)

    monkeypatch.setattr(shards, "read_rows", counting)
    monkeypatch.setattr(dataset, "CHUNK_BYTES", 5 * expected.X[0].nbytes)
    X, y, ids = opened.features(tap="tap", lazy=True)
    assert isinstance(X, dask.array.Array)
    assert loads == []
    assert X.chunks[0] == (5, 5, 5, 5, 4)
    assert np.array_equal(X.blocks[2].compute(), expected.X[10:15])
    assert sum(loads) == 5
    assert np.array_equal(X.compute(scheduler="synchronous"), expected.X)
    assert sum(loads) == 5 + N
    assert max(loads) <= 5
    assert np.allclose(X.mean(axis=0).compute(), expected.X.mean(axis=0))
    assert y.tolist() == expected.y.tolist()
    assert ids.tolist() == expected.ids.tolist()


def test_a_lazy_array_whose_shards_went_says_so(project: Path) -> None:
    X = frozenbase.open(project).features(lazy=True).X
    shutil.rmtree(project.parent / ".features")
    with pytest.raises(NotAvailable, match="was removed after"):
        X.compute()


def test_a_head_is_trained_and_then_taken(pipeline: Pipeline, project: Path) -> None:
    opened = frozenbase.open(project)
    head = opened.head("logistic")
    assert head.classes == ("bright", "dark")
    X, y, _ = opened.features("train")
    probabilities = head.predict(X)
    assert probabilities.shape == (len(X), 2)
    assert [head.classes[i] for i in probabilities.argmax(axis=1)] == y.tolist()
    ran = pipeline("run", "-c", project, "--json").json["heads"]["logistic"]
    assert ran["hit"]
    assert opened.metrics("logistic") == json.loads((Path(ran["path"]) / "metrics.json").read_text()) == ran["metrics"]


def test_an_unknown_head_is_said_with_those_there_are(project: Path) -> None:
    with pytest.raises(Unusable, match=r"no head 'deep' in pipeline.yaml; it has logistic"):
        frozenbase.open(project).head("deep")


def test_a_saved_model_goes_by_name_tag_or_key_and_is_the_head_that_was_trained(
    pipeline: Pipeline, project: Path
) -> None:
    opened = frozenbase.open(project)
    with pytest.raises(Unusable, match="no model 'head/logistic'"):
        opened.model("head/logistic")
    head = opened.head("logistic")
    X = opened.features("test").X
    pipeline("tag", "head/logistic", "v1", "-c", project)
    shutil.rmtree(project.parent / ".features")
    for name in ("head/logistic", "v1", opened.model("v1").key[:8]):
        model = frozenbase.open(project).model(name)
        assert np.array_equal(model.head.predict(X), head.predict(X))
        assert (model.name, model.history) == ("head/logistic", {})
        assert {"accuracy", "log_loss", "ci"} < set(model.metrics["test"])
    assert not (project.parent / ".features").exists()


def test_an_unknown_fine_tuning_is_said_before_anything_is_computed(project: Path) -> None:
    with pytest.raises(Unusable, match=r"no fine-tuning 'last' in pipeline.yaml; its finetune: is empty"):
        frozenbase.open(project).finetune("last")
    assert cache_files(project) == {}


def test_the_manifest_has_a_row_for_each_file(project: Path) -> None:
    rows = frozenbase.open(project).manifest
    assert len(rows) == N
    assert rows[0]._replace(id="", split=None) == ("", "bright/0000.png", "bright", None, None)
    assert {row.split for row in rows} == {"train", "val", "test"}


def test_nothing_is_printed(project: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="stages"):
        opened = frozenbase.open(project)
        opened.features(lazy=True).X.compute()
        opened.head("logistic")
    assert capfd.readouterr() == ("", "")
    assert "24 images are missing" in caplog.text


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"extract.size": 3}, "extract.size: expected at least 16, got 3"),
        ({"extract.sise": 32}, "unknown field extract.sise"),
        (("extract.size",), "expected FIELD=VALUE"),
    ],
)
def test_settings_that_cannot_be_used_are_said_at_once(
    project: Path, overrides: dict[str, int] | tuple[str, ...], message: str
) -> None:
    with pytest.raises(Unusable, match=message):
        frozenbase.open(project, overrides)


def test_a_pipeline_yaml_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(Unusable, match="is not there"):
        frozenbase.open(tmp_path / "pipeline.yaml")
