"""Owns a recorded model in use: its project as it was, and its probabilities for cached rows. Computes no row.

Settings come from its record, places (images, cache, cluster) from today.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from cache import atomic_files
from cache.errors import PipelineError, Unusable
from cache.store import Cache, FeatureStore
from pipeline.config import yaml_file
from pipeline.config.head_schema import HeadConfig
from pipeline.config.schema import BaseChoice
from pipeline.project.project import Project
from pipeline.results.model import Model
from pipeline.results.record_diff import find_differences, format_changes
from pipeline.runs import boundary_rows, train_heads
from stages.bases import catalogue, weights
from stages.bases.catalogue import Base
from stages.bases.recipe import Recipe, Tap
from stages.bases.weights import Weights
from stages.data.augment import Element
from stages.finetune.boundary_maps import Cached
from stages.heads import average
from stages.heads.matrix import FeatureMatrix
from stages.runtime.silent_imports import without_banners

if TYPE_CHECKING:
    from stages.finetune.network import Network

_SETTABLE = (
    "data.root", "data.table", "data.columns", "base.weights", "base.trust", "extract.engine", "cluster", "cache",
)  # fmt: skip


def check_places(overrides: Sequence[str]) -> None:
    """Raises Unusable where an override changes anything but a place."""
    for override in overrides:
        field, _, value = override.partition("=")
        a_file = field == "base.name" and catalogue.is_model_file(value)  # the place of a user model
        if not (a_file or override.startswith(_SETTABLE)):
            raise Unusable(
                f"--set {override}: a model keeps the settings it was made with",
                f"only places can be set here: {', '.join(_SETTABLE)}",
            )


def is_finetuned(model: Model) -> bool:
    """Whether blocks of the base were trained with it."""
    return bool(model.record.get("stage") == "finetune")


def rows(model: Model) -> list[dict[str, Any]]:
    """The rows a model takes, in the order they are joined: of each, the key's components and the `key`."""
    if is_finetuned(model):
        return [model.record["extract"]["boundary"]]
    taps = model.record["config"]["heads"][model.record["name"]]["tap"]
    return [model.record["extract"][tap] for tap in ([taps] if isinstance(taps, str) else taps)]


def recorded_taps(then: Project, model: Model) -> list[Tap]:
    """The taps of those rows; `then` is the model's project."""
    if is_finetuned(model):
        return [boundary_rows.boundary_tap(then, then.config.finetune[model.record["name"]])]
    return [then.tap(tap) for tap in head_settings(then, model).taps]


def head_settings(then: Project, model: Model) -> HeadConfig:
    """The settings of a model's head; of a fine-tuned model, of the head it started from."""
    name = model.record["name"]
    return then.config.heads[then.config.finetune[name].head if is_finetuned(model) else name]


def averaged_elements(then: Project, model: Model) -> list[Element]:
    """The flips and turns of an image that it is the mean of, the identity first; alone for most models."""
    tuned = then.config.finetune[model.record["name"]] if is_finetuned(model) else None
    views = [] if tuned is None else tuned.averaged_views
    return list(views[0].augment.elements()) if views else [(0, False)]


