"""Owns exporting a model to one file, .keras or ONNX, and the JSON that describes it.

Not the network (keras_network.py), nor the test of the file before it is published (export_check.py).
"""

import hashlib
import importlib.util
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
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
from pipeline.serving import export_check, recorded_model
from pipeline.serving.export_check import Sample
from stages.bases import catalogue
from stages.bases.formats import BaseFormat
from stages.bases.recipe import FeatureSpec, FrozenBase, Recipe, Tap
from stages.export import onnx_join
from stages.export.deployable import Deployable
from stages.heads import average
from stages.metrics.calibration import apply_temperature
from stages.runtime import hardware
from stages.runtime.silent_imports import without_banners

SCHEMA = 2
"""Of PATH.json. In 1, `resized_inside` was that of the one size."""

Kind = Literal["keras", "onnx"]
NEEDS: Mapping[Kind, tuple[str, ...]] = {"keras": (), "onnx": ("onnx", "tf2onnx", "onnxruntime")}
"""The optional packages that a kind of file needs."""

_PICTURES = (
    "whole pictures of any height and width, the same in a batch, decoded to 8-bit RGB: EXIF orientation applied, "
    "alpha composited over white, 16 bits scaled to 8, grayscale repeated. Resizing and scaling are inside"
)
_RESIZED = ("size", "fit", "resize", "resize_to")
_WORDS = {
    "classes": "for each class, in the order of `classes`, its probability after the temperature; they sum to 1",
    "labels": "for each label, in the order of `classes`, its probability",
    "number": "for each number, in the order of `classes`, its value in its unit",
}


@dataclass(frozen=True)
class Exported:
    """A file that was written, and the content of its JSON."""

    file: Path
    about: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        return {**self.about, "file": self.file}


def export_model(
    config: Path, options: Options, progress: Progress, text: str, kind: Kind | None, path: Path, force: bool
) -> Exported:
    """Write the model that `text` names to `path`, and its description to `path`.json.

    kind: None takes it from the suffix of `path`. Raises Unusable where the model has no such form, NotAvailable where
    weights or images are missing, PipelineError where the file would give other probabilities than the model. Existing
    files are then left as they were.
    """
    recorded_model.check_places(options.overrides)
    kind = _check_path(kind, path, force)
    today = Project(config, options, progress)
    model = registry.find(today.folder, text)
    deployable = load_deployable(today, model)
    _check_model(model, deployable, kind)
    return write_checked(model, deployable, export_check.choose_samples(today, model, deployable), kind, path, progress)


