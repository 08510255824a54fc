"""transformer.py: what scikit-learn asks of a transformer, and the same rows as a pipeline.yaml's."""

from __future__ import annotations

import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator, clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils import estimator_checks, get_tags
from sklearn.utils.validation import check_is_fitted

import pipeline as frozenbase
from cache.errors import NotAvailable, Unusable
from pipeline import BottleneckFeatures
from stages.data.images import PixelSpec, decode
from stages.extract import opened_bases
from tests.conftest import Ran, counts
from tests.support import fakes

N = 24


@pytest.fixture
def images(project: Path, fake_embed: None) -> list[str]:
    """The paths of the project's images: first those of `bright`, then those of `dark`."""
    return sorted(str(path) for path in (project.parent / "images").rglob("*.png"))


@pytest.fixture
def labels() -> list[str]:
    return ["bright"] * (N // 2) + ["dark"] * (N // 2)


@pytest.fixture
def features(project: Path) -> BottleneckFeatures:
    """On the cache and with the settings of the project."""
    return BottleneckFeatures(size=16, cache_dir=project.parent / ".features")


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch, fake_embed: None) -> list[int]:
    """How many images the base sees, batch by batch."""
    seen: list[int] = []
    call = fakes.FakeEmbed.__call__

    def counting(self: fakes.FakeEmbed, pixels: np.ndarray) -> dict[str, np.ndarray]:
        seen.append(len(pixels))
        return call(self, pixels)

    monkeypatch.setattr(fakes.FakeEmbed, "__call__", counting)
    return seen


def colour(path: str) -> float:
    """What the fake base says first of an image: the mean of its red pixels."""
    pixels = decode(Path(path).read_bytes(), PixelSpec(16, 16, "squash", "bilinear", "scaled"))
    return float(pixels.astype(np.float32).mean(axis=(0, 1))[0])


def test_rows_are_float32_in_the_order_of_the_paths(features: BottleneckFeatures, images: list[str]) -> None:
    order = [images[i] for i in (20, 3, 11, 3)]
    rows = features.transform(order)
    assert (rows.shape, rows.dtype, rows.flags.writeable) == ((4, 6), np.float32, True)
    assert np.allclose(rows[:, 0], [colour(path) for path in order])
    assert np.array_equal(rows[1], rows[3])


def test_only_what_the_cache_lacks_is_computed(
    features: BottleneckFeatures, images: list[str], computed: list[int]
) -> None:
    first = features.transform(images[:10])
    assert sum(computed) == 10
    assert np.array_equal(features.transform(images)[:10], first)
    assert sum(computed) == N
    features.transform(images)
    assert sum(computed) == N


def test_rows_of_a_pipeline_yaml_are_hits_here(
    pipeline: Callable[..., Ran], project: Path, features: BottleneckFeatures, images: list[str], computed: list[int]
) -> None:
    ran = pipeline("run", "extract", "-c", project, "--json")
    assert counts(ran) == (N, 0)
    features.fit_transform(images)
    assert sum(computed) == N
    assert ran.json["extract"]["keys"]["pooled"] == features.extract_key_


def test_rows_made_here_are_hits_for_a_pipeline_yaml(
    pipeline: Callable[..., Ran], project: Path, features: BottleneckFeatures, images: list[str]
) -> None:
    features.transform(images)
    assert counts(pipeline("run", "extract", "-c", project, "--json")) == (0, N)