def restore(today: Project, model: Model) -> Project:
    """The project as it was for this model, on today's images, cache and cluster.

    Raises Unusable where today's code no longer takes the settings, or would make other rows of them.
    """
    record = model.record
    by = f"{model} was made by frozenbase {record['versions']['frozenbase']}"
    advice = f"with that version it can be used: pip install frozenbase=={record['versions']['frozenbase']}"
    heads = {name: {"choose": "val", **head} for name, head in record["config"]["heads"].items()}  # as before folds
    try:
        config = yaml_file.validate(
            {**record["config"], "heads": heads, "cluster": {}}, f"the settings in {model.folder / 'record.json'}"
        )
        base = config.base.base
    except Unusable as error:
        raise Unusable(f"{error.message}; {by}", advice) from error
    extracted = rows(model)
    settings = config.model_copy(
        update={
            "data": config.data.model_copy(update={"root": today.config.data.root, "table": None}),
            "base": config.base.model_copy(update={"trust": today.config.base.trust}),
            "extract": config.extract.model_copy(update={"engine": today.config.extract.engine}),
            "cluster": today.config.cluster,
            "cache": today.config.cache,
        }
    )
    then = Project(today.path, today.options, today.progress, settings)
    then.weights = _weights(today, base, config.base, extracted[0]["base"]["weights"])
    for tap, wanted in zip(recorded_taps(then, model), extracted, strict=True):
        if then.recipe.key(tap) != wanted["key"]:
            components = then.recipe.components(tap)
            changed = find_differences({name: part for name, part in wanted.items() if name != "key"}, components)
            parts = format_changes(changed)
            raise Unusable(f"today's code makes other rows of the same settings ({parts}); {by}", advice)
    return then


@contextlib.contextmanager
def temporary_cache(project: Project) -> Iterator[None]:
    """Give the project an empty cache: no earlier row is used, and none is left."""
    with atomic_files.temporary_folder() as folder:
        project.cache = Cache(folder, project.cache.index)
        yield


def _weights(today: Project, base: Base, recorded: BaseChoice, sha256: str) -> Weights:
    """The weights of that digest, with their file where the recorded or today's setting has it.

    Nothing is downloaded: no weights are needed as long as no row is missing.
    """
    now = today.config.base
    choices = [recorded, *([now] if catalogue.is_model_file(now.name) == base.is_file else [])]
    by_digest = recorded.model_copy(update={"weights": f"sha256:{sha256}"})
    for choice in (*choices, by_digest):
        with contextlib.suppress(PipelineError):
            found = weights.resolve_weights(base, choice.setting, today.at(choice.file), today.cache, offline=True)
            if found.sha256 == sha256 and found.path is not None:
                return found
    return Weights(recorded.setting, sha256, None)


class Inference:
    """A model on cached rows. Heads are numpy; the trained blocks of a base import TensorFlow when they are used."""

    def __init__(self, then: Project, model: Model) -> None:
        """`then` is what `restore` gives for the model."""
        self._then, self._model = then, model
        self.head = model.head
        self.taps = recorded_taps(then, model)

    @property
    def recipes(self) -> list[Recipe]:
        """Of each view of an image that it takes, the plain one first; of an averaged model there are several."""
        if not is_finetuned(self._model):
            return [self._then.recipe]
        return boundary_rows.averaged_recipes(self._then, self._then.config.finetune[self._model.record["name"]])

    def stores(self, cache: Cache) -> list[FeatureStore]:
        """Its rows in a cache, tap by tap; of an averaged model, view by view."""
        return [cache.features(recipe.components(tap)) for recipe in self.recipes for tap in self.taps]

    def probabilities(self, cache: Cache, ids: Sequence[str]) -> np.ndarray:
        """Of the images `ids`: (n, classes) float64. Raises NotAvailable where a row is absent."""
        if not ids:
            return np.empty((0, len(self.head.classes)))
        rows = [store.rows(ids) for store in self.stores(cache)]
        if not is_finetuned(self._model):
            return train_heads.predict_blocks(
                self.head.probabilities, FeatureMatrix(rows), np.arange(len(ids)), len(self.head.classes)
            )
        every, plain, *views = np.arange(len(ids)), *rows
        members = average.split(self.head, self._model.tail)
        return self._network.mean_probabilities(members, Cached(plain, views, every), every, len(rows))

    @cached_property
    def _network(self) -> Network:
        """The base's last blocks; each prediction puts the trained weights in."""
        with without_banners():
            from stages.finetune.network import Network
        then = self._then
        block = boundary_rows.first_trained_block(then, then.config.finetune[self._model.record["name"]])
        (tap,) = map(then.tap, head_settings(then, self._model).taps)
        (head, _), *_ = average.split(self.head, {})
        return Network(then.recipe, None, block, tap, head)
