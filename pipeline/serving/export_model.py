"""Owns a model as one file for other programs, .keras or ONNX: writing it, and what is to be known of it beside it.

Not the network (keras_network.py), nor how the file is tried before it counts as written (export_check.py).
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from cache import atomic_files, records
from cache.errors import Unusable
from pipeline.config.head_schema import HEAD_KINDS
from pipeline.project.project import Options, Progress, Project
from pipeline.results import registry
from pipeline.results.model import Model
from pipeline.serving import deployables, export_check, restored_project
from pipeline.serving.export_check import Sample
from stages.bases import catalogue
from stages.export.deployable import Deployable
from stages.metrics.calibration import apply_temperature
from stages.runtime import hardware
from stages.runtime.silent_imports import without_banners

SCHEMA = 1
"""Of PATH.json."""

Kind = Literal["keras", "onnx"]
NEEDS: Mapping[Kind, tuple[str, ...]] = {"keras": (), "onnx": ("onnx", "tf2onnx", "onnxruntime")}
"""The packages that a kind of file needs, beside those that are always there."""

_PICTURES = (
    "whole pictures of any height and width, the same in a batch, decoded to 8-bit RGB: EXIF orientation applied, "
    "alpha composited over white, 16 bits scaled to 8, grayscale repeated. Resizing and scaling are inside"
)
_PROBABILITIES = "for each class, in the order of `classes`, its probability after the temperature; they sum to 1"


@dataclass(frozen=True)
class Exported:
    """A file that was written, and what stands in the one beside it."""

    file: Path
    about: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        return {"file": str(self.file), **{name: part for name, part in self.about.items() if name != "file"}}


def export_model(
    config: Path, options: Options, progress: Progress, text: str, kind: Kind, path: Path, force: bool
) -> Exported:
    """Write the model that `text` names to `path`, and what is to be known of it to `path`.json.

    Raises Unusable for what cannot be written so, NotAvailable where weights or images are not at hand, PipelineError
    where the file would not say what the model says. What was there before is then left as it was.
    """
    restored_project.check_places(options.overrides)
    _check_path(kind, path, force)
    today = Project(config, options, progress)
    model = registry.find(today.folder, text)
    servable = deployables.deployable(today, model)
    _check_model(model, servable)
    return write(model, servable, export_check.choose_samples(today, model, servable), kind, path, progress)


def write(
    model: Model, servable: Deployable, tried_on: Sequence[Sample], kind: Kind, path: Path, progress: Progress
) -> Exported:
    """Write a draft, try it on those images, and publish it, whole, with its JSON; raises what `export` does."""
    with without_banners():
        from stages.export import keras_network as room

    with atomic_files.temporary_folder() as folder, open(folder / "log", "w+b") as log:
        draft = folder / f"model.{kind}"
        with progress(f"writing {kind}", None):
            room.save_network(room.build_network(servable), kind, draft)
        with progress("trying it in a fresh process", len(tried_on)) as advance:
            check = export_check.check_file(draft, servable, tried_on, log, advance)
        data = draft.read_bytes()
    written = {"file": path.name, "format": kind, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    about = {**written, **_about(model, servable, check, kind)}
    described = {path.name: data, description_path(path).name: records.dump(about)}
    atomic_files.publish_all(path.absolute().parent, described)
    return Exported(path, about)


def description_path(path: Path) -> Path:
    """The file that tells of the file `path`: PATH.json."""
    return path.with_name(f"{path.name}.json")


def _check_path(kind: Kind, path: Path, force: bool) -> None:
    if path.suffix != f".{kind}" or path.is_dir():
        what = f"--output {path}: expected the name of a file that ends in .{kind}"
        raise Unusable(what, f"for example: model.{kind}")
    there = [place for place in (path, description_path(path)) if place.exists()]
    if there and not force:
        raise Unusable(f"{there[0]} is there already", "name another file, or replace it: --force")
    lacking = [package for package in NEEDS[kind] if importlib.util.find_spec(package) is None]
    if lacking:
        advice = f"pip install 'frozenbase[{kind}]', or use --format keras"
        raise Unusable(f"writing {kind} needs {', '.join(lacking)}", advice)


def _check_model(model: Model, servable: Deployable) -> None:
    if not HEAD_KINDS[servable.head.kind].exportable:
        kinds = ", ".join(name for name, kind in HEAD_KINDS.items() if kind.exportable)
        raise Unusable(
            f"{model} is a {servable.head.kind} head, which has no layers to write",
            f"export a head of another kind: {kinds}",
        )
    if servable.recipe.numerics != "f32":
        raise Unusable(
            f"{model} stands on {servable.recipe.numerics} rows, which other programs would round otherwise",
            "export a model on rows of extract.numerics: f32",
        )


def _about(model: Model, servable: Deployable, check: Mapping[str, Any], kind: Kind) -> dict[str, Any]:
    """What PATH.json says, but for the file itself."""
    classes, pixels = servable.head.classes, servable.recipe.pixels
    limit = model.calibration.threshold
    if limit is not None:  # it is of probabilities before any temperature, and the file has one inside
        limit = float(apply_temperature(np.array([[1 - limit, limit]]), servable.temperature)[0, 1])
    licence = catalogue.base_of(servable.recipe.base).licence
    return {
        "schema": SCHEMA,
        "model": {"name": model.name, "key": model.key, "kind": servable.head.kind},
        "extract_keys": [servable.recipe.key(tap) for tap in servable.taps],
        "classes": list(classes),
        "positive_class": classes[1] if len(classes) == 2 else None,
        "threshold": limit,
        "temperature": servable.temperature,
        "input": {
            "name": check["input"],
            "dtype": "uint8",
            "shape": ["n", "height", "width", 3],
            "words": _PICTURES,
            "resized_inside": {name: pixels.components()[name] for name in ("size", "fit", "resize")},
        },
        "output": {
            "name": check["output"],
            "dtype": "float32",
            "shape": ["n", len(classes)],
            "words": _PROBABILITIES,
        },
        "licences": {
            "weights": licence if model.record["config"]["base"]["weights"] == "imagenet" else "not known",
            "data": "not known",
        },
        "check": {name: value for name, value in check.items() if name not in ("input", "output")},
        "versions": hardware.versions(["frozenbase", "tensorflow", "keras", "numpy", "pillow", *NEEDS[kind]]),
    }
