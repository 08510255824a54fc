"""An ONNX file as base, through every command: in OpenVINO and ONNX Runtime, on real photographs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import pipeline as frozenbase
from cache.errors import Unusable
from pipeline.config import yaml_file
from stages.engines import proof
from tests.conftest import command, counts, opened
from tests.support import onnx_models, pictures

CONFIG = """\
data: {split: {val: 0.3, test: 0.2}}
base: m/net.onnx
extract: {taps: {tokens: {pooling: cls+mean}}}
heads: {logistic: {tap: tokens}}
"""
PUBLISHED = {
    "size": {"shortest_edge": 36}, "resample": 3, "do_center_crop": True, "crop_size": 32, "rescale_factor": 1 / 255,
    "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5],
}  # fmt: skip


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """A project on a network of tokens, with what is published beside it; returns the path of its pipeline.yaml."""
    onnx_models.token_net(tmp_path / "m" / "net.onnx")
    (tmp_path / "m" / "preprocessor_config.json").write_text(json.dumps(PUBLISHED))
    for number, pixels in enumerate(pictures.crops(24, 64)):
        path = tmp_path / "images" / ("cat", "cup", "person")[number % 3] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    (tmp_path / "pipeline.yaml").write_text(CONFIG)
    return tmp_path / "pipeline.yaml"


def test_what_is_published_is_taken_and_can_be_overridden(foreign: Path) -> None:
    found = yaml_file.load(foreign)
    pixels = found.pixels("tokens")
    assert (pixels.height, pixels.width, pixels.fit, pixels.resize, pixels.resize_to) == (32, 32, "crop", "bicubic", 36)
    assert found.base.preprocess is not None
    assert found.base.preprocess.mean == (0.5, 0.5, 0.5)
    other = yaml_file.load(foreign, ("base.preprocess=imagenet", "extract.size=[64, 32]", "extract.resize=bilinear"))
    pixels = other.pixels("tokens")
    assert (pixels.height, pixels.width, pixels.fit, pixels.resize, pixels.resize_to) == (
        64,
        32,
        "squash",
        "bilinear",
        None,
    )
    assert other.base.preprocess is not None
    assert other.base.preprocess.std == (0.229, 0.224, 0.225)
    (foreign.parent / "m" / "preprocessor_config.json").unlink()
    with pytest.raises(Unusable, match=r"base\.name: .*gone\.onnx is not there"):
        yaml_file.load(foreign, ("base=gone.onnx",))
    with pytest.raises(Unusable, match=r"extract\.resize_to: with fit: crop, and at least 32"):
        yaml_file.load(foreign, ("base.preprocess=none", "extract.resize_to=30", "extract.size=32"))
    with pytest.raises(Unusable, match=r"base: preprocess: nothing beside m/net\.onnx says what its input is"):
        yaml_file.load(foreign)
    with pytest.raises(
        Unusable, match=r"base\.preprocess: expected numbers, or none or unit or imagenet or clip, got 'caffe'"
    ):
        yaml_file.load(foreign, ("base.preprocess=caffe",))


def test_every_command_knows_it(foreign: Path) -> None:
    where = ("-c", foreign)
    ran = command("run", *where, "--json", expect=0)
    assert counts(ran) == (24, 0)
    assert ran.json["extract"]["engine"] == "openvino"
    assert counts(command("run", *where, "--json")) == (0, 24)
    assert "HIT" in command("status", *where, expect=0).out
    command("tag", "head/logistic", "v1", *where, expect=0)
    said = command("predict", "v1", foreign.parent / "images", *where, "--json", expect=0).json
    assert len(said["predict"]["predictions"]) == 24
    command("reproduce", "v1", "--recompute", *where, expect=0)
    command("crossval", "logistic", *where, expect=0)
    command("cache", "verify", *where, expect=0)
    assert "onnx 32x32 crop, output cls+mean" in " ".join(command("cache", "ls", *where, expect=0).out.split())
    out = foreign.parent / "out"
    command("cache", "export", out, *where, expect=0)
    there = command("run", "head", "logistic", "-c", out / "pipeline.yaml", "--json", expect=0)
    assert there.json["heads"]["logistic"]["key"] == ran.json["heads"]["logistic"]["key"]


def test_a_known_picture_s_row_is_kept_and_later_engines_are_compared_with_it(
    foreign: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command("run", "extract", "-c", foreign, expect=0)
    store = opened(foreign).store("tokens")
    kept = store.read([proof.golden_id()])
    assert kept.shape == (1, 24)
    for path in sorted((foreign.parent / "images").rglob("*.png")):
        path.unlink()  # no image has a row and a file
    for number, pixels in enumerate(pictures.crops(4, 40)):
        Image.fromarray(pixels).save(foreign.parent / "images" / "cat" / f"new-{number}.png")
    again = command("run", "extract", "-c", foreign, "--set", "extract.engine=onnxruntime", "--json", expect=0)
    assert again.json["extract"]["computed"] == 4
    records = store.shard_records()
    assert {record["engine"] for record in records} == {"openvino", "onnxruntime"}
    assert not any(record.get("unchecked") for record in records)
    np.testing.assert_array_equal(opened(foreign).store("tokens").read([proof.golden_id()]), kept)


def test_another_file_is_another_key_and_its_data_count(foreign: Path) -> None:
    first = opened(foreign).keys["tokens"]
    onnx_models.token_net(foreign.parent / "m" / "net.onnx", prefix=5)
    second = opened(foreign).keys["tokens"]
    onnx_models.with_external_data(foreign.parent / "m" / "net.onnx")
    third = opened(foreign).keys["tokens"]
    data = foreign.parent / "m" / "net.data"
    data.write_bytes(data.read_bytes()[::-1])
    assert len({first, second, third, opened(foreign).keys["tokens"]}) == 4
    again = opened(foreign)
    assert again.keys["tokens"] == opened(foreign).keys["tokens"]


def test_what_needs_trust_is_a_sentence_before_anything_runs(foreign: Path) -> None:
    onnx_models.token_net(foreign.parent / "m" / "net.onnx", computed=True)
    refused = command("run", "-c", foreign, expect=2)
    assert "base.trust: the model file m/net.onnx has Gather by indices that are no constants" in " ".join(
        refused.err.split()
    )
    told = command("bases", foreign.parent / "m" / "net.onnx", expect=0)
    assert "it is run only if you trust its author" in told.out
    command("bases", "trust", foreign.parent / "m" / "net.onnx", expect=0)
    told = " ".join(command("run", "-c", foreign, expect=0).err.split())
    assert told.count("since you trust it") == 1
    assert "net.onnx has Gather by indices that are no constants; it is run since you trust it" in told
    command("bases", "trust", foreign.parent / "m" / "net.onnx", "--forget", expect=0)


def test_a_file_is_described(foreign: Path) -> None:
    file = foreign.parent / "m" / "net.onnx"
    told = command("bases", file, expect=0).out
    assert "takes float n x 3 x height x width (image)" in told
    assert "size: 32" in told
    assert "pooling: cls+mean" in told
    said = command("bases", file, "--json", expect=0).json
    assert said["bases"]["layers"][0] == {"name": "tokens", "kind": "LayerNormalization", "shape": [17, 12]}
    absent = command("bases", foreign.parent / "other.onnx", expect=2)
    assert "is not there" in absent.err


def test_the_features_in_python(foreign: Path) -> None:
    found = frozenbase.open(foreign, overrides=("extract.engine=onnxruntime",)).features(tap="tokens")
    assert found.X.shape == (24, 24)
    assert np.isfinite(found.X).all()


def test_tensorflow_is_never_imported(foreign: Path) -> None:
    """Nor onnx once its file has been looked through."""
    program = (
        "import sys\nfrom pipeline.cli.main import main\n"
        "try:\n    main(sys.argv[1:])\nexcept SystemExit as end:\n    assert not end.code\n"
        "print(sorted({'tensorflow', 'keras', 'onnx'} & set(sys.modules)))\n"
    )
    for expected in ("['onnx']", "[]"):
        words = [sys.executable, "-c", program, "run", "-c", str(foreign)]
        done = subprocess.run(words, capture_output=True, text=True, check=True)
        assert done.stdout.splitlines()[-1] == expected


def test_status_is_printed_once(foreign: Path) -> None:
    assert command("status", "-c", foreign, expect=0).out.count("extract  tokens") == 1
    assert command("run", "-n", "-c", foreign, expect=0).out.count("extract  tokens") == 1


def test_what_a_blocked_stage_needs_is_said(foreign: Path) -> None:
    onnx_models.with_external_data(onnx_models.token_net(foreign.parent / "m" / "net.onnx"))
    command("run", "-c", foreign, expect=0)
    command("tag", "logistic", "v1", "-c", foreign, expect=0)
    (foreign.parent / "m" / "net.data").unlink()
    said = "net.onnx keeps data in net.data, which is not beside it"
    for words in (["status"], ["run", "-n"]):
        told = command(*words, "-c", foreign, expect=0).out
        assert said in " ".join(told.split())
        assert "extract tokens: copy that file there too" in told
    assert command("status", "-q", "-c", foreign).code == 5
    new = foreign.parent / "new.png"
    Image.fromarray(pictures.crops(25, 40)[24]).save(new)
    for words in (["run"], ["predict", "v1", new], ["export", "v1", "-o", foreign.parent / "x.onnx"]):
        refused = command(*words, "-c", foreign, expect=4).err
        assert said in " ".join(refused.split())
        assert "copy that file there too" in refused


def test_why_a_row_is_missing_names_the_file_beside_the_base_that_says_so(foreign: Path) -> None:
    command("run", "extract", "-c", foreign, expect=0)
    changed = {**PUBLISHED, "image_mean": [0.48145466, 0.5, 0.5]}
    (foreign.parent / "m" / "preprocessor_config.json").write_text(json.dumps(changed))
    told = command("status", "-c", foreign, expect=0).out
    assert "mean changed: [0.5, 0.5, 0.5] -> [0.4815, 0.5, 0.5] (preprocessor_config.json)" in told
    told = command("status", "-c", foreign, "--set", "base.preprocess=unit", expect=0).out
    assert "(preprocessor_config.json)" not in told


def test_a_tap_s_own_base_is_named_by_its_field(foreign: Path) -> None:
    where = ("-c", foreign, "--set")
    told = command("status", *where, "extract.taps.other={base: {name: vgg16, weights: no.h5}}", expect=0).out
    assert "extract.taps.other.base.weights:" in told
    refused = command("run", *where, "extract.taps.other={base: {name: q.onnx, preprocess: imagenet}}", expect=4).err
    assert "extract.taps.other.base.name: " in refused
    assert "q.onnx is not there, and the cache does not know it" in " ".join(refused.split())


def test_trust_that_a_file_does_not_need_is_told(foreign: Path) -> None:
    file = foreign.parent / "m" / "net.onnx"
    assert "It needs no trust: it only computes" in command("bases", "trust", file, expect=0).out
    onnx_models.token_net(file, computed=True)
    assert (
        "It has Gather by indices that are no constants. Commands may" in command("bases", "trust", file, expect=0).out
    )


def test_models_on_other_bases_are_told_apart_in_few_words(foreign: Path) -> None:
    command("run", "-c", foreign, expect=0)
    onnx_models.token_net(foreign.parent / "n" / ("long" * 15) / "other.onnx", prefix=5)
    other = f"base={{name: n/{'long' * 15}/other.onnx, preprocess: clip}}"
    command("run", "-c", foreign, "--set", other, "--set", "extract.size=32", expect=0)
    told = command("models", "-c", foreign, expect=0).out
    assert "base.name=n/longlong" in told
    assert "long/other.onnx" not in told
    assert "preprocess" not in told


def test_it_is_not_fine_tuned(foreign: Path) -> None:
    foreign.write_text(CONFIG + "finetune: {last: {head: logistic, unfreeze_from: tokens}}\n")
    refused = command("run", "finetune", "-c", foreign, expect=2).err
    assert "so finetune.last, on m/net.onnx, cannot be fine-tuned" in " ".join(refused.split())


def test_what_is_published_may_not_fit_the_file(foreign: Path) -> None:
    file = onnx_models.conv_net(foreign.parent / "m" / "net.onnx", ("n", 3, 64, 64))
    (file.parent / "preprocessor_config.json").write_text(json.dumps({**PUBLISHED, "resample": 1}))
    told = " ".join(command("bases", file, expect=0).out.split())
    assert "but the file takes 64 x 64 pixels: set extract.size" in told
    assert "it names a filter that is not offered here: set extract.resize" in told
    assert "in pipeline.yaml, for example: base:" in told
