"""Owns the shortlist: bases, sizes and taps tried on some labelled images. Writes rows to the cache, and no model."""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from cache import registrations
from cache.errors import Unusable
from pipeline.config import yaml_file
from pipeline.config.extract_schema import BaseChoice, TapConfig
from pipeline.config.head_schema import HEAD_KINDS, HeadConfig
from pipeline.config.schema import RunConfig
from pipeline.project.project import Options, Progress, Project
from pipeline.runs import extraction, train_heads
from stages.bases import blocks, catalogue, weights
from stages.bases.recipe import FeatureSpec, Pooling
from stages.data import stratified
from stages.data.manifest import Manifest, Row
from stages.extract import schedule, throughput
from stages.heads import labelled_rows, selection
from stages.heads.fitted import OutOfFold
from stages.metrics import kfold
from stages.metrics.figures import Figures
from stages.metrics.kfold import Strata
from stages.runtime import hardware
from stages.runtime.parallel import run_in_threads
from stages.targets import evaluate
from stages.targets.target import Target

log = logging.getLogger(__name__)

IMAGES, SIZES = 300, (160, 224, 320)
"""What is tried by default."""

_AT_ONCE = 50_000_000
"""Parameters of the networks that are in memory together, some 2 GB while they are built; the images of each such pass
are decoded once."""

_OUTPUT: list[tuple[str, Pooling]] = [("output", "avg")]


@dataclass(frozen=True)
class Candidate:
    """A tap that was tried: the fields that differ from the project's, and the figures of its head, out of fold.

    seconds, bytes: for the rows of all images of the project, on this machine. losses: of each image.
    """

    tap: TapConfig
    base: str
    size: int
    figures: Figures
    seconds: float
    bytes: int
    losses: np.ndarray

    @property
    def fields(self) -> dict[str, Any]:
        """Those of the tap that pipeline.yaml needs."""
        fields = self.tap.model_dump(exclude_defaults=True)
        if self.tap.base is not None:
            fields["base"] = {"name": self.base, **fields["base"]}
        return fields

    def to_json(self) -> dict[str, Any]:
        facts = {"base": self.base, "size": self.size, "layer": self.tap.layer, "pooling": self.tap.pooling}
        return {**facts, "figures": self.figures, "seconds": self.seconds, "bytes": self.bytes, "tap": self.fields}


@dataclass(frozen=True)
class Shortlist:
    """Candidates by log-loss, the best first, on so many labelled images of train and val; `pick` is one of them.

    all_images: of the project, for which seconds and bytes are. choice: figures of choosing the first, by images that
    took no part in it; those of the first itself are a little too good.
    """

    images: int
    all_images: int
    classes: Target
    candidates: Sequence[Candidate]
    pick: Candidate
    choice: Figures

    @property
    def setting(self) -> str:
        """The tap to take, as in pipeline.yaml."""
        return yaml_file.format_value(self.pick.fields)

    def to_json(self) -> dict[str, Any]:
        return vars(self)


def shortlist(
    config: Path, options: Options, progress: Progress, bases: Sequence[str], sizes: Sequence[int], most: int
) -> Shortlist:
    """Try bases (default: those whose weights are here) at sizes, with `most` labelled images of train and val.

    Each image is decoded once for all of them, or for as many as fit in memory. Test is not looked at. Raises Unusable
    where a base or the labels do not allow it.
    """
    today = Project(config, options, progress)
    manifest = choose_images(today.manifest, most, today.strata)
    target = today.find_target(manifest)
    taps = list_candidates(today.config, bases, sizes)
    extract = today.config.extract.model_copy(update={"taps": taps})
    settings = today.config.model_copy(update={"extract": extract, "heads": {}, "finetune": {}})
    tried = Project(config, options, progress, settings)
    with registrations.running_job(today.cache.root, tried.keys.values()):
        for specs in _passes(tried):
            rejected = dict(extraction.fill_rows(tried, manifest, specs).rejected)
            if rejected:
                log.warning("%d images cannot be decoded, and are left out", len(rejected))
            manifest = manifest.without(rejected)
        labelled_rows.check_splits(manifest, "folds", target)
        heads, choice = _judge(tried, manifest.samples, target, progress)
        images = len(today.manifest.ids)
        found = [_candidate(tried, name, manifest.samples, p, target, images) for name, p in heads.items()]
    ranked = sorted(found, key=lambda candidate: candidate.figures.rank)
    return Shortlist(len(manifest.ids), images, target, ranked, choose(ranked), choice)


def choose_images(
    manifest: Manifest, most: int, strata: Callable[[Sequence[Row]], Strata] = kfold.by_label
) -> Manifest:
    """Up to `most` labelled images of train and val, as train: of each class its share, and groups whole.

    Raises Unusable where there are none.
    """
    labelled = [row for row in manifest.pooled.rows if row.split == "train" and row.label is not None]
    if not labelled:
        how = "put images in class folders, or name a table with data.table"
        raise Unusable("no image of train or val has a label, and a shortlist compares heads", how)
    units: dict[str, dict[str, Sequence[str]]] = defaultdict(dict)
    for row, names in zip(labelled, strata(labelled).names, strict=True):
        units[row.group or row.id][row.id] = names
    share = most / sum(map(len, units.values()))
    if share >= 1:
        return Manifest(tuple(labelled))
    drawn = [stratified.Unit(name, Counter(chain(*images.values()))) for name, images in units.items()]
    taken = stratified.draw(drawn, {}, {"tried": share, "left": 1 - share}, 0)
    return Manifest(tuple(row for row in labelled if taken[row.group or row.id] == "tried"))


