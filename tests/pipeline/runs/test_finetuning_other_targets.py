"""finetuning.py: labels, numbers and shares are fine-tuned, averaged, predicted and made again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image

import pipeline as frozenbase
from pipeline.results import registry
from tests.conftest import command
from tests.support import other_targets, own_models
from tests.support.other_targets import NAMES, N

SIZE = own_models.SIZE


class Made(NamedTuple):
    """A project on that target, after `run finetune`, and the report of that."""

    target: str
    config: Path
    tuned: dict[str, Any]

    @property
    def folder(self) -> Path:
        return self.config.parent


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model of random weights, and pictures of the size that it takes."""
    folder = tmp_path_factory.mktemp("place")
    own_models.cnn().save(folder / "cnn.keras")
    other_targets.write_table(folder, SIZE)
    return folder


@pytest.fixture(scope="module", params=["labels", "numbers", "shares"])
def made(request: pytest.FixtureRequest, place: Path) -> Made:
    target = request.param
    more = f"""\
heads: {{first: {{kind: {other_targets.linear(target)}}}}}
finetune:
  last: {{head: first, unfreeze_from: s2_1_conv, lr: 1.0e-3, epochs: 2, batch: 8, augment: {{flip: both}}, views: 2,
          seeds: [0, 1], average: true}}
"""
    config = other_targets.write_on_network(place, target, SIZE, more)
    ran = command("run", "finetune", "-c", config, "--json", "--set", "base.trust=true", expect=0)
    return Made(target, config, ran.json["finetune"]["last"])


@pytest.fixture(autouse=True)
def _trusted(place: Path) -> None:
    command("bases", "trust", place / "cnn.keras", expect=0)


def pixels(made: Made) -> np.ndarray:
    """Of all images, by path."""
    files = [made.folder.parent / "images" / path for path in sorted(other_targets.read_table(made.folder))]
    return np.stack([np.asarray(Image.open(file), np.float32) for file in files])


def by_keras(made: Made, model: Path, views: list[np.ndarray]) -> np.ndarray:
    """The mean over members and views, by the whole network with the trained weights put in, layer by layer."""
    import keras

    head, tail = np.load(model / "head.npz"), np.load(model / "tail.npz")
    members = sorted({name.split("/")[0] for name in head.files}) if "0/layer0_bias" in head.files else [""]
    said = []
    for member in members:
        network = keras.models.load_model(made.folder.parent / "cnn.keras")
        start = f"{member}/" if member else ""
        for name in tail.files:
            if name.startswith(start):
                layer, number = name.removeprefix(start).split("/")
                network.get_layer(layer).weights[int(number)].assign(tail[name])
        for view in views:
            rows = np.asarray(network(view)).mean(axis=(1, 2), dtype=np.float64)
            scores = rows @ head[f"{start}layer0_weights"] + head[f"{start}layer0_bias"]
            said.append(other_targets.predictions(made.target, made.folder, scores, ["train"]))  # as its start
    return np.asarray(np.mean(said, axis=0))


def flips(images: np.ndarray) -> list[np.ndarray]:
    return [images, images[:, :, ::-1], images[:, ::-1], images[:, ::-1, ::-1]]


def relative(made: Made, numbers: np.ndarray) -> np.ndarray:
    """Numbers of other sizes side by side."""
    return numbers / np.array([200, 1]) if made.target == "numbers" else numbers


def test_it_says_what_the_network_with_its_weights_says(made: Made) -> None:
    """Each seed of the plain image, and the average of all flips; so do predictions of the files."""
    images, paths = pixels(made), sorted(other_targets.read_table(made.folder))
    found = command("predict", "finetune/last", made.folder.parent / "images", "-c", made.config, "--json", expect=0)
    by_path = {Path(row["path"]).name: row for row in found.json["predict"]["predictions"]}
    assert (found.json["predict"]["computed"], found.json["predict"]["reused"]) == (0, N)
    for key, views in [(seed["key"], [images]) for seed in made.tuned["seeds"]] + [(made.tuned["key"], flips(images))]:
        model = registry.find(made.folder, key)
        expected = by_keras(made, model.folder, views)
        ids = {row.id: row.path for row in model.manifest().rows}
        with np.load(model.folder / "predictions.npz") as arrays:
            said = {ids[i]: row for i, row in zip(arrays["ids"].tolist(), arrays["probabilities"], strict=True)}
        assert relative(made, np.array([said[path] for path in paths])) == pytest.approx(
            relative(made, expected), abs=2e-5
        )
    names = [f"predicted_{name}" for name in NAMES["numbers"]]
    rows = [by_path[path] if made.target == "numbers" else by_path[path]["probabilities"] for path in paths]
    of = names if made.target == "numbers" else NAMES[made.target]
    assert relative(made, np.array([[row[name] for name in of] for row in rows])) == pytest.approx(
        relative(made, expected), abs=2e-5
    )


