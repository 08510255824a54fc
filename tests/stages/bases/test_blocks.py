"""blocks.py: the facts of every block, held against the networks themselves."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from cache.errors import Unusable
from stages.bases import blocks, catalogue
from tests.conftest import Pipeline
from tests.support import GOLDEN


def test_the_command_lists_bases_and_their_blocks(pipeline: Pipeline) -> None:
    assert [base["name"] for base in pipeline("bases", "--json").json["bases"]] == list(catalogue.BASES)
    found = pipeline("bases", "efficientnet_lite0", "--json").json["bases"]
    assert found[-2] == {"block": "block16", "boundary": "block15_add", "shape": [7, 7, 192], "kilobytes": 37.6}
    shown = pipeline("bases", "efficientnet_lite0").out
    assert "block15_add" in shown
    assert "published as sha256:579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db" in shown
    assert "no digest of that file is published" in pipeline("bases", "mobilenet").out
    assert (pipeline("bases", "vgg_16").code, "did you mean vgg16?" in pipeline("bases", "vgg_16").err) == (2, True)


def test_fetching_says_where_the_weights_are_or_why_they_are_not(
    pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through a proxy that refuses; EfficientNet-Lite0's come with the installation."""
    assert "are here: " in pipeline("bases", "fetch", "efficientnet_lite0").out
    assert pipeline("bases", "fetch", "efficientnet_lite0", "--json").json["bases"][0]["at_hand"]
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    ran = pipeline("bases", "fetch", "mobilenet_v3_small")
    assert (ran.code, "cannot be downloaded" in ran.err) == (4, True)
    assert [path.name for path in tmp_path.rglob("*.h5")] == []
    assert pipeline("bases", "fetch").code == pipeline("bases", "fetch", "vgg99").code == 2


def test_a_block_that_is_none_is_answered_with_the_nearest() -> None:
    with pytest.raises(
        Unusable, match="has no block 'blok15'; it has block1, block2, block3 to block15, block16, head"
    ) as e:
        blocks.get_block(catalogue.get_base("efficientnet_lite0"), "blok15")
    assert "did you mean block15?" in e.value.hint


def test_the_command_lists_layers(pipeline: Pipeline, tmp_path: Path) -> None:
    found = pipeline("bases", "efficientnet_lite0", "--layers", "--json").json["bases"]
    assert found[0] == {"name": "stem_conv", "kind": "Conv2D", "shape": [112, 112, 32]}
    assert found[-1] == {"name": "head_activation", "kind": "ReLU", "shape": [7, 7, 1280]}
    shown = pipeline("bases", GOLDEN / "keras2_tutorial.keras", "--layers", "--trust").out
    assert re.search(r"base/out_relu +ReLU +30 x 30 x 4", shown)
    for words, message in (
        ((GOLDEN / "keras2_tutorial.keras",), "can run code that it contains"),
        ((tmp_path / "none.keras",), "is not there"),
        ((), "expected the name of a base"),
    ):
        ran = pipeline("bases", *words, "--layers")
        assert (ran.code, message in ran.err) == (2, True)
