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
from cache.errors import NotAvailable, PipelineError, Unusable
from cache.store import Cache, FeatureStore
from pipeline.config import yaml_file
from pipeline.config.head_schema import HeadConfig
from pipeline.config.schema import BaseChoice
from pipeline.project.project import Project
from pipeline.results import unknown
from pipeline.results.model import Model
from pipeline.results.record_diff import find_differences, format_changes
from pipeline.runs import boundary_rows, train_heads
from stages.bases import catalogue, weights
from stages.bases.recipe import FeatureSpec
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
    names = ["boundary"] if is_finetuned(model) else tap_names(model)
    return [model.record["extract"][name] for name in names]


def tap_names(model: Model) -> list[str]:
    """The taps of its head; of a fine-tuned model, of the head it started from."""
    name, config = model.record["name"], model.record["config"]
    taps = config["heads"][config["finetune"][name]["head"] if is_finetuned(model) else name]["tap"]
    return [taps] if isinstance(taps, str) else list(taps)


def licences(model: Model) -> Iterator[str]:
    """Of the weights of each tap."""
    config = model.record["config"]
    for tap in tap_names(model):
        choice = config["extract"]["taps"][tap].get("base") or config["base"]
        yield catalogue.choose_base(choice["name"]).licence if choice["weights"] == "imagenet" else "not known"


def recorded_specs(then: Project, model: Model) -> list[FeatureSpec]:
    """What those rows are; `then` is the model's project."""
    if is_finetuned(model):
        return [boundary_rows.boundary_spec(then, then.config.finetune[model.record["name"]])]
    return [then.spec(tap) for tap in head_settings(then, model).taps]


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
        _ = [choice.base for choice in config.bases]
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
    then.source = today.source  # looked at once
    for tap, wanted in zip(head_settings(then, model).taps, extracted, strict=True):
        choice = then.choice(tap)
        then.known_weights[choice] = _weights(today, choice, wanted["base"]["weights"])
    for spec, wanted in zip(recorded_specs(then, model), extracted, strict=True):
        if spec.key != wanted["key"]:
            components = spec.components()
            changed = find_differences({name: part for name, part in wanted.items() if name != "key"}, components)
            parts = format_changes(changed)
            raise Unusable(f"today's code makes other rows of the same settings ({parts}); {by}", advice)
    return then


@contextlib.contextmanager
def temporary_cache(project: Project) -> Iterator[None]:
    """Give the project an empty cache: no earlier row is used, not from the team's cache either, and none is left."""
    with atomic_files.temporary_folder() as folder:
        project.cache = Cache(folder, project.cache.index)
        alone = project.config.cache.model_copy(update={"remote": None})
        project.config = project.config.model_copy(update={"cache": alone})
        yield


def _weights(today: Project, recorded: BaseChoice, sha256: str) -> Weights:
    """The weights of that digest, with their file where the recorded or today's setting has it.

    Nothing is downloaded: no weights are needed as long as no row is missing.
    """
    base = recorded.base
    choices = [recorded, *(now for now in today.config.bases if catalogue.is_model_file(now.name) == base.is_file)]
    by_digest, lacking = recorded.model_copy(update={"weights": f"sha256:{sha256}"}), None
    for choice in (*choices, by_digest):
        file = today.at(choice.file)
        try:
            found = weights.resolve_weights(base, choice.setting, file, today.cache, offline=True)
            if found.sha256 == sha256 and found.path is not None:
                return found
        except NotAvailable as error:
            lacking = lacking or (error if base.is_file and file.is_file() else None)
        except PipelineError:
            continue
    return Weights(recorded.setting, sha256, None, lacking)


class Inference:
    """A model on cached rows. Heads are numpy; the trained blocks of a base import TensorFlow when they are used."""

    def __init__(self, then: Project, model: Model) -> None:
        """`then` is what `restore` gives for the model."""
        self._then, self._model = then, model
        self.head = model.head
        self.specs = recorded_specs(then, model)
        if is_finetuned(model):  # of an averaged one, each view of an image, the plain one first
            self.specs = boundary_rows.averaged_specs(then, then.config.finetune[model.record["name"]])

    def stores(self, cache: Cache) -> list[FeatureStore]:
        """Its rows in a cache, tap by tap; of an averaged model, view by view."""
        return [cache.features(spec.components()) for spec in self.specs]

    def predict(self, cache: Cache, ids: Sequence[str]) -> np.ndarray:
        """Of the images `ids`: (n, columns) float64. Raises NotAvailable where a row is absent."""
        if not ids:
            return np.empty((0, len(self.head.target)))
        rows = [store.rows(ids) for store in self.stores(cache)]
        if not is_finetuned(self._model):
            return train_heads.predict_blocks(
                self.head.predict, FeatureMatrix(rows), np.arange(len(ids)), len(self.head.target)
            )
        every, plain, *views = np.arange(len(ids)), *rows
        members = average.split(self.head, self._model.tail)
        return self._network.mean_predictions(members, Cached(plain, views, every), every, len(rows))

    def unknown_scores(self, cache: Cache, ids: Sequence[str]) -> np.ndarray:
        """Of the images `ids`: (n,) float64, above 1 for those that are unknown; NaN where the model cannot tell."""
        if not ids or self._model.unknown is None:
            return np.full(len(ids), np.nan)
        rows = FeatureMatrix([store.rows(ids) for store in self.stores(cache)])
        return unknown.scores(self._model.unknown, rows, np.arange(len(ids)))

    @cached_property
    def _network(self) -> Network:
        """The base's last blocks; each prediction puts the trained weights in."""
        with without_banners():
            from stages.finetune.network import Network
        then = self._then
        block = boundary_rows.first_trained_block(then, then.config.finetune[self._model.record["name"]])
        (spec,) = map(then.spec, head_settings(then, self._model).taps)
        (head, _), *_ = average.split(self.head, {})
        in_file = catalogue.base_of(spec.recipe.base).is_file  # the layers themselves, not their weights alone
        file = then.weight_file(spec.recipe, then.options.offline) if in_file else None
        return Network(spec.recipe, file, block, spec.tap, head)