def test_its_figures_are_those_of_what_it_says(made: Made) -> None:
    """And training starts from the frozen head, whose loss on val is that of epoch 0."""
    assert [seed["seed"] for seed in made.tuned["seeds"]] == [0, 1]
    assert (made.tuned["seed"], made.tuned["epoch"]) == (None, None)
    for report in (made.tuned, *made.tuned["seeds"]):
        model = registry.find(made.folder, report["key"])
        rows = model.manifest().samples
        paths = {row.id: row.path for row in model.manifest().rows}
        with np.load(model.folder / "predictions.npz") as arrays:
            said = arrays["probabilities"]
        truth = other_targets.truth_of(made.target, made.folder, [paths[row.id] for row in rows])
        for split in ("val", "test"):
            here = [i for i, row in enumerate(rows) if row.split == split]
            expected = other_targets.figures(made.target, truth[here], said[here])
            assert {name: report["metrics"][split][name] for name in expected} == pytest.approx(expected)
            ranked = "relative_error" if made.target == "numbers" else "log_loss"
            difference = expected[ranked] - report["baseline"][split][ranked]
            assert report["difference"][split][ranked]["value"] == pytest.approx(difference)
    for seed in made.tuned["seeds"]:
        chosen = json.loads((Path(seed["path"]) / "head.json").read_text())["chosen"]
        assert len(chosen["history"]["val_log_loss"]) == 3
        assert seed["metrics"]["start"]["difference"] < 1e-3
        if made.target != "numbers":
            frozen = seed["baseline"]["val"]["log_loss"]
            assert chosen["history"]["val_log_loss"][0] == pytest.approx(frozen, abs=1e-5)


def test_it_is_a_hit_and_made_again_to_the_bit(made: Made) -> None:
    assert command("run", "finetune", "-c", made.config, "--json", expect=0).json["finetune"]["last"]["hit"]
    stages = command("status", "-c", made.config, "--hash", "--json", expect=0).json["status"]["stages"]
    assert {(stage["stage"], stage["state"]) for stage in stages} == {
        (s, "HIT") for s in ("extract", "head", "finetune")
    }
    again = command("reproduce", "finetune/last", "-c", made.config, "--json", expect=0).json["reproduce"]
    assert (again["reproduced"], again["arrays_same"], again["weights_difference"], again["differences"]) == (
        True,
        True,
        0,
        {},
    )


def test_every_command_shows_it(made: Made) -> None:
    name = {"labels": "macro AP", "numbers": "spearman", "shares": "AUROC"}[made.target]
    assert name in command("run", "finetune", "-c", made.config, expect=0).out
    for words in (
        "models",
        "show finetune/last",
        "predictions finetune/last",
        f"plot finetune/last -o {made.folder}/p",
    ):
        command(*words.split(), "-c", made.config, expect=0)
    compared = command("compare", "first", "finetune/last", "-c", made.config, "--json", expect=0).json["compare"]
    ranked = "relative_error" if made.target == "numbers" else "log_loss"
    assert compared["b"]["metrics"][ranked] == pytest.approx(made.tuned["metrics"]["test"][ranked])
    assert compared["images"] == made.tuned["metrics"]["test"]["n"] > 5


def test_from_python_it_is_the_average_or_the_best_seed(made: Made) -> None:
    tuned = frozenbase.open(made.config).finetune("last")
    assert (tuned.key, tuned.history) == (made.tuned["key"], {})
    assert tuned.metrics["test"] == made.tuned["metrics"]["test"]
    found = frozenbase.open(made.config).predict("finetune/last", made.folder.parent / "images")
    assert list(found.classes) == NAMES[made.target]
    alone = frozenbase.open(made.config, {"finetune.last.average": False}).finetune("last")
    ranked = "relative_error" if made.target == "numbers" else "log_loss"
    best = min(made.tuned["seeds"], key=lambda seed: seed["metrics"]["val"][ranked])
    assert alone.key == best["key"]
    assert {len(curve) for curve in alone.history.values()} >= {2, 3}


@pytest.mark.parametrize("made", ["shares"], indirect=True)
def test_weights_of_classes_have_no_meaning_for_shares(made: Made) -> None:
    words = ("--set", "finetune.last.class_weight=balanced")
    ran = command("run", "finetune", "-c", made.config, "--json", *words, expect=2)
    message = ran.json["error"]["message"]
    assert message.startswith("class_weight: balanced weighs classes, and images have no one class here")