def write_checked(
    model: Model, deployable: Deployable, samples: Sequence[Sample], kind: Kind, path: Path, progress: Progress
) -> Exported:
    """Write a draft, test it on those images, and publish it with its JSON. Raises what `export_model` does."""
    with without_banners():
        from stages.export import keras_network, onnx_network

    with atomic_files.temporary_folder() as folder, open(folder / "log", "w+b") as log:
        draft = folder / f"model.{kind}"
        with progress(f"writing {kind}", None):
            if all(form.keras for form in _formats(deployable)):
                keras_network.save_network(keras_network.build_network(deployable), kind, draft)
            else:
                onnx_network.save_network(deployable, draft)
        with progress("testing it in a fresh process", len(samples)) as advance:
            check = export_check.check_file(draft, deployable, samples, log, advance)
        data = draft.read_bytes()
    written = {"file": path.name, "format": kind, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    about = {**written, **_about(model, deployable, check, kind)}
    described = {path.name: data, description_path(path).name: records.dump(about)}
    atomic_files.publish_all(path.absolute().parent, described)
    return Exported(path, about)


def load_deployable(today: Project, model: Model) -> Deployable:
    """All that decides the probabilities of `model`, from its record; its weights are downloaded if need be.

    Raises Unusable where today's code would make other rows, or a file of the model is not to be trusted; NotAvailable
    where its weights are missing.
    """
    head, tail = model.head, model.tail
    then = recorded_model.restore(today, model)
    temperature = model.calibration.temperature
    by_recipe: dict[Recipe, dict[str, Tap]] = defaultdict(dict)
    for number, spec in enumerate(map(then.spec, recorded_model.head_settings(then, model).taps)):
        by_recipe[spec.recipe][str(number)] = spec.tap
    bases = tuple(
        FrozenBase(recipe, taps, then.weight_file(recipe, today.options.offline)) for recipe, taps in by_recipe.items()
    )
    elements = recorded_model.averaged_elements(then, model)
    return Deployable(bases, head, 1.0 if temperature is None else temperature, tail, elements)


def description_path(path: Path) -> Path:
    """The file that describes the file `path`: PATH.json."""
    return path.with_name(f"{path.name}.json")


def _check_path(kind: Kind | None, path: Path, force: bool) -> Kind:
    kind = kind or next((kind for kind in NEEDS if path.suffix == f".{kind}"), None)
    if kind is None:
        what = f"--output {path}: expected a name that ends in {' or '.join(f'.{kind}' for kind in NEEDS)}"
        raise Unusable(what, "for example: model.keras")
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
    return kind


def _formats(deployable: Deployable) -> list[BaseFormat]:
    return [catalogue.base_of(base.recipe.base).format for base in deployable.bases]


def _onnx_files(deployable: Deployable) -> list[Path]:
    """The bases that are ONNX files."""
    of = zip(deployable.bases, _formats(deployable), strict=True)
    return [base.weights for base, form in of if form.onnx]


def _check_model(model: Model, deployable: Deployable, kind: Kind) -> None:
    own = deployable.head.kind
    if own != average.KIND and not HEAD_KINDS[own].exportable:
        kinds = ", ".join(name for name, kind in HEAD_KINDS.items() if kind.exportable)
        raise Unusable(
            f"{model} is a {own} head, which has no layers to write",
            f"export a head of another kind: {kinds}",
        )
    for base, form in zip(deployable.bases, _formats(deployable), strict=True):
        if not (form.keras or (form.onnx and kind == "onnx")):
            only, advice = "", "train the head on the base's ONNX or Keras file, and export that"
            if form.onnx:
                only, advice = ", only .onnx", "name it model.onnx, with --format onnx"
            raise Unusable(f"{model} is on {base.weights}, of which no .{kind} file can be made{only}", advice)
        if base.recipe.numerics != "f32":
            raise Unusable(
                f"{model} takes {base.recipe.numerics} rows, which other programs round differently",
                "export a model of rows with extract.numerics: f32",
            )
    onnx_join.check_files(_onnx_files(deployable))


def _about(model: Model, deployable: Deployable, check: Mapping[str, Any], kind: Kind) -> dict[str, Any]:
    """PATH.json, except for what it says of the file itself."""
    target, recipes = deployable.head.target, [base.recipe for base in deployable.bases]
    fitted, limit = model.calibration, model.calibration.threshold
    if limit is not None:  # of probabilities without a temperature, while the file applies one
        limit = float(apply_temperature(np.array([[1 - limit, limit]]), deployable.temperature)[0, 1])
    batch = onnx_join.find_batch(_onnx_files(deployable)) or "n"
    keyed = {name: FeatureSpec(base.recipe, tap).key for base in deployable.bases for name, tap in base.taps.items()}
    return {
        "schema": SCHEMA,
        "model": {"name": model.name, "key": model.key, "kind": deployable.head.kind},
        "extract_keys": [keyed[str(number)] for number in range(len(keyed))],
        "classes": list(target),
        **target.to_json(),
        "positive_class": target[1] if len(target) == 2 and target.exclusive else None,
        "threshold": limit,
        **({"thresholds": fitted.thresholds} if fitted.thresholds else {}),
        **({"half_widths": fitted.half_widths} if fitted.half_widths else {}),
        "temperature": deployable.temperature,
        "input": {
            "name": check["input"],
            "dtype": "uint8",
            "shape": [batch, "height", "width", 3],
            "words": _PICTURES,
            "resized_inside": [
                {name: said for name, said in recipe.pixels.components().items() if name in _RESIZED}
                for recipe in recipes
            ],
        },
        "output": {
            "name": check["output"],
            "dtype": "float32",
            "shape": [batch, len(target)],
            "words": _WORDS["classes" if target.exclusive else target.kind],
        },
        "licences": {
            "weights": "; ".join(dict.fromkeys(_licences(model))),
            "data": "not known",
        },
        "check": {name: value for name, value in check.items() if name not in ("input", "output")},
        "versions": hardware.versions(["frozenbase", "tensorflow", "keras", "numpy", "pillow", *NEEDS[kind]]),
    }


def _licences(model: Model) -> Iterator[str]:
    """Of the weights of each tap."""
    config = model.record["config"]
    for tap in recorded_model.tap_names(model):
        choice = config["extract"]["taps"][tap].get("base") or config["base"]
        yield catalogue.choose_base(choice["name"]).licence if choice["weights"] == "imagenet" else "not known"
