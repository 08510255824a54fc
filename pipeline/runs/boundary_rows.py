"""Owns the boundary rows of a fine-tuning: checks, which are needed, having them computed. Not training on them."""

import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from cache.errors import ImagesRejected, NotAvailable, Unusable
from cache.store import FeatureStore
from pipeline.config.finetune_schema import FineTune
from pipeline.config.head_schema import HEAD_KINDS
from pipeline.project.project import Project
from pipeline.runs import extraction
from stages.bases import blocks
from stages.bases.blocks import Block
from stages.bases.recipe import Recipe, Tap
from stages.data.manifest import Manifest, Row
from stages.finetune.boundary_maps import Boundary, Cached, Computed
from stages.heads import labelled_rows

_SPARE = 0.5
"""Share of the free disk space that boundary rows may take with `mode: auto`."""


@dataclass(frozen=True)
class Plan:
    """Where boundary maps come from, and why; a row takes `each` bytes; `missing` of `rows` are not in the cache."""

    mode: Literal["cached", "full"]
    why: str
    each: int
    rows: int
    missing: int

    def __str__(self) -> str:
        size = f"{self.each * self.rows / 1e6:,.0f} MB"
        return f"mode {self.mode}: {self.why}; boundary maps {size}, {self.missing:,} of {self.rows:,} not in the cache"


def first_trained_block(project: Project, spec: FineTune) -> Block:
    """The first block that is trained. Raises Unusable if the base has none of that name."""
    return blocks.get_block(project.base, spec.unfreeze_from)


def boundary_tap(project: Project, spec: FineTune) -> Tap:
    return Tap(first_trained_block(project, spec).boundary, "none", spec.dtype)


def extract_keys(project: Project, names: Iterable[str]) -> list[str]:
    """The extract keys of all views of those fine-tunings."""
    return [store.key for name in names for store in all_stores(project, project.config.finetune[name])]


def check_finetune(project: Project, name: str) -> None:
    """Raises Unusable if there is no such fine-tuning or block, or the head cannot be trained further."""
    project.check_finetune([name])
    spec = project.config.finetune[name]
    first_trained_block(project, spec)
    head = project.config.heads[spec.head]
    where = f"finetune.{name}.head: {spec.head!r}"
    if not HEAD_KINDS[head.kind].finetunable:
        kinds = " or ".join(name for name, kind in HEAD_KINDS.items() if kind.finetunable)
        raise Unusable(f"{where} is of kind {head.kind}; expected {kinds}", "name another head")
    for point in head.points().values():
        taps = [project.tap(tap) for tap in point.taps]
        if len(taps) > 1 or taps[0].layer not in ("output", project.base.output):
            raise Unusable(
                f"{where} uses {' and '.join(tap.layer for tap in taps)}; expected one tap, the base's output",
                "name a head whose tap has layer: output, such as {kind: logistic, tap: pooled}",
            )
    if project.config.extract.numerics != "f32":
        raise Unusable(
            f"finetune.{name}: extract.numerics is {project.config.extract.numerics}; fine-tuning computes in f32",
            "set extract.numerics: f32",
        )


@contextmanager
def extend_hints(names: Iterable[str]) -> Iterator[None]:
    """Hints to extract rows first that are raised within it also name the boundaries of those fine-tunings."""
    try:
        yield
    except NotAvailable as error:
        if error.hint != extraction.COMPUTE_FIRST:
            raise
        also = "".join(f" --for finetune/{name}" for name in dict.fromkeys(names))
        raise NotAvailable(error.message, error.hint + also) from error


def view_recipes(project: Project, spec: FineTune) -> list[Recipe]:
    """The recipe of each view that is trained on, the plain one first."""
    return [project.recipe, *(replace(project.recipe, view=view) for view in spec.train_views)]


def averaged_recipes(project: Project, spec: FineTune) -> list[Recipe]:
    """The recipe of each view that a prediction is the mean of, the plain one first; alone without `average`."""
    return [project.recipe, *(replace(project.recipe, view=view) for view in spec.averaged_views)]


def view_stores(project: Project, spec: FineTune) -> list[FeatureStore]:
    """The stored rows of each view that is trained on, the plain one first."""
    return _stores(project, spec, view_recipes(project, spec))


def averaged_stores(project: Project, spec: FineTune) -> list[FeatureStore]:
    """The same of each view that a prediction is the mean of."""
    return _stores(project, spec, averaged_recipes(project, spec))


