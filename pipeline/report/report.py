"""Owns `pipeline report`: which model, its sections in order, and whether an earlier file is still right.

Not what sections say (their modules), nor how a page is made of them (page.py).
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cache import atomic_files, keys
from cache.errors import PipelineError, Unusable
from pipeline.evaluation.audit_findings import Audit
from pipeline.project.project import Project
from pipeline.report import page
from pipeline.report.material import Material
from pipeline.report.page import Section
from pipeline.results import registry
from pipeline.results.model import SHORT, Model
from stages.extract.source_digest import source_digest
from stages.runtime import hardware

PARTS = ("audit", "curve", "map", "activation")
"""What a report can be made without: all that takes more than a second."""


@dataclass(frozen=True)
class Written:
    """A report: its file, and whether it was there already, of the same model, images, settings and version."""

    model: Model
    path: Path
    reused: bool
    bytes: int
    seconds: float

    def to_json(self) -> dict[str, Any]:
        return {**vars(self), "model": {"name": self.model.name, "key": self.model.key}}


def write_report(
    today: Project, text: str | None = None, output: Path | None = None, without: Collection[str] = ()
) -> Written:
    """Write a page on the model that `text` names (None: the one that ranks best) to `output`.

    By default report.html beside pipeline.yaml. A file that says the same already is left as it is. Only cached rows,
    stored predictions and pictures are read, but for class activation maps, which take a pass of the base over a few
    images. Raises Unusable where there is no such model, it was judged on no image, or `output` is another page.
    """
    started = time.monotonic()
    path = today.folder / "report.html" if output is None else output
    if path.suffix.lower() not in (".html", ".htm"):
        raise Unusable(f"{path}: expected a name that ends in .html", "for example: -o report.html")
    model = best_model(today.folder) if text is None else registry.find(today.folder, text)
    material = Material(today, model)
    key = _key(material, without)
    there = page.read_key(path)
    if there is None and path.exists():
        raise Unusable(f"{path} is there, and is no report", "name another file with -o, or move that one away")
    reused = there == key
    if not reused:
        atomic_files.publish(path.absolute(), make_page(material, key, without))
    return Written(model, path, reused, path.stat().st_size, round(time.monotonic() - started, 1))


def best_model(folder: Path) -> Model:
    """Of the models that names mean today, the one that ranks best by folds or val, never by test.

    Raises Unusable where there is none.
    """
    found = [model for model in registry.list_models(folder) if model.current and not model.damaged]
    if not found:
        raise Unusable(f"there are no models in {folder / 'models'}", "pipeline run makes them")
    return min(found, key=lambda model: model.figures.rank)


def make_page(material: Material, key: str, without: Collection[str] = ()) -> bytes:
    """The page of a model. Raises Unusable where it was judged on no image."""
    from pipeline.report import charts, confusion, findings, image_map, learning, mistakes, model_card, scores

    model = material.model
    if not material.judged:
        raise Unusable(f"{model} was judged on no image", "a report takes predictions of val or test")
    audit = None if "audit" in without else _audit(material)
    shown, data = image_map.section(material, "map" not in without)
    sections: Sequence[Section | None] = (
        scores.section(material),
        confusion.section(material),
        mistakes.section(material, "activation" not in without),
        charts.section(material),
        None if "curve" in without else learning.section(material),
        None if audit is None else findings.section(material, audit),
        shown,
        model_card.origin(material),
        model_card.card(material, audit),
    )
    there = [section for section in sections if section is not None]
    return page.render(key, _heading(material), there, data)


def _audit(material: Material) -> Audit | PipelineError:
    from pipeline.report import findings

    try:
        return findings.look(material)
    except PipelineError as why:
        return why


def _heading(material: Material) -> Mapping[str, Any]:
    from pipeline.report.scores import guess_constantly

    model, shown = material.model, material.shown
    constant, what = guess_constantly(material)
    return {
        "name": model.name,
        "key": model.key[:SHORT],
        "tags": model.tags,
        "made": model.created,
        "written": time.time(),
        "images": len(material.manifest.ids),
        "judged": shown,
        "headline": shown.figures.headline,
        "constant": constant[shown.name],
        "constant_name": what,
        "n_columns": len(material.target),
        "noun": material.target.noun,
        "accuracy": "accuracy" in shown.figures.values,
    }


def _key(material: Material, without: Collection[str]) -> str:
    """What the page depends on: models and their tags, images with labels and splits, which of them are here and have
    rows, all of pipeline.yaml, what this installation has, and this package's source."""
    today, model = material.today, material.model
    models = [[one.name, one.key, one.current, one.tags, one.beaten] for one in registry.list_models(today.folder)]
    images: list[Any] = [today.config.data.root, sorted(material.paths)]
    for find in (lambda: today.manifest.digest, lambda: sorted(material.rows_missing)):
        try:
            images.append(find())
        except PipelineError as why:
            images.append(why.message)
    parts = {
        "source": source_digest(),
        "model": [model.name, model.key, model.judged_in.name],
        "models": models,
        "images": images,
        "config": today.config.model_dump(mode="json"),
        "unknown": model.unknown is not None,
        "offline": today.options.offline,
        "versions": hardware.versions(["scikit-learn", "tensorflow"]),
        "umap": importlib.util.find_spec("umap") is not None,
        "without": sorted(without),
    }
    return keys.digest("report", parts)
