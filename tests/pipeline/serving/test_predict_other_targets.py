"""predict.py, csv_parquet.py: labels, numbers and shares as CSV, JSON and Parquet, beside what arrays say by hand."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet
import pytest

import pipeline as frozenbase
from stages.extract import opened_bases
from tests.conftest import command
from tests.support import fakes, other_targets
from tests.support.other_targets import NAMES, TARGETS, N

TEXT, NUMBER = "string", "double"
COLUMNS = {
    "labels": {"predicted": TEXT, "at_threshold": TEXT, "p_large": NUMBER, "p_light": NUMBER, "p_odd": NUMBER},
    "number": {"predicted": NUMBER, "low": NUMBER, "high": NUMBER},
    "numbers": {f"{part}_{name}": NUMBER for name in ("level", "depth") for part in ("predicted", "low", "high")},
    "soft": {"predicted": TEXT, "confidence": NUMBER, "p_bright": NUMBER, "p_dark": NUMBER},
    "shares": {"predicted": TEXT, "confidence": NUMBER, "p_high": NUMBER, "p_low": NUMBER, "p_mid": NUMBER},
}
"""Of files of `predict`, after id and path, without those of UNKNOWN."""

UNKNOWN = ("unknown", "unknown_score")
"""Which are before the first `p_NAME`, or last; test_unknown.py tells what they say."""

CALIBRATED = ("at_threshold", "confidence", "low", "high")
"""Which `predictions` has not."""


class Made(NamedTuple):
    """A project with a head on that target, what calibration has fitted, and what it says by hand of each path."""

    target: str
    config: Path
    metrics: dict[str, Any]
    said: dict[str, np.ndarray]

    def columns(self, name: str) -> dict[str, Any]:
        """What a table has to say of the image of that name, beside id and path."""
        said, names, fitted = self.said[name], NAMES[self.target], self.metrics["calibration"]
        found: dict[str, Any] = {}
        if self.target[:6] == "number":
            for of, value in zip(names, said, strict=True):
                half, end = fitted["half_widths"][of], "" if len(names) == 1 else f"_{of}"
                found |= {f"predicted{end}": value, f"low{end}": value - half, f"high{end}": value + half}
            return found
        if self.target == "labels":
            limits = fitted["thresholds"]
            found["predicted"] = ";".join(of for of, p in zip(names, said, strict=True) if p >= 0.5)
            found["at_threshold"] = ";".join(of for of, p in zip(names, said, strict=True) if p >= limits[of])
        else:
            found = {"predicted": names[int(said.argmax())], "confidence": said.max()}
        return found | {f"p_{of}": p for of, p in zip(names, said, strict=True)}


@pytest.fixture(scope="module", params=TARGETS)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Made:
    target, folder = request.param, tmp_path_factory.mktemp("made")
    config = other_targets.write_project(folder, target)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(opened_bases, "open_embed", fakes.FakeEmbed)
        head = command("run", "-c", config, "--json", expect=0).json["heads"]["first"]
    X, _, ids = frozenbase.open(config).features(compute=False)
    paths = {row.id: row.path for row in frozenbase.open(config).manifest}
    said = other_targets.by_hand(target, folder, Path(head["path"]), X)
    return Made(target, config, head["metrics"], dict(zip([paths[i] for i in ids], said, strict=True)))


def plain(value: Any) -> Any:
    return value if isinstance(value, str) else pytest.approx(value, rel=1e-9)


def predict(made: Made, *words: str | Path) -> Any:
    return command("predict", "first", made.config.parent / "images", "-c", made.config, *words, expect=0)


def test_a_csv_has_the_columns_of_the_target(made: Made, tmp_path: Path) -> None:
    predict(made, "-o", tmp_path / "new.csv")
    with (tmp_path / "new.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == N
    kinds = COLUMNS[made.target]
    for row in rows:
        assert [name for name in row if name not in UNKNOWN] == ["id", "path", *kinds]
        assert {*UNKNOWN} < row.keys()
        read = {name: row[name] if kind == TEXT else float(row[name]) for name, kind in kinds.items()}
        assert read == {name: plain(value) for name, value in made.columns(Path(row["path"]).name).items()}


def test_a_parquet_has_numbers_as_numbers(made: Made, tmp_path: Path) -> None:
    predict(made, "-o", tmp_path / "new.parquet")
    table = pyarrow.parquet.read_table(tmp_path / "new.parquet")
    types = {"id": TEXT, "path": TEXT, **COLUMNS[made.target], "unknown": "bool", "unknown_score": NUMBER}
    assert {field.name: str(field.type) for field in table.schema} == types
    for row in table.to_pylist():
        expected = made.columns(Path(row["path"]).name)
        assert {name: row[name] for name in COLUMNS[made.target]} == {n: plain(v) for n, v in expected.items()}


def test_json_has_the_target_and_probabilities_by_name(made: Made) -> None:
    found = predict(made, "--json").json["predict"]
    assert found["classes"] == NAMES[made.target]
    about = found["target"]
    assert about["kind"] == TARGETS[made.target].split()[1].strip(",")
    assert about.get("units") == {"number": ["lx"], "numbers": ["lx", "m"]}.get(made.target)
    assert (found["threshold"], found["temperature"], found["images"]) == (None, None, N)
    for row in found["predictions"]:
        name = Path(row["path"]).name
        expected = {n: plain(v) for n, v in made.columns(name).items() if n[:2] != "p_"}
        if made.target[:6] != "number":
            expected["probabilities"] = dict(zip(NAMES[made.target], map(plain, made.said[name]), strict=True))
        assert {n: v for n, v in row.items() if n not in ("id", "path", *UNKNOWN)} == expected


def test_a_terminal_shows_what_is_predicted_and_what_stands_behind_it(made: Made) -> None:
    ran = command("predict", "first", made.config.parent / "images" / "00.png", "-c", made.config, expect=0)
    head, row = (line.split() for line in ran.out.splitlines()[:2])
    own = [name for name in COLUMNS[made.target] if name[:2] != "p_" and name != "at_threshold"]
    assert head == [*own, "unknown", "path"]
    for name, cell in zip(own, row, strict=False):
        value = made.columns("00.png")[name]
        assert cell == value if isinstance(value, str) else float(cell) == pytest.approx(value, rel=1e-3)
    notes = {"number": "low and high: an interval that holds 95 % of images like those of folds",
             "labels": "predicted: labels of 0.5 or more; at_threshold (in files): those of their threshold on folds",
             "soft": "no temperature: 50 images in train and val are needed; there are 38"}  # fmt: skip
    kind = {"numbers": "number", "shares": "soft"}.get(made.target, made.target)
    assert notes[kind] in ran.err


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_what_a_model_has_stored_has_the_labels_beside_it(made: Made, tmp_path: Path, suffix: str) -> None:
    """Of test the same numbers as new files; of folds others. A label is the JSON that a manifest has."""
    path, kinds = tmp_path / f"stored.{suffix}", COLUMNS[made.target]
    command("predictions", "first", "-c", made.config, "-o", path, expect=0)
    own = {name: kind for name, kind in kinds.items() if not name.startswith(CALIBRATED)}
    fields = ["id", "path", "label", "split", "group", "fold"]
    if suffix == "csv":
        with path.open(newline="") as file:
            rows: list[dict[str, Any]] = list(csv.DictReader(file))
    else:
        table = pyarrow.parquet.read_table(path)
        rows = table.to_pylist()
        types = {**dict.fromkeys(fields, TEXT), "fold": "int16", **own}
        assert {field.name: str(field.type) for field in table.schema} == types
    assert len(rows) == N
    labels, splits = other_targets.read_table(made.config.parent), other_targets.splits_of(made.config.parent)
    for row in rows:
        assert list(row) == [*fields, *own]
        cells = {name: labels[row["path"]][name] for name in NAMES[made.target]}
        read = {name: float(cell) if cell else None for name, cell in cells.items()}
        if made.target == "labels":
            read = {name: mark for name, mark in read.items() if mark != 0}
        assert json.loads(row["label"]) == {name: value and plain(value) for name, value in read.items()}
        assert (row["split"] == "test") == (splits[row["path"]] == "test") == (int(row["fold"]) == 0)
        if row["split"] == "test":
            expected = made.columns(row["path"])
            for name, kind in own.items():
                assert (row[name] if kind == TEXT else float(row[name])) == plain(expected[name])
