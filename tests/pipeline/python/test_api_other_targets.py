"""api.py, dataset.py, transformer.py: labels, numbers and shares from Python, beside what the table says by itself."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from sklearn.linear_model import Ridge
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline

import pipeline as frozenbase
from pipeline import BottleneckFeatures
from pipeline.python.api import OpenPipeline, TrainedHead
from stages.extract import opened_bases
from tests.support import fakes, other_targets
from tests.support.other_targets import NAMES, TARGETS


class Made(NamedTuple):
    """A project on that target, and its head."""

    target: str
    folder: Path
    opened: OpenPipeline
    head: TrainedHead

    def columns(self, ids: np.ndarray) -> np.ndarray:
        """What the table says of those images, in the order of predictions; NaN for an empty cell."""
        paths = {row.id: row.path for row in self.opened.manifest}
        return other_targets.truth_of(self.target, self.folder, [paths[i] for i in ids])


@pytest.fixture(scope="module", params=TARGETS)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    target, folder = request.param, tmp_path_factory.mktemp("made")
    config = other_targets.write_project(folder, target)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(opened_bases, "open_embed", fakes.FakeEmbed)
        opened = frozenbase.open(config)
        yield Made(target, folder, opened, opened.head("first"))


@pytest.mark.parametrize("split", [None, "train", "val", "test"])
@pytest.mark.parametrize("lazy", [False, True])
def test_y_is_what_the_table_says_in_the_order_of_predictions(made: Made, split: str | None, lazy: bool) -> None:
    X, y, ids = made.opened.features(split, lazy=lazy)
    expected = made.columns(ids)
    assert X.shape == (len(ids), 6)
    if made.target == "labels":
        known = [tuple(name for name, has in zip(NAMES["labels"], row, strict=True) if has == 1) for row in expected]
        assert y.tolist() == known
    else:
        assert y.dtype == np.float64
        assert y.shape == ((len(ids),) if made.target == "number" else expected.shape)
        assert y.reshape(len(ids), -1) == pytest.approx(expected, rel=1e-12)


def test_a_head_s_predictions_are_those_of_its_arrays(made: Made) -> None:
    assert list(made.head.classes) == NAMES[made.target]
    assert made.head.classes.kind == TARGETS[made.target].split()[1].strip(",")
    X, _, _ = made.opened.features("test")
    model = made.opened.model("head/first")
    expected = other_targets.by_hand(made.target, made.folder, model.folder, X)
    assert made.head.predict(X) == pytest.approx(expected, rel=1e-9)
    assert np.array_equal(model.head.predict(X), made.head.predict(X))
    if made.target in ("soft", "shares"):
        assert expected.sum(axis=1) == pytest.approx(np.ones(len(X)))


def test_figures_of_test_are_those_of_y_and_of_what_the_head_says(made: Made) -> None:
    """By formulas of their own."""
    X, _, ids = made.opened.features("test")
    found = made.head.metrics["test"]
    expected = other_targets.figures(made.target, made.columns(ids), made.head.predict(X))
    assert {name: found[name] for name in expected} == pytest.approx(expected)


def test_predictions_of_files_are_those_of_their_rows(made: Made) -> None:
    X, _, ids = made.opened.features()
    found = made.opened.predict("first", made.folder / "images")
    said = dict(zip(ids, made.head.predict(X), strict=True))
    expected = np.array([said[i] for i in found.ids])
    assert np.array_equal(found.probabilities, expected)
    assert (found.threshold, found.temperature) == (None, None)  # of so few images
    if made.target == "labels":
        assert found.predicted == [
            ";".join(name for name, p in zip(NAMES["labels"], row, strict=True) if p >= 0.5) for row in expected
        ]
    elif made.target[:6] == "number":
        assert np.array_equal(np.array(found.predicted).reshape(expected.shape), expected)
        assert repr(found).endswith(f"48 images: {', '.join(NAMES[made.target])}>")
    else:
        assert found.predicted == [NAMES[made.target][i] for i in expected.argmax(axis=1)]
        assert found.confidence is not None
        assert found.confidence == pytest.approx(expected.max(axis=1), rel=1e-12)
    assert (found.at_threshold is not None) == (made.target == "labels")
    assert (found.confidence is not None) == (made.target in ("soft", "shares"))


def test_results_are_frames_and_short_in_a_prompt(made: Made) -> None:
    found = made.opened.predict("first", [made.folder / "images" / f"{i:02d}.png" for i in range(3)])
    frame = found.to_frame()
    assert len(frame) == 3
    if made.target[:6] == "number":
        names = [""] if made.target == "number" else [f"_{name}" for name in NAMES["numbers"]]
        said = [f"{part}{name}" for name in names for part in ("predicted", "low", "high")]
        assert list(frame)[2:] == [*said, "unknown", "unknown_score"]
        middle = np.array([(frame[f"low{name}"] + frame[f"high{name}"]) / 2 for name in names]).T
        assert middle == pytest.approx(found.probabilities)
    else:
        assert list(frame)[-len(NAMES[made.target]) :] == [f"p_{name}" for name in NAMES[made.target]]
    for result in (made.head, made.opened.model("first"), found):
        assert len(repr(result)) < 100
        assert "<table>" in result._repr_html_()
    figures = made.head.to_frame().set_index("figure")
    ranked = "relative_error" if made.target[:6] == "number" else "log_loss"
    assert figures.loc[ranked, "test"] == made.head.metrics["test"][ranked]


@pytest.mark.parametrize("made", ["number", "numbers"], indirect=True)
def test_scikit_learn_fits_numbers_on_the_same_rows(made: Made) -> None:
    """The same ids, rows and columns: ridge by scikit-learn says what the table does, as well as the head."""
    _, y, ids = made.opened.features()
    paths = {row.id: str(made.folder / "images" / row.path) for row in made.opened.manifest}
    features = BottleneckFeatures(size=16, cache_dir=made.folder / ".features")
    said = cross_val_predict(make_pipeline(features, Ridge(1e-3)), [paths[i] for i in ids], y, cv=4)
    truth, said = y.reshape(len(ids), -1), said.reshape(len(ids), -1)
    assert np.corrcoef(truth[:, 0], said[:, 0])[0, 1] > 0.95
