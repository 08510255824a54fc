"""allowed_ops.py: a stored model with any operation that no base needs is not run, nor stored.

That those of all bases are allowed, test_catalogue.py says.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cache import compiled_models, records
from cache.errors import PipelineError
from stages.bases.recipe import FrozenBase, Tap
from stages.engines import allowed_ops, openvino_engine, select, tensorflow_engine
from tests.support.networks import recipe


@pytest.fixture(scope="module")
def stored(files: Any, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Any, dict[str, bytes]]]:
    """(components, files) of the base in an engine, compiled once."""
    base = FrozenBase(recipe("efficientnet_lite0"), {"t": Tap()}, files("efficientnet_lite0"))
    found: dict[str, tuple[Any, dict[str, bytes]]] = {}

    def compiled(engine: str) -> tuple[Any, dict[str, bytes]]:
        if engine not in found:
            select.open_engine(engine, base)
            (folder,) = compiled_models.default_folder().iterdir()
            components = records.read(folder / records.RECORD)["components"]
            found[engine] = components, compiled_models.load(components) or {}
        components, contents = found[engine]
        return components, dict(contents)

    return compiled


def write_file(path: str) -> None:
    import tensorflow as tf

    tf.io.write_file(path, "x")


def read_file(path: str) -> None:
    import tensorflow as tf

    tf.io.decode_raw(tf.io.read_file(path), tf.uint8)


def list_files(path: str) -> None:
    import tensorflow as tf

    tf.io.matching_files(path)


def import_table(path: str) -> None:
    import tensorflow as tf

    table = tf.raw_ops.HashTableV2(key_dtype=tf.string, value_dtype=tf.int64)
    tf.raw_ops.InitializeTableFromTextFileV2(table_handle=table, filename=path, key_index=-2, value_index=-1)


@pytest.mark.parametrize("inside", ["plain", "a function"])
@pytest.mark.parametrize(
    ("call", "name"),
    [
        (write_file, "WriteFile"),
        (read_file, "DecodeRaw, .*ReadFile"),
        (list_files, "MatchingFiles"),
        (import_table, "HashTableV2, InitializeTableFromTextFileV2"),
    ],
)
def test_a_graph_that_does_more_than_compute_is_not_run(
    stored: Any, files: Any, tmp_path: Path, call: Callable[[str], None], name: str, inside: str
) -> None:
    import tensorflow as tf

    components, contents = stored("tensorflow")
    graph = tf.compat.v1.GraphDef.FromString(contents[tensorflow_engine.GRAPH])
    with tf.Graph().as_default() as more:
        call(str(tmp_path / "file")) if inside == "plain" else tf.function(call)(str(tmp_path / "file"))
    graph.MergeFrom(more.as_graph_def())
    compiled_models.store(components, {**contents, tensorflow_engine.GRAPH: graph.SerializeToString()})
    base = FrozenBase(recipe("efficientnet_lite0"), {"t": Tap()}, files("efficientnet_lite0"))
    with pytest.raises(PipelineError, match=rf"has .*{name}.*; expected only arithmetic"):
        select.open_engine("tensorflow", base)
    assert not (tmp_path / "file").exists()


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        (b'type="ReLU" version="opset1"', b'type="ReLU" version="extension"', "ReLU of extension"),
        (b'type="Clamp" version="opset1"', b'type="Loop" version="opset5"', "Loop of opset5"),
        (b'offset="0" size="', b'offset="0" size="99999999', "data from 0 on"),
        (b'offset="0" size="', b'offset="-9" size="', "data from -9 on"),
        (b'offset="0" size="', b'offset="x" size="', "no XML"),
        (b"</net>", b"", "no XML"),
        (b"<net ", b"<!DOCTYPE net SYSTEM 'file:///etc/passwd'><net ", "a document type"),
    ],
)
def test_a_converted_model_that_is_another_is_not_run(
    stored: Any, files: Any, old: bytes, new: bytes, found: str
) -> None:
    components, contents = stored("openvino")
    xml = contents[openvino_engine.GRAPH]
    xml = xml if old in xml else xml.replace(b'type="Clamp" version="opset1"', b'type="ReLU" version="opset1"')
    assert old in xml
    compiled_models.store(components, {**contents, openvino_engine.GRAPH: xml.replace(old, new, 1)})
    base = FrozenBase(recipe("efficientnet_lite0"), {"t": Tap()}, files("efficientnet_lite0"))
    with pytest.raises(PipelineError, match=f"has .*{found}"):
        select.open_engine("openvino", base)


def test_a_base_that_needs_more_runs_but_is_not_stored(files: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allowed_ops, "TENSORFLOW", allowed_ops.TENSORFLOW - {"Relu6"})
    base = FrozenBase(recipe("efficientnet_lite0"), {"t": Tap()}, files("efficientnet_lite0"))
    select.open_engine("tensorflow", base)
    assert not compiled_models.default_folder().exists()
