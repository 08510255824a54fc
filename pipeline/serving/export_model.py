"""Owns exporting a model to a file, and the JSON that describes it.

Not the kinds of files (export_kinds.py), nor the test of the file before it is published (export_check.py).
"""

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cache import atomic_files, records
from pipeline.project.project import Options, Progress, Project
from pipeline.results import registry
from pipeline.results.model import Model
from pipeline.serving import export_check, export_kinds, recorded_model
from pipeline.serving.export_check import Sample
from pipeline.serving.export_kinds import NEEDS, Kind
from stages.bases.recipe import FeatureSpec, FrozenBase, Recipe, Tap
from stages.export.deployable import Deployable
from stages.metrics.calibration import apply_temperature
from stages.runtime import hardware

SCHEMA = 2
"""Of PATH.json. In 1, `resized_inside` was that of the one size."""

_PICTURES = (
    "whole pictures of any height and width, the same in a batch, decoded to 8-bit RGB: EXIF orientation applied, "
    "alpha composited over white, 16 bits scaled to 8, grayscale repeated. Resizing and scaling are inside"
)
_RESIZED = ("size", "fit", "resize", "resize_to")


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
    kind = export_kinds.check_path(kind, path, force)
    today = Project(config, options, progress)
    model = registry.find(today.folder, text)
    deployable = load_deployable(today, model)
    export_kinds.check_model(model, deployable, kind)
    samples = export_check.choose_samples(today, model, deployable)
    return write_checked(model, deployable, samples, kind, path, progress)


def write_checked(
    model: Model, deployable: Deployable, samples: Sequence[Sample], kind: Kind, path: Path, progress: Progress
) -> Exported:
    """Write a draft, test it on those images, and publish it with its JSON. Raises what `export_model` does."""
    with atomic_files.temporary_folder() as folder, open(folder / "log", "w+b") as log:
        draft = folder / "draft" / path.name  # by the name that it will have, since it may name that of its data
        atomic_files.make_folder(draft.parent)
        with progress(f"writing {path.name}", 1) as advance:
            batch = export_kinds.write(deployable, kind, draft)
            advance(1)
        with progress("testing it in a fresh process", len(samples)) as advance:
            check = export_check.check_file(draft, deployable, samples, log, advance)
        data = export_kinds.data_path(kind, draft)
        files = {file.name: file.read_bytes() for file in (data, draft) if file.is_file()}
    own, *beside = (_facts(name, files[name]) for name in reversed(files))
    told = {**own, "format": kind, "data": beside[0] if beside else None}
    about = {**told, **_about(model, deployable, check, kind, batch)}
    described = {**files, export_kinds.description_path(path).name: records.dump(about)}
    atomic_files.publish_all(path.absolute().parent, described)
    return Exported(path, about)


def _facts(name: str, data: bytes) -> dict[str, Any]:
    return {"file": name, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


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
    return Deployable(bases, head, 1.0 if temperature is None else temperature, tail, elements, model.unknown)


def _about(
    model: Model, deployable: Deployable, check: Mapping[str, Any], kind: Kind, batch: int | None
) -> dict[str, Any]:
    """PATH.json, except for what it says of the file itself."""
    target, recipes = deployable.head.target, [base.recipe for base in deployable.bases]
    fitted, limit = model.calibration, model.calibration.threshold
    if limit is not None:  # of probabilities without a temperature, while the file applies one
        limit = float(apply_temperature(np.array([[1 - limit, limit]]), deployable.temperature)[0, 1])
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
            "shape": [batch or "n", "height", "width", 3],
            "words": _PICTURES,
            "resized_inside": [
                {name: said for name, said in recipe.pixels.components().items() if name in _RESIZED}
                for recipe in recipes
            ],
        },
        "output": {
            "name": check["outputs"][0],
            "dtype": "float32",
            "shape": [batch or "n", len(target)],
            "words": target.answers,
        },
        **_unknown(deployable, check, batch),
        "licences": {
            "weights": "; ".join(dict.fromkeys(recorded_model.licences(model))),
            "data": "not known",
        },
        "check": {name: value for name, value in check.items() if name not in ("input", "outputs")},
        "versions": hardware.versions(["frozenbase", "tensorflow", "keras", "numpy", "pillow", *NEEDS[kind]]),
    }


def _unknown(deployable: Deployable, check: Mapping[str, Any], batch: int | None) -> dict[str, Any]:
    """What PATH.json says of the second output, of a model that can tell unknown images."""
    if deployable.unknown is None:
        return {}
    words = "above 1, the picture is none of what the model knows, whatever the first output says"
    output = {"name": check["outputs"][1], "dtype": "float32", "shape": [batch or "n"], "words": words}
    return {"unknown": {"rate": deployable.unknown.rate, "output": output}}