def all_stores(project: Project, spec: FineTune) -> list[FeatureStore]:
    """Of each view of either kind, once; the plain one first."""
    return _stores(project, spec, _all_recipes(project, spec))


def _all_recipes(project: Project, spec: FineTune) -> list[Recipe]:
    return list(dict.fromkeys([*view_recipes(project, spec), *averaged_recipes(project, spec)]))


def _stores(project: Project, spec: FineTune, recipes: Iterable[Recipe]) -> list[FeatureStore]:
    tap = boundary_tap(project, spec)
    return [project.cache.features(recipe.components(tap)) for recipe in recipes]


def plan_boundary(project: Project, spec: FineTune, manifest: Manifest) -> Plan:
    """Where the maps come from: as `mode` says; for auto, the cache unless it takes too much disk or saves nothing."""
    shape = first_trained_block(project, spec).shape(project.config.extract.size)
    each = int(np.prod(shape)) * np.dtype(spec.dtype).itemsize
    of_views = _images(project, spec, manifest)
    rows = sum(len(images.ids) for _, images in of_views)
    stores = _stores(project, spec, [recipe for recipe, _ in of_views])
    missing = sum(len(store.missing(m.ids)) for store, (_, m) in zip(stores, of_views, strict=True))
    root = project.cache.root
    free = shutil.disk_usage(next(path for path in (root, *root.parents) if path.exists())).free
    mode: Literal["cached", "full"] = "cached"
    if spec.mode != "auto":
        mode, why = spec.mode, "set in pipeline.yaml"
    elif not missing:
        why = "the maps are there"
    elif each * missing > _SPARE * free:
        mode, why = "full", f"the maps would take {each * missing / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free"
    elif spec.views > spec.epochs:
        mode, why = "full", f"{spec.views} views are more than {spec.epochs} epochs can use"
    else:
        why = "each image goes through the frozen part once, not once an epoch"
    return Plan(mode, why, each, rows, missing)


def compute_missing(project: Project, spec: FineTune, manifest: Manifest) -> None:
    """Compute missing rows, view by view. Raises ImagesRejected if an image became unreadable since the plain view."""
    tap = boundary_tap(project, spec)
    for recipe, images in _images(project, spec, manifest):
        receipt = extraction.fill_rows(project, images, [tap], recipe)
        if receipt.rejected:
            image, reason = receipt.rejected[0]
            raise ImagesRejected(f"{len(receipt.rejected)} images were rejected; the first: {image[:12]}: {reason}")


def open_maps(
    project: Project, spec: FineTune, samples: Sequence[Row], manifest: Manifest, mode: Literal["cached", "full"]
) -> tuple[Boundary, Boundary | None]:
    """Maps of the samples in the views that are trained on, and with `average` in those that are averaged.

    Cached, where missing rows are computed first, or computed from the images each time; raises NotAvailable if files
    or weights are missing.
    """
    train, every = labelled_rows.rows_in_split(samples, "train"), np.arange(len(samples))
    if mode == "cached":
        compute_missing(project, spec, manifest)
        trained = _cached(view_stores(project, spec), samples, train)
        return trained, _cached(averaged_stores(project, spec), samples, every) if spec.average else None
    ids = [row.id for row in samples]
    paths = extraction.image_paths(project, manifest, ids)
    tap, images = boundary_tap(project, spec), [(i, paths[i]) for i in ids]
    taps = {project.recipe.key(tap): tap}
    job = extraction.make_job(project, project.recipe, project.options.offline)
    averaged = Computed(job, taps, images, averaged_recipes(project, spec)) if spec.average else None
    return Computed(job, taps, images, view_recipes(project, spec)), averaged


def _cached(stores: Sequence[FeatureStore], samples: Sequence[Row], others: np.ndarray) -> Cached:
    """Rows of the samples in the first store, the plain view; in the later ones, of those that `others` numbers."""
    ids = [row.id for row in samples]
    plain, *views = stores
    return Cached(plain.rows(ids), [store.rows([ids[i] for i in others]) for store in views], others)


def _images(project: Project, spec: FineTune, manifest: Manifest) -> list[tuple[Recipe, Manifest]]:
    """The recipe of each view with its images: all labelled ones of plain and averaged views, else those of train."""
    labelled = Manifest(tuple(row for row in manifest.rows if row.label is not None))
    train = Manifest(tuple(row for row in labelled.rows if row.split == "train"))
    everywhere = averaged_recipes(project, spec)
    return [(recipe, labelled if recipe in everywhere else train) for recipe in _all_recipes(project, spec)]
