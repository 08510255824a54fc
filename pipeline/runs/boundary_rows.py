"""Owns the boundary rows of a fine-tuning: checks, which are needed, having them computed. Not training on them."""

import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from cache.errors import ImagesRejected, NotAvailable, Unusable
from pipeline.config.finetune_schema import FineTune
from pipeline.config.head_schema import HEAD_KINDS
from pipeline.project import file_blocks
from pipeline.project.project import Project
from pipeline.runs import extraction
from stages.bases import blocks
from stages.bases.blocks import AnyBlock
from stages.bases.recipe import FeatureSpec, Tap
from stages.data.augment import View
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


def first_trained_block(project: Project, spec: FineTune) -> AnyBlock:
    """The first block that is trained. Raises Unusable if the base has none of that name, or cannot be fine-tuned."""
    tap = _head_tap(project, spec)
    choice = project.choice(tap)
    blocks.check_trainable(choice.base)
    if not choice.base.is_file:
        return blocks.get_block(choice.base, spec.unfreeze_from)
    return blocks.find_block(file_blocks.find_blocks(project, tap), spec.unfreeze_from, choice.file)


def is_known(project: Project, spec: FineTune) -> bool:
    """Whether its boundary is known without opening a model file."""
    tap = _head_tap(project, spec)
    return not project.choice(tap).base.is_file or file_blocks.are_known(project, tap)


def boundary_spec(project: Project, spec: FineTune) -> FeatureSpec:
    """The maps that training starts from: of the base of the head's tap, at its size."""
    tap = Tap(first_trained_block(project, spec).boundary, "none", spec.dtype)
    return FeatureSpec(project.spec(_head_tap(project, spec)).recipe, tap)


def _head_tap(project: Project, spec: FineTune) -> str:
    """The tap of its head; of a sweep over taps, the first, as check_finetune has seen that they have one recipe."""
    return next(iter(project.config.heads[spec.head].points().values())).taps[0]


def extract_keys(project: Project, names: Iterable[str]) -> list[str]:
    """The extract keys of all views of those fine-tunings."""
    return [view.key for name in names for view in all_specs(project, project.config.finetune[name])]


def check_finetune(project: Project, name: str) -> None:
    """Raises Unusable if there is no such fine-tuning or block, or the head cannot be trained further.

    NotAvailable where the block is to be looked up in a model file that is not here.
    """
    project.check_finetune([name])
    spec = project.config.finetune[name]
    choice = project.choice(_head_tap(project, spec))
    blocks.check_trainable(choice.base, f"finetune.{name}, on {choice.name},")
    head = project.config.heads[spec.head]
    where = f"finetune.{name}.head: {spec.head!r}"
    if not HEAD_KINDS[head.kind].finetunable:
        kinds = " or ".join(name for name, kind in HEAD_KINDS.items() if kind.finetunable)
        raise Unusable(f"{where} is of kind {head.kind}; expected {kinds}", "name another head")
    for point in head.points().values():
        layers = [project.config.extract.taps[tap].layer for tap in point.taps]
        base = project.choice(point.taps[0]).base
        if len(layers) > 1 or not (base.is_file or layers[0] in ("output", base.output)):
            raise Unusable(
                f"{where} uses {' and '.join(point.taps)}; expected one tap, "
                + ("any of the model's layers" if base.is_file else "the base's output"),
                "name a head with one tap"
                + ("" if base.is_file else " that has layer: output, such as {kind: logistic, tap: pooled}"),
            )
    taps = {tap for point in head.points().values() for tap in point.taps}
    if len(taps) > 1 and len({project.spec(tap).recipe for tap in taps}) > 1:
        raise Unusable(
            f"{where} chooses among taps of several sizes or bases; a fine-tuning trains one base at one size",
            "name a head with one tap",
        )
    ends = {project.config.extract.taps[tap].layer for tap in taps}
    if len({"output" if layer == base.output else layer for layer in ends}) > 1:
        raise Unusable(
            f"{where} chooses among taps of several layers; a fine-tuning trains the layers up to one",
            "name a head with one tap",
        )
    numerics = {project.config.numerics(tap) for tap in taps} - {"f32"}
    if numerics:
        raise Unusable(
            f"finetune.{name}: extract.numerics is {' and '.join(sorted(numerics))}; fine-tuning computes in f32",
            "set extract.numerics: f32",
        )
    first_trained_block(project, spec)


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


def view_specs(project: Project, spec: FineTune) -> list[FeatureSpec]:
    """The maps of each view that is trained on, the plain one first."""
    return _of_views(project, spec, spec.train_views)


def averaged_specs(project: Project, spec: FineTune) -> list[FeatureSpec]:
    """The maps of each view that a prediction is the mean of, the plain one first; alone without `average`."""
    return _of_views(project, spec, spec.averaged_views)


def all_specs(project: Project, spec: FineTune) -> list[FeatureSpec]:
    """The maps of each view of either kind, once; the plain one first."""
    return list(dict.fromkeys([*view_specs(project, spec), *averaged_specs(project, spec)]))


def _of_views(project: Project, spec: FineTune, views: Iterable[View]) -> list[FeatureSpec]:
    plain = boundary_spec(project, spec)
    return [plain, *(replace(plain, recipe=replace(plain.recipe, view=view)) for view in views)]


def plan_boundary(project: Project, spec: FineTune, manifest: Manifest) -> Plan:
    """Where the maps come from: as `mode` says; for auto, the cache unless it takes too much disk or saves nothing."""
    shape = first_trained_block(project, spec).shape(boundary_spec(project, spec).recipe.pixels.height)
    each = int(np.prod(shape)) * np.dtype(spec.dtype).itemsize
    of_views = _images(project, spec, manifest)
    rows = sum(len(images.ids) for _, images in of_views)
    missing = sum(len(project.rows_of(view).missing(images.ids)) for view, images in of_views)
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
    for view, images in _images(project, spec, manifest):
        receipt = extraction.fill_rows(project, images, [view])
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
        trained = _cached(project, view_specs(project, spec), samples, train)
        return trained, _cached(project, averaged_specs(project, spec), samples, every) if spec.average else None
    ids = [row.id for row in samples]
    paths = extraction.image_paths(project, manifest, ids)
    plain = boundary_spec(project, spec)
    job = extraction.make_job(project, plain.recipe, project.options.offline)

    def computed(views: Sequence[FeatureSpec]) -> Computed:
        recipes = [view.recipe for view in views]
        return Computed(job, {plain.key: plain.tap}, [(i, paths[i]) for i in ids], recipes)

    averaged = computed(averaged_specs(project, spec)) if spec.average else None
    return computed(view_specs(project, spec)), averaged


def _cached(project: Project, of: Sequence[FeatureSpec], samples: Sequence[Row], others: np.ndarray) -> Cached:
    """Rows of the samples in the first view, the plain one; in the later ones, of those that `others` numbers."""
    ids = [row.id for row in samples]
    plain, *views = map(project.rows_of, of)
    return Cached(plain.rows(ids), [store.rows([ids[i] for i in others]) for store in views], others)


def _images(project: Project, spec: FineTune, manifest: Manifest) -> list[tuple[FeatureSpec, Manifest]]:
    """Each view with its images: all labelled ones of plain and averaged views, else those of train."""
    labelled = Manifest(tuple(row for row in manifest.rows if row.label is not None))
    train = Manifest(tuple(row for row in labelled.rows if row.split == "train"))
    everywhere = averaged_specs(project, spec)
    return [(view, labelled if view in everywhere else train) for view in all_specs(project, spec)]
