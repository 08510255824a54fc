"""finetuning.py: what a fine-tuned model's key holds, what is computed for it, and what is refused."""

from __future__ import annotations

import importlib
import json
import re
import shutil
import signal
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

import pipeline as frozenbase
from pipeline.config.schema import field_places
from pipeline.results import predictions, registry
from pipeline.runs import boundary_rows, finetune_start, finetuning
from stages.bases import catalogue, weights
from stages.data import augment
from tests.conftest import Pipeline, Ran, command, opened, write_finetuning
from tests.support import fakes
from tests.support.process import run, start

OTHER_VALUE = {
    "finetune.*.head": "wide",
    "finetune.*.unfreeze_from": "block14",
    "finetune.*.mode": "full",
    "finetune.*.optimizer": "sgd",
    "finetune.*.lr": "0.1",
    "finetune.*.schedule": "cosine",
    "finetune.*.weight_decay": "0.1",
    "finetune.*.class_weight": "balanced",
    "finetune.*.batch": "4",
    "finetune.*.epochs": "7",
    "finetune.*.patience": "null",
    "finetune.*.dtype": "float16",
    "finetune.*.augment": "{flip: vertical}",
    "finetune.*.views": "3",
    "finetune.*.seeds": "[1]",
    "finetune.*.average": "true",
    "finetune.*.log_dir": "logs",
}


def key_of(config: Path, *overrides: str) -> tuple[str, list[str]]:
    """The key of the model of the last seed, or the average, and those of its boundary's views."""
    project = opened(config, *overrides)
    start = finetune_start.train_start(project, "last", project.manifest)
    tuning = finetuning.Tuning(project, "last", project.manifest, start)
    return tuning.folder(tuning.models[-1]).name, boundary_rows.extract_keys(project, ["last"])


def test_the_walk_covers_every_field_of_fine_tuning() -> None:
    assert set(OTHER_VALUE) == {field for field in field_places() if field.startswith("finetune.")}


@pytest.mark.parametrize("field", OTHER_VALUE)
def test_every_field_moves_the_model_s_key_and_only_what_it_should_the_boundary_s(
    pipeline: Pipeline, project: Path, field: str
) -> None:
    config = write_finetuning(project.parent)
    assert pipeline("run", "extract", "-c", config).code == 0
    key, rows = key_of(config)
    changed, others = key_of(config, f"{field.replace('*', 'last')}={OTHER_VALUE[field]}")
    assert (changed != key) == (field_places()[field].stage == "finetune")
    of_rows = {"finetune.*.unfreeze_from", "finetune.*.dtype"}
    assert (others[0] != rows[0]) == (field in of_rows)
    if field == "finetune.*.views":
        assert others[:2] == rows, "more views are views added"
    assert key_of(config) == (key, rows)


VERSIONS = {
    "stages.bases.recipe": {"rows", "view", "head", "finetune"},
    "stages.data.augment": {"view", "finetune"},
    "stages.heads.fitted": {"head", "finetune"},
    "pipeline.runs.finetuning": {"finetune"},
}
"""Modules with a VERSION of their arithmetic -> the keys it is in, by itself or by way of another key."""

OF_COMPILED_MODELS = {f"stages.engines.{name}" for name in ("tensorflow_engine", "openvino_engine", "openvino_files")}
"""Modules whose VERSION is in the key of a base in an engine's form, which holds no result."""

OF_CHOICES = {"pipeline.runs.choices"}
"""Modules whose VERSION is in the key of figures of a sweep's choice, which is no model: test_sweeps.py."""

OF_UNKNOWN = {"stages.unknown.distance"}
"""Modules whose VERSION is in the key of what tells unknown images, which is beside a model: test_distance.py."""

OF_MAPS = {"pipeline.report.image_map"}
"""Modules whose VERSION is in the key of where images lie on maps: test_report.py."""


def test_every_version_of_an_arithmetic_is_listed() -> None:
    root = Path(frozenbase.__file__).parents[1]
    modules = [path for package in ("cache", "stages", "pipeline") for path in (root / package).rglob("*.py")]
    found = {
        ".".join(path.relative_to(root).with_suffix("").parts)
        for path in modules
        if re.search(r"^VERSION = ", path.read_text(), re.MULTILINE)
    }
    assert found == VERSIONS.keys() | OF_COMPILED_MODELS | OF_CHOICES | OF_UNKNOWN | OF_MAPS


