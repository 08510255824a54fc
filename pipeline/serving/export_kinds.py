"""Owns the kinds of files that a model is exported as: what each needs, and which models it can hold. Not their test
(export_check.py), nor their publication (export_model.py).
"""

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from cache.errors import Unusable
from pipeline.config.head_schema import HEAD_KINDS
from pipeline.results.model import Model
from stages.bases import catalogue
from stages.bases.foreign_file import open_reader
from stages.bases.formats import BaseFormat
from stages.bases.recipe import FrozenBase
from stages.export import onnx_join
from stages.export.deployable import Deployable
from stages.heads import average
from stages.runtime.silent_imports import without_banners

Kind = Literal["keras", "onnx", "xml"]
NEEDS: Mapping[Kind, tuple[str, ...]] = {
    "keras": (),
    "onnx": ("onnx", "tf2onnx", "onnxruntime"),
    "xml": ("openvino", "onnx", "tf2onnx"),
}
"""The optional packages that a kind of file needs."""

_EXTRAS: Mapping[Kind, str] = {"onnx": "onnx", "xml": "fast,onnx"}


def check_path(kind: Kind | None, path: Path, force: bool) -> Kind:
    """The kind of file, by the suffix of `path` where it is None. Raises Unusable where it cannot be written there."""
    kind = kind or next((kind for kind in NEEDS if path.suffix == f".{kind}"), None)
    if kind is None:
        *first, last = (f".{kind}" for kind in NEEDS)
        what = f"--output {path}: expected a name that ends in {', '.join(first)} or {last}"
        raise Unusable(what, "for example: model.keras")
    if path.suffix != f".{kind}" or path.is_dir():
        what = f"--output {path}: expected the name of a file that ends in .{kind}"
        raise Unusable(what, f"for example: model.{kind}")
    there = [place for place in (path, description_path(path), data_path(kind, path)) if place.exists()]
    if there and not force:
        raise Unusable(f"{there[0]} is there already", "name another file, or replace it: --force")
    lacking = [package for package in NEEDS[kind] if importlib.util.find_spec(package) is None]
    if lacking:
        advice = f"pip install 'frozenbase[{_EXTRAS[kind]}]', or use --format keras"
        raise Unusable(f"writing {kind} needs {', '.join(lacking)}", advice)
    return kind


def description_path(path: Path) -> Path:
    """The file that describes the file `path`: PATH.json."""
    return path.with_name(f"{path.name}.json")


def data_path(kind: Kind, path: Path) -> Path:
    """The file beside `path` that has its weights, if it does not hold them itself."""
    return path.with_suffix(".bin") if kind == "xml" else onnx_join.data_path(path)


def check_model(model: Model, deployable: Deployable, kind: Kind) -> None:
    """Raises Unusable where no file of that kind can hold the model."""
    own = deployable.head.kind
    if own != average.KIND and not HEAD_KINDS[own].exportable:
        kinds = ", ".join(name for name, kind in HEAD_KINDS.items() if kind.exportable)
        raise Unusable(
            f"{model} is a {own} head, which has no layers to write",
            f"export a head of another kind: {kinds}",
        )
    if kind == "xml" and (deployable.tail or own == average.KIND):
        raise Unusable(
            f"{model} has blocks of the base that were trained, of which no .xml file can be made",
            "name it model.onnx, which OpenVINO reads too, or model.keras",
        )
    for base in deployable.bases:
        _check_base(model, base, kind)
    if kind == "onnx":
        onnx_join.check_files([base.weights for base in deployable.bases if _format(base).onnx])


def _check_base(model: Model, base: FrozenBase, kind: Kind) -> None:
    form = _format(base)
    if not (form.keras or kind == "xml" or (form.onnx and kind == "onnx")):
        only, name = (".onnx or .xml", "model.onnx") if form.onnx else (".xml (OpenVINO)", "model.xml")
        raise Unusable(
            f"{model} is on {base.weights}, of which no .{kind} file can be made, only {only}", f"name it {name}"
        )
    if base.recipe.numerics != "f32":
        raise Unusable(
            f"{model} takes {base.recipe.numerics} rows, which other programs round differently",
            "export a model of rows with extract.numerics: f32",
        )
    batch = None if form.reader is None else open_reader(form).find_input(base.weights).batch
    if batch not in (None, 1):
        raise Unusable(
            f"{base.weights} takes {batch} images at once; an exported model takes one, or any number",
            "export the base anew with a free batch",
        )


def write(deployable: Deployable, kind: Kind, path: Path) -> int | None:
    """Write the file, and that of its data if it has one; how many pictures it takes at once, None for any number.

    Raises Unusable where a part does not fit.
    """
    with without_banners():
        from stages.export import keras_network, onnx_network, openvino_network

    if kind == "xml":
        return openvino_network.save_network(deployable, path)
    if all(_format(base).keras for base in deployable.bases):
        keras_network.save_network(keras_network.build_network(deployable), kind, path)
        return None
    return onnx_network.save_network(deployable, path)


def _format(base: FrozenBase) -> BaseFormat:
    return catalogue.base_of(base.recipe.base).format
