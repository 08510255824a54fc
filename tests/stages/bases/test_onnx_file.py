"""onnx_file.py: what a file says, and why one needs the user's trust."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from cache.errors import NotAvailable, Unusable
from stages.bases import catalogue, onnx_file
from stages.bases.foreign_file import ImageInput
from tests.support import onnx_models
from tests.support.onnx_models import arrays, conv_net, conv_nodes, numbers, save, token_net

KERNEL = arrays(kernel=numbers(8, 3, 4, 4))


def test_the_input_of_images(tmp_path: Path) -> None:
    assert onnx_file.find_input(conv_net(tmp_path / "a.onnx")) == ImageInput("image", "nchw", None, None, None, "float")
    fixed = conv_net(tmp_path / "b.onnx", (1, 3, 32, 48))
    assert onnx_file.find_input(fixed) == ImageInput("image", "nchw", 1, 32, 48, "float")
    with pytest.raises(Unusable, match="takes images of 32 x 48 pixels; got 32 x 32"):
        onnx_file.find_input(fixed).check_size(fixed, 32, 32)
    last = conv_net(tmp_path / "c.onnx", ("n", 32, 32, 3), TensorProto.FLOAT16)
    assert onnx_file.find_input(last) == ImageInput("image", "nhwc", None, 32, 32, "float16")


def two_inputs(path: Path) -> Path:
    text = helper.make_tensor_value_info("text", TensorProto.INT64, ("n", 77))
    return save(path, conv_nodes(), KERNEL, ["maps"], more=[text])


def truncated(path: Path) -> Path:
    data = conv_net(path).read_bytes()
    path.write_bytes(data[: len(data) // 2])
    return path


def no_model(path: Path) -> Path:
    path.write_bytes(b"GIF89a, as anyone can see")
    return path


def of_no_type(path: Path) -> Path:
    return save(
        path, conv_nodes(), [TensorProto(name="kernel", data_type=0, dims=[8, 3, 4, 4], raw_data=b"1")], ["maps"]
    )


def gather_of_nothing(path: Path) -> Path:
    return save(path, [*conv_nodes(), helper.make_node("Gather", ["maps"], ["read"])], KERNEL, ["read"])


UNFIT: dict[str, tuple[Callable[[Path], Path], str]] = {
    "two inputs": (two_inputs, r"takes 2 inputs \(image, text\); expected one, of RGB images"),
    "four channels": (lambda p: conv_net(p, ("n", 4, "h", "w")), r"takes \? x 4 x \? x \?; expected n x 3 x height"),
    "whole numbers": (lambda p: conv_net(p, dtype=TensorProto.INT64), "takes int64; expected float, float16 or uint8"),
    "truncated": (truncated, "is no whole ONNX file"),
    "no model": (no_model, "is no whole ONNX file"),
    "a tensor of no type": (of_no_type, "is no whole ONNX file"),
    "an operator without its input": (gather_of_nothing, "is no whole ONNX file"),
    "empty": (lambda p: (p.write_bytes(b""), p)[1], "is no whole ONNX file"),
}


@pytest.mark.parametrize("name", UNFIT)
def test_what_takes_no_images_is_refused_in_a_sentence(tmp_path: Path, name: str) -> None:
    make, said = UNFIT[name]
    with pytest.raises(Unusable, match=said):
        onnx_file.find_input(make(tmp_path / "net.onnx"))


def gather_nd(path: Path) -> Path:
    node = helper.make_node("GatherND", ["maps", "where"], ["read"])
    return save(path, [*conv_nodes(), node], [*KERNEL, *arrays(where=np.array([[10**9, 0, 0, 0]]))], ["read"])


def computed_gather(path: Path) -> Path:
    nodes = [
        *conv_nodes(),
        helper.make_node("Cast", ["maps"], ["where"], to=TensorProto.INT64),
        helper.make_node("Gather", ["maps", "where"], ["read"], axis=1),
    ]
    return save(path, nodes, KERNEL, ["read"])


def control_flow(path: Path) -> Path:
    branch = helper.make_graph(
        [helper.make_node("Identity", ["image"], ["same"])], "b", [], [helper.make_empty_tensor_value_info("same")]
    )
    node = helper.make_node("If", ["yes"], ["out"], then_branch=branch, else_branch=branch)
    return save(path, [node], arrays(yes=np.array(True)), ["out"])


def own_operator(path: Path) -> Path:
    node = helper.make_node("Anything", ["maps"], ["out"], domain="com.example")
    return save(path, [*conv_nodes(), node], KERNEL, ["out"], domains=("", "com.example"))


def long_chain(path: Path) -> Path:
    names = ["image", *(f"x{i}" for i in range(30_000))]
    nodes = [helper.make_node("Relu", [a], [b]) for a, b in pairwise(names)]
    return save(path, nodes, [], [names[-1]])


def large_tensor(path: Path) -> Path:
    kernel = TensorProto(name="kernel", data_type=TensorProto.FLOAT, dims=[8, 3, 4, 8_000_000], raw_data=b"1234")
    return save(path, conv_nodes(), [kernel], ["maps"])


HARMFUL = {
    "GatherND": (gather_nd, "the operators GatherND"),
    "Gather": (computed_gather, "Gather by indices that are no constants"),
    "control flow": (control_flow, "the operators If"),
    "own operator": (own_operator, "the operators com.example.Anything"),
    "a long chain": (long_chain, "30,000 operators"),
    "a tensor of 3 GB": (large_tensor, "tensors that are larger than their data"),
}


@pytest.mark.parametrize("name", HARMFUL)
def test_what_does_more_than_compute_needs_trust(tmp_path: Path, name: str) -> None:
    make, said = HARMFUL[name]
    assert said in ", ".join(onnx_file.find_harm(make(tmp_path / "net.onnx")))


def test_sound_files_need_none(tmp_path: Path) -> None:
    assert onnx_file.find_harm(conv_net(tmp_path / "a.onnx")) == []
    assert onnx_file.find_harm(token_net(tmp_path / "b.onnx")) == []
    assert onnx_file.find_harm(onnx_models.with_external_data(token_net(tmp_path / "c.onnx"), "c.data")) == []
    assert onnx_file.find_harm(token_net(tmp_path / "e.onnx", computed=True)) == [
        "Gather by indices that are no constants"
    ]
    assert onnx_file.find_harm(onnx_models.with_external_data(conv_net(tmp_path / "d.onnx"), "d.data")) == []


def test_a_file_is_parsed_once_until_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, load, parsed = onnx_models.with_external_data(conv_net(tmp_path / "net.onnx")), onnx.load, []

    def count(path: Path, **options: bool) -> onnx.ModelProto:
        parsed.append(path)
        return load(path, **options)

    monkeypatch.setattr(onnx, "load", count)
    for _ in range(2):
        assert onnx_file.find_input(model).layout == "nchw"
        assert onnx_file.find_harm(model) == []
        assert onnx_file.data_files(model) == [tmp_path / "net.data"]
        assert not onnx_file.is_rough(model)
        assert (onnx_file.count_outputs(model), onnx_file.opset(model)) == (1, 17)
    assert parsed == [model]
    conv_net(model, dtype=TensorProto.FLOAT16)
    assert onnx_file.is_rough(model)
    assert len(parsed) == 2


def test_external_data_lies_beside_the_file(tmp_path: Path) -> None:
    model = onnx_models.with_external_data(conv_net(tmp_path / "m" / "net.onnx"))
    assert onnx_file.data_files(model) == [tmp_path / "m" / "net.data"]
    (tmp_path / "m" / "net.data").write_bytes(b"short")
    assert onnx_file.find_harm(model) == ["tensors that are larger than their data"]
    (tmp_path / "m" / "net.data").unlink()
    with pytest.raises(NotAvailable, match=r"keeps data in net\.data, which is not beside it"):
        onnx_file.data_files(model)


@pytest.mark.parametrize("location", ["../secret", "/etc/passwd", "a/../../secret", "", "link"])
def test_data_elsewhere_is_refused(tmp_path: Path, location: str) -> None:
    (tmp_path / "secret").write_bytes(b"x" * 10_000)
    model = onnx_models.with_external_data(conv_net(tmp_path / "m" / "net.onnx"))
    (tmp_path / "m" / "link").symlink_to(tmp_path / "secret")
    with pytest.raises(Unusable, match="outside of its folder"):
        onnx_file.data_files(onnx_models.pointing_at(model, location))


def test_the_hub_s_cache_of_links_is_a_folder_too(tmp_path: Path) -> None:
    model = onnx_models.with_external_data(conv_net(tmp_path / "made" / "net.onnx"))
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "c0ffee"
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    for number, name in enumerate(("net.onnx", "net.data")):
        shutil.move(model.parent / name, blobs / f"{number}")
        (snapshot / name).symlink_to(Path("../../blobs") / f"{number}")
    assert onnx_file.data_files(snapshot / "net.onnx") == [snapshot / "net.data"]


def test_tensors_and_their_shapes(tmp_path: Path) -> None:
    base = catalogue.choose_base("net.onnx")
    layers = onnx_file.list_layers(base, token_net(tmp_path / "net.onnx"), 32)
    assert [(layer.name, layer.kind, layer.shape) for layer in layers[:3]] == [
        ("tokens", "LayerNormalization", (17, 12)),
        ("pooled", "Gather", (12,)),
        ("patches", "Conv", (12, 4, 4)),
    ]
    assert onnx_file.count_outputs(tmp_path / "net.onnx") == 2


def test_an_index_beyond_its_tensor_is_refused_or_told_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    node = helper.make_node("Gather", ["maps", "where"], ["read"], axis=1)
    path = save(tmp_path / "net.onnx", [*conv_nodes(), node], [*KERNEL, *arrays(where=np.array([8]))], ["read"])
    assert onnx_file.find_harm(path) == []  # its shapes are not known yet
    for file in (path, onnx_models.with_external_data(path)):
        with pytest.raises(Unusable, match="index beyond its tensor"):
            onnx_file.list_layers(catalogue.choose_base("net.onnx"), file, 32)
    assert onnx_file.list_layers(catalogue.choose_base("net.onnx", trust=True), path, 32)[0].name == "read"
    assert "has an index beyond its tensor (Gather ); it is looked at since you trust it" in caplog.text


def test_what_crashes_the_library_crashes_a_process_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_file, "limits", lambda file: onnx_file.Limits(200_000_000, 60))
    with pytest.raises(Unusable, match=r"looking through .* (needed more|failed|crashed)"):
        onnx_file.list_layers(catalogue.choose_base("net.onnx"), conv_net(tmp_path / "net.onnx"), 32)


def test_fewer_digits_are_noticed(tmp_path: Path) -> None:
    assert not onnx_file.is_rough(conv_net(tmp_path / "a.onnx"))
    assert onnx_file.is_rough(conv_net(tmp_path / "b.onnx", dtype=TensorProto.FLOAT16))
    quantised = [helper.make_node("DynamicQuantizeLinear", ["image"], ["q", "s", "z"])]
    assert onnx_file.is_rough(save(tmp_path / "c.onnx", quantised, [], ["q"]))
    assert onnx.load(tmp_path / "c.onnx").graph.node
