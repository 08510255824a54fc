"""The main job on real images with real weights, in processes of its own, against Keras."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from cache.hash_index import HashIndex
from cache.store import Cache
from pipeline import BottleneckFeatures
from pipeline.results import predictions, registry
from stages.data import images
from stages.engines import select
from stages.heads import fitted
from tests.conftest import opened
from tests.support.process import run

N = 60


@pytest.fixture(scope="module")
def solar(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first solar cells of each class, as `pipeline init --demo` lays them out."""
    folder = tmp_path_factory.mktemp("solar")
    run("init", folder, "--demo", FAKE="")
    for label in ("functional", "defective"):
        for path in sorted((folder / "images" / label).iterdir())[N // 2 :]:
            path.unlink()
    return folder / "pipeline.yaml"


@pytest.fixture(scope="module")
def reference(solar: Path) -> dict[str, np.ndarray]:
    """id -> row, by Keras `predict` on the same pixels, 32 at a time."""
    from stages.keras_models import build

    project = opened(solar)
    rows, spec = project.manifest.rows, project.spec("pooled").recipe.pixels
    pixels = np.stack([images.decode(Path(project.source.place(r.path)).read_bytes(), spec) for r in rows])
    choice = project.config.base
    model = build.build_base(choice.base, project.weights(choice).path, 224, 224)
    maps = model.predict((pixels.astype(np.float32) - 127) / 128, batch_size=32, verbose=0)
    return dict(zip([row.id for row in rows], maps.mean(axis=(1, 2)), strict=True))


@pytest.fixture
def emptied(solar: Path) -> Iterator[Path]:
    yield solar
    shutil.rmtree(solar.parent / ".features", ignore_errors=True)


def rows_of(config: Path, ids: list[str]) -> np.ndarray:
    components = opened(config).spec("pooled").components()
    return Cache(config.parent / ".features", HashIndex()).features(components).read(ids)


@pytest.mark.parametrize(("workers", "shard_rows"), [("1", "7"), ("2", "16")])
def test_rows_equal_keras_predict(emptied: Path, reference: dict[str, Any], workers: str, shard_rows: str) -> None:
    words = ("--workers", workers, "--set", f"extract.shard_rows={shard_rows}")
    out, _ = run("run", "extract", "-c", emptied, "--json", *words, FAKE="")
    assert json.loads(out)["extract"]["computed"] == N
    expected = np.stack(list(reference.values()))
    found = rows_of(emptied, list(reference))
    assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize("engine", ["tensorflow", "openvino"])
def test_each_engine_gives_the_rows_of_keras(emptied: Path, reference: dict[str, Any], engine: str) -> None:
    out, _ = run("run", "extract", "-c", emptied, "--json", "--set", f"extract.engine={engine}", FAKE="")
    assert json.loads(out)["extract"]["computed"] == N
    (record, *_) = (emptied.parent / ".features").glob("features/*/shards/*.json")
    assert json.loads(record.read_text())["engine"] == engine
    expected = np.stack(list(reference.values()))
    assert np.abs(rows_of(emptied, list(reference)) - expected).max() <= 1e-4 * np.abs(expected).max()


def test_a_row_is_bitwise_the_same_alone_and_in_an_incremental_run(emptied: Path, tmp_path: Path) -> None:
    config, folder = tmp_path / "pipeline.yaml", tmp_path / "images" / "x"
    config.write_text("")
    folder.mkdir(parents=True)
    sources = sorted((emptied.parent / "images" / "defective").iterdir())[:13]
    for i, source in enumerate(sources):
        shutil.copy(source, folder)
        if i in (0, 2):  # one alone, two more, then the other ten
            run("run", "extract", "-c", config, FAKE="")
    run("run", "extract", "-c", config, FAKE="")
    ids = list(opened(config).manifest.ids)
    incremental = rows_of(config, ids)
    shutil.rmtree(tmp_path / ".features")
    run("run", "extract", "-c", config, FAKE="")
    assert np.array_equal(rows_of(config, ids), incremental)


def test_the_demo_job_learns_something_and_its_second_run_is_all_hits(emptied: Path) -> None:
    words = ("run", "-c", emptied, "--json", "--set", "data.split.val=0.3", "--set", "data.split.test=0.3")
    first, err = run(*words, FAKE="")
    assert "TensorFlow" not in err
    metrics = json.loads(first)["heads"]["logistic"]["metrics"]
    assert metrics["folds"]["n"] + metrics["test"]["n"] == N
    assert metrics["folds"]["auroc"] > 0.6
    second = json.loads(run(*words, FAKE="")[0])
    assert (second["extract"]["computed"], second["extract"]["reused"]) == (0, N)
    assert second["heads"]["logistic"]["hit"]
    assert second["heads"]["logistic"]["metrics"] == metrics
    key = second["heads"]["logistic"]["key"]
    again = json.loads(run("reproduce", key, "-c", emptied, "--recompute", "--json", FAKE="")[0])["reproduce"]
    assert (again["computed"], again["reproduced"], again["differences"]) == (N, True, {})


def test_what_is_predicted_without_a_cache_is_what_the_model_said_of_its_own_images(emptied: Path) -> None:
    key = json.loads(run("run", "-c", emptied, "--json", "--set", "data.split.val=0.3", FAKE="")[0])["heads"][
        "logistic"
    ]["key"]
    model = registry.find(emptied.parent, key)
    found = predictions.read_predictions(model)
    some = [i for i, row in enumerate(found.rows) if row.split == "test"][:3]
    paths = [emptied.parent / "images" / found.rows[i].path for i in some]
    shutil.rmtree(emptied.parent / ".features")
    out, err = run("predict", key, *paths, "-c", emptied, "--json", "-q", FAKE="")
    assert err == ""
    said = json.loads(out)["predict"]
    assert (said["computed"], said["reused"]) == (3, 0)
    probabilities = [list(row["probabilities"].values()) for row in said["predictions"]]
    assert np.abs(np.array(probabilities) - found.probabilities[some]).max() < 1e-9
    assert not (emptied.parent / ".features").exists()


def test_class_activation_maps_of_a_report_are_exact_and_leave_the_cache_as_it_was(emptied: Path) -> None:
    run("run", "-c", emptied, "--set", "data.split.test=0.4", FAKE="")
    model = max((emptied.parent / "models" / "head" / "logistic").glob("*/record.json"), key=os.path.getmtime).parent
    features = emptied.parent / ".features" / "features"
    before = sorted(path.name for path in features.rglob("*"))
    run("report", model.name, "-c", emptied, "--without", "audit", FAKE="")
    page = (emptied.parent / "report.html").read_text("utf-8")
    mistakes = page.count('<li class="card">')
    assert 0 < mistakes <= 12
    assert page.count('alt="Class activation map') == mistakes
    exact = re.search(r"exact: their means and the bias are the scores of the cached rows, to (\de-\d\d)", page)
    assert exact is not None
    assert float(exact[1]) <= 1e-4
    assert sorted(path.name for path in features.rglob("*")) == before


def test_the_transformer_and_a_run_make_the_same_rows(emptied: Path, reference: dict[str, np.ndarray]) -> None:
    """The first images by worker processes, one in this process, the others by a run."""
    project = opened(emptied)
    paths = [Path(project.source.place(row.path)) for row in project.manifest.rows]
    features = BottleneckFeatures(cache_dir=emptied.parent / ".features", workers=2)
    features.transform(paths[:20])
    features.set_params(workers=1).transform(paths[20:21])
    counts = json.loads(run("run", "extract", "-c", emptied, "--json", FAKE="")[0])["extract"]
    assert (counts["computed"], counts["reused"]) == (N - 21, 21)
    rows = features.transform(paths)
    expected = np.stack([reference[row.id] for row in project.manifest.rows])
    assert np.abs(rows - expected).max() <= 1e-5 * np.abs(expected).max()
    model = make_pipeline(features, StandardScaler(), LogisticRegression())
    labels = [row.label for row in project.manifest.rows]
    assert cross_val_score(model, paths, labels, error_score="raise").mean() > 0.6


def test_the_record_says_how_it_came_about(emptied: Path) -> None:
    words = ("run", "-c", emptied, "--json", "--set", "data.split.val=0.3", "--set", "data.split.test=0.3")
    head = json.loads(run(*words, FAKE="")[0])["heads"]["logistic"]
    record = json.loads((Path(head["path"]) / "record.json").read_text())
    assert record["key"] == head["key"]
    assert record["config"]["base"]["name"] == "efficientnet_lite0"
    chosen = select.choose_engine("auto", "f32").name
    assert record["rows_made_by"][0].startswith(f"{chosen} on ")
    assert {"scikit-learn", "scipy", "numpy", "python"} <= set(record["versions"])
    assert {chosen, "pillow"} <= set(record["rows_versions"])
    assert record["machine"]
    assert record["blas"]
    assert record["head_version"] == fitted.VERSION
    tables = {"predictions.csv", "predictions.npz"}
    assert set(record["files"]) == {"head.json", "head.npz", "manifest.jsonl", "metrics.json", *tables}
    with np.load(Path(head["path"]) / "predictions.npz", allow_pickle=False) as predictions:
        assert predictions["probabilities"].shape == (N, 2)
        assert np.allclose(predictions["probabilities"].sum(axis=1), 1)


@pytest.mark.parametrize("offline", [True, False])
def test_vgg16_without_network_or_file_is_exit_4(emptied: Path, tmp_path: Path, offline: bool) -> None:
    """Where it may, a download is tried: a proxy that refuses makes a host without a network."""
    words = ("run", "extract", "-c", emptied, "--json", "--set", "base.name=vgg16", *(["--offline"] if offline else []))
    proxy = "http://127.0.0.1:9"
    out, _ = run(*words, FAKE="", expect=4, KERAS_HOME=str(tmp_path), https_proxy=proxy, http_proxy=proxy)
    error = json.loads(out)["error"]
    assert ("nothing is downloaded offline" if offline else "cannot be downloaded: ") in error["message"]
    assert list((tmp_path / "models").glob("*")) == []
    assert "vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5" in error["message"]
    assert str(tmp_path) in error["message"]
    assert "run once with a network, or copy" in error["hint"]
