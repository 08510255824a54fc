"""Owns the bases that this process has opened, each once for all its threads, and what is checked before one adds rows.

Not the tasks that use them (shard_task.py), nor the checks themselves (engines/).
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import starmap
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import PIL

from cache.errors import Unusable
from cache.hash_index import HashIndex
from cache.store import Cache
from stages.bases import catalogue, trust, weights
from stages.bases.recipe import FrozenBase, Recipe, Tap
from stages.data.images import ImageRejected
from stages.engines import parity, proof, select
from stages.engines.embed import Embed, Taps, check_independence
from stages.engines.parity import References
from stages.extract import prefetch


@dataclass(frozen=True)
class Job:
    """What all tasks of a run share that compute rows of one recipe. `batch` None lets the engine choose.

    references: images that have rows already, by which another engine is checked. trusted: whether whoever runs this
    trusts the base's file, for workers, who have a configuration of their own.
    """

    recipe: Recipe
    weights: str
    cache_root: str
    batch: int | None
    version: str
    engine: str = select.AUTO
    references: References = ()
    trusted: bool = False


def open_embed(job: Job, taps: Taps) -> Embed:
    """The base in the engine of this machine, with the weights that the key names.

    TensorFlow is imported here, and nowhere earlier; not at all if a model compiled for OpenVINO is stored.
    """
    base = catalogue.base_of(job.recipe.base)
    found = weights.digest_of(base, Path(job.weights))
    if found != job.recipe.weights_sha256:
        raise Unusable(
            f"weights {job.weights}: SHA-256 {found[:12]}...; expected {job.recipe.weights_sha256[:12]}...",
            "the file changed during the run, or is another on that worker: put the same file everywhere, run again",
        )
    with _trust_of(job):
        embed = select.open_engine(job.engine, FrozenBase(job.recipe, taps, Path(job.weights)), job.batch)
    if base.is_file:
        check_independence(embed, job.recipe.pixels.height, job.recipe.pixels.width)
    return embed


def _trust_of(job: Job) -> contextlib.AbstractContextManager[None]:
    """That of whoever sent the job, while its base's file is opened."""
    return trust.granting(job.recipe.weights_sha256) if job.trusted else contextlib.nullcontext()


class _Shared(NamedTuple):
    """A base of this process; `checked`: (cache, key) -> whether it could be compared with the key's rows."""

    embed: Embed
    checked: dict[tuple[str, str], bool]


_embeds: dict[tuple[Job, tuple[tuple[str, Tap], ...]], _Shared] = {}
_embeds_lock = threading.Lock()


def without_view(job: Job, taps: Taps) -> tuple[Job, dict[str, Tap]]:
    """A job and its taps, by key, without the view: one base serves all views, since it sees only pixels."""
    plain = replace(job.recipe, view=None)
    return replace(job, recipe=plain, references=()), {plain.key(tap): tap for tap in taps.values()}


def shared_embed(job: Job, taps: Taps, parts: Sequence[tuple[Job, Taps]]) -> tuple[Embed, set[str]]:
    """The base of this process, built once for all its threads, and keys that it could not be compared with.

    Only those of the latest task's `parts` are kept. Before one adds rows to a key, it is compared with the key's
    stored rows. Raises PipelineError if they differ.
    """
    wanted, *others = (
        (bare, tuple(sorted(plain.items()))) for bare, plain in starmap(without_view, [(job, taps), *parts])
    )
    with _embeds_lock, _trust_of(job):
        if wanted not in _embeds:
            for old in _embeds.keys() - others:
                del _embeds[old]
            _embeds[wanted] = _Shared(open_embed(wanted[0], dict(wanted[1])), {})
        shared = _embeds[wanted]
        new = {key: tap for key, tap in taps.items() if (job.cache_root, key) not in shared.checked}
        if new:
            read = partial(_read_references, job)
            rough = partial(proof.is_rough, job.recipe, Path(job.weights))
            unchecked = parity.check_parity(job.recipe, new, Path(job.cache_root), shared.embed, read, rough)
            if proof.is_foreign(job.recipe) and job.recipe.view is None:
                _prove(job, new, shared.embed)
            shared.checked.update({(job.cache_root, key): key not in unchecked for key in new})
        return shared.embed, {key for key in taps if not shared.checked[job.cache_root, key]}


def _prove(job: Job, taps: Taps, embed: Embed) -> None:
    """Store the known picture's row in each key that has none, once the engines agree. Raises what `proof` does."""
    cache = Cache(Path(job.cache_root), HashIndex())
    stores = {key: cache.features(job.recipe.components(tap)) for key, tap in taps.items()}
    if any(store.missing([proof.golden_id()]) for store in stores.values()):
        rows = proof.golden_rows(FrozenBase(job.recipe, taps, Path(job.weights)), embed)
        for key, store in stores.items():
            stored = rows[key].astype(job.recipe.stored(taps[key]))
            store.put([proof.golden_id()], stored, provenance(job, embed))


def provenance(job: Job, embed: Embed) -> dict[str, Any]:
    """What the record of a shard says of who computed it."""
    ours = {"frozenbase": job.version, "numpy": np.__version__, "pillow": PIL.__version__}
    versions = {**embed.provenance["versions"], **ours}
    return {**embed.provenance, "versions": versions, "written": int(time.time())}


def _read_references(job: Job) -> dict[str, np.ndarray]:
    """id -> pixels of the reference images whose files are unchanged."""
    found = {}
    if proof.is_foreign(job.recipe) and job.recipe.view is None:
        found[proof.golden_id()] = proof.golden_pixels(job.recipe)
    for image, paths in job.references:
        with contextlib.suppress(ImageRejected):
            (found[image],) = prefetch.read_image(image, paths, [job.recipe], [])
    return found