@pytest.mark.parametrize(
    ("name", "value", "setting"),
    [
        ("size", 32, "extract.size=32"),
        ("image_fit", "crop", "extract.fit=crop"),
        ("resize", "keras", "extract.resize=keras"),
        ("decode", "full", "extract.decode=full"),
        ("numerics", "tensorflow-bf16", "extract.numerics=tensorflow-bf16"),
        ("dtype", "float16", "extract.dtype=float16"),
        ("layer", "block3_add", "extract.taps={pooled: {layer: block3_add}}"),
        ("pooling", "max", "extract.taps={pooled: {pooling: max}}"),
        ("weights", "w.weights.h5", "base.weights=w.weights.h5"),
    ],
)
def test_every_parameter_means_what_pipeline_yaml_does(
    pipeline: Callable[..., Ran], project: Path, features: BottleneckFeatures, images: list[str],
    monkeypatch: pytest.MonkeyPatch, name: str, value: Any, setting: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(project.parent)
    Path("w.weights.h5").write_bytes(b"weights")
    before = features.fit(images).extract_key_
    assert features.set_params(**{name: value}).fit_transform(images).dtype == np.float32
    ran = pipeline("run", "extract", "-c", project, "--json", "--set", setting)
    assert counts(ran) == (0, N)
    assert ran.json["extract"]["keys"]["pooled"] == features.extract_key_ != before


def test_whole_maps_come_out_flat(features: BottleneckFeatures, images: list[str]) -> None:
    rows = features.set_params(pooling="none").transform(images)
    assert rows.shape == (N, 2 * 2 * 3)
    assert len(features.get_feature_names_out()) == 2 * 2 * 3


@pytest.mark.parametrize(
    "kind",
    [
        list, tuple, np.array, lambda paths: np.array(paths, dtype=object), lambda paths: np.array(paths)[:, None],
        pd.Series, lambda paths: pd.Series(paths, index=range(100, 100 + len(paths))),
        lambda paths: pd.DataFrame({"path": paths}), lambda paths: [Path(path) for path in paths],
    ],
    ids=["list", "tuple", "array", "array of objects", "column", "Series", "Series with an index", "DataFrame", "Path"],
)  # fmt: skip
def test_paths_come_as_list_tuple_array_series_or_path(
    features: BottleneckFeatures, images: list[str], kind: Callable[[list[str]], Any]
) -> None:
    assert np.array_equal(features.transform(kind(images)), features.transform(images))


def test_relative_paths_start_from_root_or_else_from_the_current_folder(
    features: BottleneckFeatures, images: list[str], project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = features.transform(images)
    relative = [os.path.relpath(path, project.parent / "images") for path in images]
    monkeypatch.chdir(project.parent / "images")
    assert np.array_equal(features.transform(relative), expected)
    monkeypatch.chdir(project.parent)
    assert np.array_equal(features.set_params(root="images").transform(relative), expected)


def test_the_cache_is_the_one_named_or_the_environment_s_or_here(
    images: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    BottleneckFeatures(size=16).transform(images[:1])
    assert (tmp_path / ".features" / "features").is_dir()
    monkeypatch.setenv("PIPELINE_CACHE_DIR", str(tmp_path / "environment"))
    BottleneckFeatures(size=16).transform(images[:1])
    assert (tmp_path / "environment" / "features").is_dir()
    BottleneckFeatures(size=16, cache_dir="named").transform(images[:1])
    assert (tmp_path / "named" / "features").is_dir()


def test_files_that_are_missing_are_named(features: BottleneckFeatures, images: list[str], computed: list[int]) -> None:
    gone = [f"{images[0]}-{i}" for i in range(7)]
    with pytest.raises(Unusable, match=r"7 of 9 images cannot be used: .*0000.png-0: .*No such file.*; and 2 more"):
        features.transform([*images[:2], *gone])
    assert computed == []


def test_files_that_cannot_be_decoded_are_named_and_the_others_kept(
    features: BottleneckFeatures, images: list[str], tmp_path: Path, computed: list[int]
) -> None:
    (tmp_path / "bad.png").write_bytes(b"no image")
    with pytest.raises(Unusable, match=r"1 of 25 images cannot be used: .*bad.png: "):
        features.transform([*images, tmp_path / "bad.png"])
    features.transform(images)
    assert sum(computed) == N


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        ("a.png", r"got str of shape \(\); expected one path for each image"),
        ([], r"got list of shape \(0,\)"),
        (np.zeros((4, 3)), r"got ndarray of shape \(4, 3\)"),
        (["a.png", 3.0], r"sample 1 is 3.0; expected the path of an image"),
        (pd.Series(["a.png", None]), "sample 1 is"),
        (["a\0.png"], r"sample 0 is 'a\\x00.png'"),
    ],
)
def test_what_is_no_list_of_paths_is_refused(features: BottleneckFeatures, paths: Any, message: str) -> None:
    with pytest.raises(Unusable, match=message):
        features.transform(paths)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"base": "vgg17"}, "'vgg17' is unknown"),
        ({"size": 8}, "BottleneckFeatures: extract.size: expected at least 16, got 8"),
        ({"image_fit": "stretch"}, "BottleneckFeatures: extract.fit: .*got 'stretch'"),
        ({"pooling": "median"}, "BottleneckFeatures: extract.taps.features.pooling: .*got 'median'"),
        ({"pooling": "mean"}, r"extract\.taps\.features\.pooling: mean is for tokens; expected avg, max or none"),
        ({"workers": 0}, "BottleneckFeatures: cluster.workers: "),
    ],
)
def test_fit_checks_the_parameters_and_looks_at_no_image(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(Unusable, match=message):
        BottleneckFeatures(**parameters).fit(["nowhere.png"])
    assert BottleneckFeatures().fit(["nowhere.png"]).extract_key_


def test_clone(features: BottleneckFeatures, images: list[str]) -> None:
    features.fit(images)
    copy = clone(features)
    assert copy.get_params() == features.get_params()
    assert not hasattr(copy, "extract_key_")


def test_get_params_and_set_params(features: BottleneckFeatures) -> None:
    assert features.get_params()["size"] == 16
    assert set(features.get_params()) == {
        "base", "weights", "trust", "preprocess", "size", "image_fit", "resize", "decode", "layer", "pooling",
        "numerics", "dtype", "cache_dir", "root", "workers",
    }  # fmt: skip
    assert features.set_params(size=32, pooling="max") is features
    assert (features.size, features.pooling) == (32, "max")


@pytest.mark.parametrize("fitted", [False, True])
def test_pickle(features: BottleneckFeatures, images: list[str], fitted: bool) -> None:
    if fitted:
        features.fit_transform(images)
    data = pickle.dumps(features)
    copy = pickle.loads(data)
    assert len(data) < 1000
    assert vars(copy) == vars(features)
    assert np.array_equal(copy.transform(images), features.transform(images))


def test_get_feature_names_out(features: BottleneckFeatures, images: list[str]) -> None:
    with pytest.raises(NotAvailable, match="the number of features is unknown"):
        features.get_feature_names_out()
    features.transform(images[:1])
    assert features.get_feature_names_out().tolist() == [f"efficientnet_lite0_output_avg_{i}" for i in range(6)]
    assert features.set_params(layer="block3_add", pooling="max").fit_transform(images).shape == (N, 3)
    assert features.get_feature_names_out()[-1] == "efficientnet_lite0_block3_add_max_2"


def test_set_output(features: BottleneckFeatures, images: list[str]) -> None:
    expected = features.transform(images)
    table = features.set_output(transform="pandas").fit_transform(pd.DataFrame({"path": images}, index=range(7, 7 + N)))
    assert list(table.columns) == list(features.get_feature_names_out())
    assert list(table.index) == list(range(7, 7 + N))
    assert np.array_equal(table.to_numpy(), expected)


def test_pipeline(features: BottleneckFeatures, images: list[str], labels: list[str]) -> None:
    model = make_pipeline(features, LogisticRegression())
    assert model.fit(images, labels).score(images, labels) == 1
    assert model[:-1].get_feature_names_out()[0] == "efficientnet_lite0_output_avg_0"
    assert pickle.loads(pickle.dumps(model)).predict([images[0], images[-1]]).tolist() == ["bright", "dark"]


@pytest.mark.parametrize("kind", [list, np.array, pd.Series])
def test_cross_val_score_computes_each_row_once(
    features: BottleneckFeatures, images: list[str], labels: list[str], computed: list[int],
    kind: Callable[[list[str]], Any],
) -> None:  # fmt: skip
    scores = cross_val_score(make_pipeline(features, LogisticRegression()), kind(images), labels, cv=4)
    assert scores.mean() == 1
    assert sum(computed) == N


def test_grid_search_over_base_and_tap(
    features: BottleneckFeatures, images: list[str], labels: list[str], computed: list[int], tmp_path: Path
) -> None:
    (tmp_path / "w.weights.h5").write_bytes(b"weights")
    model = Pipeline([("features", features.set_params(weights=str(tmp_path / "w.weights.h5"))),
                      ("head", LogisticRegression(max_iter=1000))])  # fmt: skip
    grid = {
        "features__base": ["efficientnet_lite0", "mobilenet_v2"],
        "features__layer": ["output", "block3_add"],
        "features__pooling": ["avg", "max"],
    }
    search = GridSearchCV(model, grid, cv=3, error_score="raise").fit(images, labels)
    assert len(search.cv_results_["params"]) == 8
    assert search.best_score_ == 1
    assert sum(computed) == 8 * N


def test_two_processes_score_from_the_cache(
    features: BottleneckFeatures, images: list[str], labels: list[str], computed: list[int]
) -> None:
    features.transform(images)
    model = make_pipeline(features, LogisticRegression())
    assert cross_val_score(model, images, labels, cv=3, n_jobs=2, error_score="raise").mean() == 1
    assert sum(computed) == N


def transform_in_a_process(features: BottleneckFeatures, paths: list[str]) -> np.ndarray:
    opened_bases.open_embed = fakes.FakeEmbed  # type: ignore[assignment]
    return features.transform(paths)


@pytest.mark.parametrize("backend", ["loky", "threading"])
def test_jobs_beside_each_other_extract_what_is_missing(
    features: BottleneckFeatures, images: list[str], backend: str
) -> None:
    """Each has a Dask cluster of its own; some rows are wanted by both."""
    parts = [images[:16], images[8:]]
    found = joblib.Parallel(n_jobs=2, backend=backend)(
        joblib.delayed(transform_in_a_process)(features, part) for part in parts
    )
    for part, rows in zip(parts, found, strict=True):
        assert np.array_equal(rows, features.transform(part))


CHECKS = (
    estimator_checks.check_parameters_default_constructible,
    estimator_checks.check_get_params_invariance,
    estimator_checks.check_set_params,
    estimator_checks.check_no_attributes_set_in_init,
    estimator_checks.check_estimator_cloneable,
    estimator_checks.check_estimator_repr,
    estimator_checks.check_estimator_tags_renamed,
    estimator_checks.check_valid_tag_types,
    estimator_checks.check_mixin_order,
)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_it_keeps_scikit_learn_s_rules_for_estimators(check: Callable[[str, BaseEstimator], None]) -> None:
    """Those that feed numbers have no meaning for paths; what they ask is tested above, with paths."""
    check("BottleneckFeatures", BottleneckFeatures())


def test_its_tags_say_that_it_takes_strings_and_needs_no_fit(features: BottleneckFeatures) -> None:
    tags = get_tags(features)
    assert tags.input_tags.string
    assert tags.no_validation
    assert not tags.input_tags.two_d_array
    assert not tags.requires_fit
    check_is_fitted(features)


def test_transform_leaves_the_estimator_and_its_input_alone(features: BottleneckFeatures, images: list[str]) -> None:
    paths = pd.Series(images)
    before, state = paths.copy(), dict(vars(features.fit(paths)))
    features.transform(paths)
    assert vars(features) == state
    assert paths.equals(before)


def test_the_result_may_be_written_to(features: BottleneckFeatures, images: list[str]) -> None:
    rows = features.transform(images)
    rows[:] = 0
    assert features.transform(images).any()


def test_renamed_files_are_hits(features: BottleneckFeatures, images: list[str], computed: list[int]) -> None:
    features.transform(images)
    moved = [shutil.move(path, f"{path}.moved.png") for path in images]
    features.transform(moved)
    assert sum(computed) == N


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = "import sys, pipeline; print([m for m in ('sklearn', 'dask', 'h5py', 'numpy', 'click') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
    assert frozenbase.BottleneckFeatures is BottleneckFeatures
    with pytest.raises(AttributeError, match="module 'pipeline' has no attribute 'nothing'"):
        frozenbase.nothing  # noqa: B018


def test_scikit_learn_s_function_transformer_can_go_before_it(features: BottleneckFeatures, images: list[str]) -> None:
    """A column of a table to paths, as one does in practice."""
    table = pd.DataFrame({"file": images, "other": range(N)})
    model = make_pipeline(FunctionTransformer(lambda t: t["file"]), features)
    assert np.array_equal(model.fit_transform(table), features.transform(images))