def list_candidates(config: RunConfig, names: Sequence[str], sizes: Sequence[int]) -> dict[str, TapConfig]:
    """The taps to try, by name: of each base and size its output, the layer before its last block, and own taps.

    names: () for the bases whose weights are here. Own taps are those of pipeline.yaml, of their base alone.
    """
    choices = [_choice(config, name) for name in names] or [*config.bases, *_at_hand(config.bases)]
    found: dict[str, TapConfig] = {}
    for choice in choices:
        own: list[tuple[str, Pooling]] = [
            (tap.layer, tap.pooling) for tap in config.extract.taps.values() if (tap.base or config.base) == choice
        ]
        last: list[tuple[str, Pooling]] = [(block.boundary, "avg") for block in blocks.blocks_of(choice.base)[-1:]]
        if choice.base.is_file:  # many a model takes one size alone, and its tokens need a pooling of their own
            taps = [tap for tap in config.extract.taps.values() if (tap.base or config.base) == choice]
            others = [] if choice.base.format.reader else [TapConfig(base=None if choice == config.base else choice)]
            found |= {f"{choice.name} {tap.layer} {tap.pooling}": tap for tap in [*others, *taps]}
            continue
        for size in sizes:
            if size < choice.base.least:
                log.warning("%s takes at least %d pixels a side; %d is left out", choice.name, choice.base.least, size)
                continue
            for layer, pooling in dict.fromkeys([*_OUTPUT, *last, *own]):
                tap = TapConfig(layer=layer, pooling=pooling, base=None if choice == config.base else choice, size=size)
                found[f"{choice.name} {size} {layer} {pooling}"] = tap
    if not found:
        raise Unusable("there is nothing to try", "name larger sizes with --size")
    return found


def _passes(tried: Project) -> Iterator[list[FeatureSpec]]:
    """The rows to compute, in parts whose networks fit in memory together."""
    part: list[FeatureSpec] = []
    parameters = 0
    for recipe, taps in schedule.by_recipe({spec.key: spec for spec in tried.specs.values()}).items():
        of = catalogue.base_of(recipe.base).parameters
        if part and parameters + of > _AT_ONCE:
            yield part
            part, parameters = [], 0
        part += [FeatureSpec(recipe, tap) for tap in taps.values()]
        parameters += of
    yield part


def _choice(config: RunConfig, name: str) -> BaseChoice:
    """A base by its name, with the weights that pipeline.yaml has for it."""
    known = next((choice for choice in config.bases if choice.name == name), None)
    if known is None and catalogue.find_format(name).reader is not None:
        what = f"--base {name}: a model file is tried by the taps that name it"
        raise Unusable(what, "add a tap with that base to pipeline.yaml")
    return known or BaseChoice(name=name)


def _at_hand(there: Collection[BaseChoice]) -> list[BaseChoice]:
    names = {choice.name for choice in there}
    here = [base.name for base in catalogue.BASES.values() if weights.published_path(base).is_file()]
    return [BaseChoice(name=name) for name in here if name not in names]


def _judge(
    tried: Project, rows: Sequence[Row], target: Target, progress: Progress
) -> tuple[dict[str, np.ndarray], Figures]:
    """Predictions of a head on each tap, out of fold, and figures of the choice: nested, or cross-fitted on many."""
    head = HEAD_KINDS[target.linear].spec
    specs = {name: head.model_validate({"tap": name, "choose": "folds"}) for name in tried.config.extract.taps}
    ids, y = [row.id for row in rows], labelled_rows.encode(rows, target)

    def candidate(spec: HeadConfig) -> selection.Candidate:
        features = train_heads.feature_matrix(tried, spec, ids)
        return selection.Candidate(features, lambda some, of: train_heads.fit_kind(spec, some, of, target))

    candidates = {name: candidate(spec) for name, spec in specs.items()}
    first, threads = next(iter(specs.values())), hardware.cpu_count()
    fits = len(specs) * (1 + first.folds * (len(rows) <= selection.MOST_NESTED))
    with progress("heads", fits) as advance, threadpool_limits(1, "blas"):

        def fit(name: str) -> OutOfFold:
            found = candidates[name].fit(candidates[name].features, rows).out_of_fold
            assert found is not None
            advance(1)
            return found

        alone = dict(zip(specs, run_in_threads(fit, specs, threads), strict=True))
        nested = selection.nest(first, list(candidates.values()), rows, target, threads, advance)
    chosen = nested or selection.cross_choice(list(alone.values()), y, target)
    figures = evaluate.evaluate_rows(rows, chosen.predictions, target, first.seed)
    return {name: found.predictions for name, found in alone.items()}, figures


def _candidate(tried: Project, name: str, rows: Sequence[Row], p: np.ndarray, target: Target, images: int) -> Candidate:
    tap, store, ids = tried.config.extract.taps[name], tried.store(name), [row.id for row in rows]
    shards = store.shard_records(store.serving(ids))
    return Candidate(
        tap,
        tried.choice(name).name,
        tried.spec(name).recipe.pixels.height,
        evaluate.evaluate_rows(rows, p, target, 0),
        (throughput.seconds_per_image(shards) or 0.0) * images,
        round(sum(record["bytes"] for record in shards) / sum(record["rows"] for record in shards) * images),
        target.losses(labelled_rows.encode(rows, target), p),
    )


def choose(ranked: Sequence[Candidate]) -> Candidate:
    """The fastest of those that are as good as the first: within a standard error of the paired difference.

    The rule of one standard error (Breiman et al., Classification and Regression Trees, 1984).
    """
    best = ranked[0]

    def is_as_good(other: Candidate) -> bool:
        worse = other.losses - best.losses
        return bool(worse.mean() <= worse.std(ddof=1) / np.sqrt(len(worse)))

    return min(filter(is_as_good, ranked), key=lambda candidate: (candidate.seconds, candidate.figures.rank))