@pytest.mark.parametrize("module", VERSIONS)
def test_raising_a_version_moves_the_keys_of_all_that_depends_on_it(
    pipeline: Pipeline, project: Path, module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = write_finetuning(project.parent)
    assert pipeline("run", "extract", "-c", config).code == 0

    def keys() -> dict[str, str]:
        opened_now = opened(config)
        start = finetune_start.train_start(opened_now, "last", opened_now.manifest)
        tuning = finetuning.Tuning(opened_now, "last", opened_now.manifest, start)
        rows, view = boundary_rows.extract_keys(opened_now, ["last"])
        return {"rows": rows, "view": view, "head": start.key, "finetune": tuning.folder(0).name}

    before = keys()
    version = importlib.import_module(module).VERSION
    monkeypatch.setattr(f"{module}.VERSION", version + 1)
    if module == "stages.bases.recipe":
        assert pipeline("run", "extract", "-c", config).code == 0
    now = keys()
    assert {name for name in before if now[name] != before[name]} == VERSIONS[module]


def test_a_model_without_views_does_not_depend_on_augmentation(
    pipeline: Pipeline, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = write_finetuning(project.parent)
    assert pipeline("run", "extract", "-c", config).code == 0
    key, _ = key_of(config, "finetune.last.views=1")
    monkeypatch.setattr(augment, "VERSION", 2)
    assert key_of(config, "finetune.last.views=1")[0] == key


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["last.unfreeze_from=block17"], "efficientnet_lite0 has no block 'block17'"),
        (["last.head=near"], "finetune.last.head: 'near' is of kind knn; expected logistic or ridge or dense"),
        (["last.head=nobody"], "finetune.last.head: no head 'nobody'; there are logistic"),
        (["last.views=3", "last.augment=null"], "views: 3 views of an image differ by augment, which is not set"),
        (["last.views=5"], "views: augment makes 4 different views of an image; 5 were asked for"),
        (["last.average=true", "last.views=1", "last.augment=null"], "average: there is one seed, and no flip or turn"),
        (["last.lr=0"], "finetune.last.lr: expected more than 0, got 0"),
        (["last.epoch=3"], "unknown field finetune.last.epoch"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_anything_is_computed(
    pipeline: Pipeline, project: Path, changes: list[str], message: str
) -> None:
    words = [word for change in changes for word in ("--set", f"finetune.{change}")]
    ran = pipeline("run", "finetune", "-c", write_finetuning(project.parent), "--json", *words)
    assert ran.code == 2
    assert message in ran.json["error"]["message"]
    assert not (project.parent / ".features").exists()


def test_a_head_elsewhere_than_on_the_base_s_output_is_refused(pipeline: Pipeline, project: Path) -> None:
    words = ("--set", "extract.taps={pooled: {}, b: {layer: block3_add}}", "--set", "heads.logistic={tap: [pooled, b]}")
    ran = pipeline("run", "finetune", "-c", write_finetuning(project.parent), "--json", *words)
    assert ran.code == 2
    assert "uses pooled and b; expected one tap, the base's output" in ran.json["error"]["message"]


def test_an_empty_val_and_a_name_that_is_none(pipeline: Pipeline, project: Path) -> None:
    config = write_finetuning(project.parent)
    ran = pipeline("run", "finetune", "-c", config, "--json", "--set", "data.split.val=0")
    assert (ran.code, "no labelled image is in val" in ran.json["error"]["message"]) == (2, True)
    ran = pipeline("run", "finetune", "lst", "-c", config)
    assert (ran.code, "no fine-tuning 'lst' in pipeline.yaml; it has last" in ran.err) == (2, True)
    ran = pipeline("run", "finetune", "-c", config, "--set", "finetune={}")
    assert (ran.code, "its finetune: is empty" in ran.err) == (2, True)
    ran = pipeline("run", "extract", "-c", config, "--for", "last")
    assert (ran.code, "expected finetune/NAME" in ran.err) == (2, True)


def standing(config: Path, *overrides: str) -> dict[str, tuple[str, str]]:
    """What `pipeline status` says of each fine-tuning: state and reason."""
    words = [word for override in overrides for word in ("--set", override)]
    found = command("status", "--hash", "-c", config, "--json", *words, expect=0).json["status"]
    lines = {s["name"]: (s["state"], s["reason"]) for s in found["stages"] if s["stage"] == "finetune"}
    fresh = all(state == "HIT" for state, _ in lines.values()) and all(s["state"] == "HIT" for s in found["stages"])
    assert command("status", "-q", "--hash", "-c", config, *words).code == (0 if fresh else 5)
    return {**lines, **dict.fromkeys(found["not_made"], ("not made", ""))}


def rows_by_key(config: Path) -> dict[str, int]:
    """How many rows there are of each extract key."""
    return {
        store.key: sum(record["rows"] for record in store.shard_records()) for store in opened(config).cache.stores()
    }


def tuned(out: str) -> Any:
    return json.loads(out)["finetune"]["last"]


class Made(NamedTuple):
    """A project after `run extract --for` and `run finetune`: what these said, and the rows there were between them."""

    config: Path
    extracted: Ran
    counts: dict[str, int]
    tuned: Ran


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Real rows, by real weights in a file of its own, which no package has."""
    folder = tmp_path_factory.mktemp("made")
    fakes.two_classes(folder / "images", 12)
    official = weights.published_path(catalogue.get_base("efficientnet_lite0")).read_bytes()
    (folder / "own.pth").write_bytes(official + b"not the file that comes along")
    config = write_finetuning(folder)
    config.write_text(config.read_text() + "base: {weights: own.pth}\n")
    extracted = command("run", "extract", "-c", config, "--json", "--for", "finetune/last", expect=0)
    counts = rows_by_key(config)
    return Made(config, extracted, counts, command("run", "finetune", "-c", config, "--json", expect=0))


@pytest.fixture
def copied(made: Made, tmp_path: Path) -> Path:
    """The pipeline.yaml of a copy of that project."""
    shutil.copytree(made.config.parent, tmp_path / "project")
    return tmp_path / "project" / "pipeline.yaml"


def test_from_images_to_a_fine_tuned_model_and_what_a_change_costs(made: Made, copied: Path, tmp_path: Path) -> None:
    _, extracted, counts, ran = made
    config, keys, first = copied, extracted.json["extract"]["keys"], tuned(ran.out)
    train = sum(row.split == "train" for row in opened(config).manifest.rows)
    plain, view = boundary_rows.extract_keys(opened(config), ["last"])
    assert (keys["finetune/last"], counts) == (plain, {keys["pooled"]: 24, plain: 24, view: train})
    assert ran.err.count("mode cached") == 1
    assert "an epoch: about" in ran.err
    assert rows_by_key(config) == counts, "the boundary was there"
    assert first["metrics"]["val"]["n"] == first["baseline"]["val"]["n"] > 0
    assert {"accuracy", "auroc", "mcnemar"} < set(first["difference"]["test"])
    folder = config.parent / "models" / "finetune" / "last" / first["key"]
    assert first["metrics"]["start"]["difference"] < 1e-5
    assert not (folder / "checkpoint.npz").exists()
    watched = tmp_path / "log"
    out, _ = run("run", "finetune", "-c", config, "--json", FAKE="", WATCH=str(watched))
    assert tuned(out)["hit"]
    assert "tensorflow" not in json.loads(watched.read_text().splitlines()[-1])
    with np.load(folder / "predictions.npz") as arrays:
        assert len(arrays["ids"]) == 24
    again = command("reproduce", "finetune/last", "-c", config, "--json", expect=0).json["reproduce"]
    assert (again["reproduced"], again["differences"]) == (True, {})
    more = ("--set", "finetune.last.views=4", "--set", "finetune.last.epochs=4", "--set", "heads.logistic.C=1")
    command("run", "finetune", "-c", config, *more, expect=0)
    after = rows_by_key(config)
    assert sorted(after.values()) == sorted([*counts.values(), train, train]), "two more views, and nothing else"
    for name in ("models", "tag finetune/last v1", "predictions v1"):
        command(*name.split(), "-c", config, expect=0)
    lines = command("show", "v1", "-c", config, expect=0).out.splitlines()
    assert [sum(line.startswith(f"{who} ") for line in lines) for who in ("frozen head", "difference")] == [2, 2]


def test_of_images_that_have_rows_it_says_what_it_said_without_the_base_s_weights(copied: Path) -> None:
    """And of a copy, whose row is absent, the same once they are there."""
    config, folder = copied, copied.parent
    (folder / "own.pth").rename(folder / "elsewhere.pth")
    model = registry.find(folder, "finetune/last")
    compared = command("compare", "logistic", "finetune/last", "-c", config, "--json", expect=0).json["compare"]
    assert compared["b"]["metrics"]["log_loss"] == pytest.approx(model.metrics["test"]["log_loss"])
    then = predictions.read_predictions(model)
    words = ("predict", "finetune/last", folder / "images", "-c", config, "--json")
    found = command(*words, expect=0).json["predict"]
    assert (found["computed"], found["reused"]) == (0, 24)
    said = {row["id"]: list(row["probabilities"].values()) for row in found["predictions"]}
    for row, p in zip(then.rows, then.probabilities, strict=True):
        assert said[row.id] == pytest.approx(p, rel=1e-5)
    copy = folder / "copy.png"
    copy.write_bytes((folder / "images" / then.rows[0].path).read_bytes() + b"another file")
    assert "rows are to be computed, and the weights" in command(*words, copy, expect=4).json["error"]["message"]
    found = command(*words, copy, "--set", "base.weights=elsewhere.pth", expect=0).json["predict"]
    assert (found["computed"], found["reused"]) == (1, 24)
    assert list(found["predictions"][-1]["probabilities"].values()) == pytest.approx(said[then.rows[0].id], rel=1e-5)


def test_an_average_is_one_more_model_that_says_the_mean_of_the_others(copied: Path, tmp_path: Path) -> None:
    config, before = copied, registry.find(copied.parent, "finetune/last").key
    more = ("-c", config, "--set", "finetune.last.seeds=[0, 1]", "--set", "finetune.last.average=true")
    ran = command("run", "finetune", *more, "--json", expect=0)
    mean = tuned(ran.out)
    assert ran.err.count("an epoch: about") == 1
    assert (mean["seed"], mean["epoch"], mean["note"], mean["metrics"]["val"]["n"]) == (None, None, None, 5)
    assert [(one["seed"], one["hit"]) for one in mean["seeds"]] == [(0, True), (1, False)]
    assert mean["seeds"][0]["key"] == before
    out = command("run", "finetune", *more, expect=0).out
    assert "the mean of 2 seeds and 4 views of an image" in out
    assert tuned(command("run", "finetune", *more, "--json", expect=0).out)["hit"]
    key, folder = mean["key"], config.parent
    command("tag", key, "mean", "-c", config, expect=0)
    assert (folder / "models" / "tags" / "mean.json").exists()
    model = registry.find(folder, "mean")
    assert set(model.record["extract"]) == {"pooled", "boundary", "view 1", "view 2", "view 3"}
    assert model.differs == {"seed": "average"}
    recorded = predictions.read_predictions(model)
    said = command("predict", "mean", folder / "images", "-c", config, "--json", expect=0).json["predict"]
    assert (said["computed"], said["reused"]) == (0, 24)
    by_id = {row["id"]: list(row["probabilities"].values()) for row in said["predictions"]}
    for row, p in zip(recorded.rows, recorded.probabilities, strict=True):
        assert by_id[row.id] == pytest.approx(p, rel=1e-6)
    again = command("reproduce", "mean", "-c", config, "--json", expect=0).json["reproduce"]
    assert (again["reproduced"], again["differences"]) == (True, {})
    rows = rows_by_key(config)
    assert sorted(rows.values()) == [24] * 5, "the maps of all images in four views, and the head's rows"
    for seed in mean["seeds"]:
        shutil.rmtree(seed["path"])
    compared = command("compare", "logistic", "mean", "-c", config, "--json", expect=0).json["compare"]
    assert compared["b"]["metrics"]["log_loss"] == pytest.approx(model.metrics["test"]["log_loss"])
    command("predictions", "mean", "-c", config, expect=0)
    command("show", "mean", "-c", config, expect=0)


def test_without_flips_it_is_the_mean_over_seeds_alone(copied: Path) -> None:
    """By rows in the cache, and by maps that are computed each time."""
    words = ["finetune.last.seeds=[0, 1]", "finetune.last.average=true", "finetune.last.augment=null",
             "finetune.last.views=1"]  # fmt: skip
    sets = [word for setting in words for word in ("--set", setting)]
    mean = tuned(command("run", "finetune", "-c", copied, "--json", *sets, expect=0).out)

    def said(path: str) -> np.ndarray:
        with np.load(Path(path) / "predictions.npz") as arrays:
            return np.asarray(arrays["probabilities"])

    expected = np.mean([said(seed["path"]) for seed in mean["seeds"]], axis=0)
    assert said(mean["path"]) == pytest.approx(expected, rel=1e-12)
    shutil.rmtree(mean["path"])
    assert standing(copied, *words)["last"] == ("PARTIAL", "not there: the average")
    full = tuned(command("run", "finetune", "-c", copied, "--json", *sets, "--set", "finetune.last.mode=full").out)
    assert (full["path"], full["hit"]) == (mean["path"], False)
    assert said(full["path"]) == pytest.approx(expected, rel=1e-4)


def test_the_head_of_train_and_val_stands_beside_it_on_test_where_there_is_one(copied: Path) -> None:
    first = tuned(command("run", "finetune", "-c", copied, "--json", expect=0).out)
    pooled = json.loads(command("run", "head", "logistic", "-c", copied, "--json", expect=0).out)["heads"]["logistic"]
    assert first["pooled"]["key"] == pooled["key"] != registry.find(copied.parent, first["key"]).record["head"]
    assert first["pooled"]["test"]["log_loss"] == pytest.approx(pooled["metrics"]["test"]["log_loss"])
    gap = first["metrics"]["test"]["log_loss"] - pooled["metrics"]["test"]["log_loss"]
    assert first["pooled"]["difference"]["log_loss"]["value"] == pytest.approx(gap)
    out = command("run", "finetune", "-c", copied, expect=0).out
    assert [line.split()[0:3] for line in out.splitlines() if line.startswith("head of")] == [
        ["head", "of", "train+val"]
    ]
    assert "val (chosen on)" in out
    words = ("run", "finetune", "-c", copied, "--set", "heads.logistic.choose=val")
    assert "head of train+val" not in command(*words, expect=0).out
    assert tuned(command(*words, "--json", expect=0).out)["pooled"] is None


def test_from_python_it_comes_trained_with_its_curves_and_what_the_frozen_head_does(
    copied: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.rmtree(copied.parent / "models" / "finetune")
    project = frozenbase.open(copied, {"finetune.last.seeds": [0, 1]})
    model = project.finetune("last")
    assert {name: len(curve) for name, curve in model.history.items()} == {"loss": 2, "val_log_loss": 3, "seconds": 2}
    frozen = project.metrics("logistic")["test"]
    assert {n: model.metrics["baseline"]["test"][n] for n in ("n", "accuracy")} == {
        n: frozen[n] for n in ("n", "accuracy")
    }
    assert set(model.metrics["difference"]["test"]["accuracy"]) == {"value", "ci"}
    others = [path.parent.name for path in copied.parent.glob("models/finetune/last/*/record.json")]
    losses = {key: project.model(key).metrics["val"]["log_loss"] for key in others}
    assert (len(losses), min(losses, key=lambda key: losses[key])) == (2, model.key)
    assert project.finetune("last") == project.model(f"finetune/last/{model.key}") == model
    with np.load(model.folder / "predictions.npz") as said:
        assert (said["probabilities"].shape, model.head.classes) == ((24, 2), ("bright", "dark"))
    assert "tensorflow" not in {record.name for record in caplog.records}, "it has no advice for a person"


def test_mode_full_trains_the_same_model_and_keeps_no_maps_nor_does_who_finds_it_there(copied: Path) -> None:
    words = ("run", "finetune", "-c", copied, "--json", "--set", "finetune.last.unfreeze_from=head", "--set",
             "finetune.last.lr=1.0e-4")  # fmt: skip
    before = rows_by_key(copied)
    ran = command(*words, "--set", "finetune.last.mode=full", expect=0)
    full = Path(tuned(ran.out)["path"])
    assert "mode full" in ran.err
    found = tuned(command(*words, expect=0).out)
    assert (found["hit"], found["plan"]) == (True, None)
    assert rows_by_key(copied) == before
    kept = registry.find(copied.parent, f"finetune/last/{full.name}").tail
    (full / "record.json").unlink()
    assert Path(tuned(command(*words, expect=0).out)["path"]) == full
    again = registry.find(copied.parent, f"finetune/last/{full.name}").tail
    assert set(again) == set(kept)
    assert all(np.abs(again[name] - array).max() < 1e-5 for name, array in kept.items())


def test_after_kill_9_it_goes_on_from_the_last_epoch_to_the_same_bits(copied: Path) -> None:
    """`status` says so meanwhile, of one that no run ever ended too."""
    longer = ("finetune.last.epochs=40", "finetune.last.patience=null", "finetune.last.lr=1.0e-5")
    words = ("run", "finetune", "-c", copied, "--json", *(word for one in longer for word in ("--set", one)))
    shutil.rmtree(copied.parent / "models" / "finetune")
    folder = Path(tuned(command(*words, expect=0).out)["path"])
    expected = (folder / "tail.npz").read_bytes(), (folder / "head.npz").read_bytes()
    for path in folder.iterdir():
        path.unlink()
    process = start(*words, FAKE="")
    while not (folder / "checkpoint.npz").exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (folder / "record.json").exists()
    with np.load(folder / "checkpoint.npz") as checkpoint:
        done = len(json.loads(str(checkpoint["history"]))["loss"])
    assert standing(copied, *longer)["last"] == (
        "MISS",
        "its training has not ended: a run goes on from its checkpoint",
    )
    resumed = command(*words, expect=0)
    after = tuned(resumed.out)
    assert (after["hit"], after["epoch"] > 0, after["note"]) == (False, True, None)
    assert f"last, seed 0: resumes after epoch {done} of 40, from its checkpoint\n" in resumed.err
    assert ((folder / "tail.npz").read_bytes(), (folder / "head.npz").read_bytes()) == expected


def test_status_tells_of_a_fine_tuning_that_was_made_before_and_why_it_would_be_made_again(
    copied: Path, tmp_path: Path
) -> None:
    command("run", "-c", copied, "--set", "heads.logistic.C=1", expect=0)
    command("run", "-c", copied, expect=0)
    notes = {path: path.read_bytes() for path in copied.parent.glob("models/*/*/last.json")}
    assert standing(copied) == {"last": ("HIT", "the very same model is there")}
    for override, reason in {
        "finetune.last.lr=0.1": "lr changed: 0.001 -> 0.1",
        "finetune.last.unfreeze_from=block15": "unfreeze_from changed: block16 -> block15",
        "finetune.last.dtype=float16": "dtype changed: float32 -> float16",
        "finetune.last.augment.flip=vertical": "flip changed: both -> vertical",
        "finetune.last.seeds=[1]": "seed changed: 0 -> 1",
        "heads.logistic.C=1": "its head's C changed: 0.01 -> 1.0",
        "heads.logistic.C=7": "its head logistic: C changed: 1.0 -> 7.0",
    }.items():
        assert standing(copied, override) == {"last": ("MISS", reason)}, override
    assert standing(copied, "finetune.last.seeds=[0, 1]")["last"] == ("PARTIAL", "not there: seed 1")
    assert standing(copied, "finetune.last.unfreeze_from=block99")["last"][0] == "BLOCKED"
    assert {path: path.read_bytes() for path in notes} == notes, "a look moves no name"
    watched = tmp_path / "log"
    run("status", "-c", copied, WATCH=str(watched), FAKE="")
    assert not {"tensorflow", "keras", "distributed"} & set(json.loads(watched.read_text().splitlines()[-1]))
    images = copied.parent / "images"
    (images / "bright" / "0000.png").rename(images / "dark" / "was_bright.png")
    assert standing(copied)["last"] == ("MISS", "its head logistic: labels changed: 1 row")
    command("run", "-c", copied, expect=0)
    assert standing(copied)["last"] == ("MISS", "labels changed: 1 row")
    (images / "dark" / "was_bright.png").rename(images / "bright" / "0000.png")
    other = "extract.taps.pooled.pooling=max"
    command("run", "-c", copied, "--set", other, expect=0)
    assert standing(copied, other)["last"] == ("MISS", "pooling changed: avg -> max")


def test_status_says_of_a_fine_tuning_that_was_never_made_how_to_make_it_and_counts_it_not(
    pipeline: Pipeline, project: Path
) -> None:
    config = write_finetuning(project.parent)
    pipeline("run", "-c", config)
    assert standing(config) == {"last": ("not made", "")}
    assert "not made: finetune last (pipeline run finetune last)\n" in pipeline("status", "-c", config).out
    assert pipeline("run", "-n", "-c", config, "--json").json["status"]["not_made"] == []


def test_training_that_gained_nothing_says_so_and_what_to_try(copied: Path) -> None:
    words = ("run", "finetune", "-c", copied, "--set", "finetune.last.optimizer=sgd", "--set", "finetune.last.lr=1e3",
             "--set", "finetune.last.seeds=[0, 1]")  # fmt: skip
    out = command(*words, expect=0).out
    again = tuned(command(*words, "--json", expect=0).out)
    assert (again["hit"], again["epoch"]) == (True, 0)
    for seed in again["seeds"]:
        assert f"last, seed {seed['seed']}: {seed['note']}" in out.splitlines()
        before, rest = seed["note"].split(" (val loss from epoch 0 on: ")
        curve, after = rest.split("); ")
        assert before == (
            "training gained nothing: no epoch was better on val than the frozen head, whose weights were kept"
        )
        assert after == "try a lower lr (it was 1000), or unfreeze fewer blocks"
        values = [float(value) for value in curve.split(", ")]
        assert len(values) > 1
        assert min(values) == values[0] == round(seed["metrics"]["val"]["log_loss"], 3)


def test_auto_takes_no_cache_where_there_are_more_views_than_epochs(pipeline: Pipeline, project: Path) -> None:
    config = write_finetuning(project.parent)
    pipeline("run", "extract", "-c", config)
    spec = ("finetune.last.views=4", "finetune.last.epochs=3")
    plans = {}
    for overrides in (spec[:0], spec):
        today = opened(config, *overrides)
        plans[len(overrides)] = boundary_rows.plan_boundary(today, today.config.finetune["last"], today.manifest)
    assert (plans[0].mode, plans[2].mode) == ("cached", "full")
    assert plans[0].each == plans[2].each == 4 * 192, "one place of 192 channels at 32 pixels"
    train = sum(row.split == "train" for row in opened(config).manifest.rows)
    assert (plans[0].rows, plans[2].rows) == (24 + train, 24 + 3 * train)


def test_status_and_dry_run_say_what_a_fine_tuning_lacks(pipeline: Pipeline, project: Path) -> None:
    config = write_finetuning(project.parent)
    ran = pipeline("run", "finetune", "-n", "-c", config, "--json")
    assert ran.code == 0, ran.out
    found = {(s["stage"], s["name"]): (s["state"], s["missing"]) for s in ran.json["status"]["stages"]}
    assert found == {
        ("extract", "pooled"): ("MISS", 24),
        ("head", "logistic"): ("MISS", 24),
        ("extract", "finetune/last"): ("MISS", 48),
        ("finetune", "last"): ("MISS", 24),
    }
    assert pipeline("run", "head", "logistic", "-c", config).code == 0
    train = sum(row.split == "train" for row in opened(config).manifest.rows)
    ran = pipeline("run", "finetune", "-n", "--hash", "-c", config, "--json")
    found = {(s["stage"], s["name"]): (s["state"], s["missing"], s["reason"]) for s in ran.json["status"]["stages"]}
    assert found["head", "logistic"][0] == "HIT"
    assert found["extract", "finetune/last"][:2] == ("MISS", 24 + train)
    assert found["finetune", "last"] == ("MISS", 24, "there is no fine-tuning of that name yet")
