"""Owns the check that another engine, version or device agrees with the rows of a key before it adds to them.

Stored rows are computed anew, of images that are at hand. Not which engine runs (select.py).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from cache.errors import PipelineError
from cache.hash_index import HashIndex
from cache.store import Cache, FeatureStore
from stages.bases.recipe import Recipe, Tap
from stages.data.manifest import Row
from stages.engines.embed import Embed, Taps

log = logging.getLogger(__name__)

ROWS = 8
F32, BF16 = 1e-4, 5e-2
"""The difference allowed, by scale: the largest value of the stored rows.

In bfloat16 EfficientNet-Lite0 on AVX-512 with and without bfloat16 instructions differs by 3e-2 (OpenVINO; maps, 32
photographs at 96), and TensorFlow with and without oneDNN by 2e-1, as much as from f32: that is stopped.
"""

Witnesses = tuple[tuple[str, tuple[str, ...]], ...]
"""(id, absolute paths) of images that have rows."""


def choose_witnesses(rows: Sequence[Row], root: Path, taps: Taps, lacking: Mapping[str, Sequence[str]]) -> Witnesses:
    """The first images, up to ROWS for each key, that have their row of it; paths of `rows` are under `root`."""
    chosen: dict[str, tuple[str, ...]] = {}
    for key in taps:
        there = (row for row in rows if key not in lacking.get(row.id, ()))
        chosen |= {row.id: (str(root / row.path),) for row in islice(there, ROWS)}
    return tuple(chosen.items())


def check_parity(
    recipe: Recipe, taps: Taps, root: Path, embed: Embed, pixels_at_hand: Callable[[], Mapping[str, np.ndarray]]
) -> None:
    """Raises PipelineError where `embed` makes other rows than those in the cache at `root`, at any of the taps.

    Keys to which that engine, version and device added before are taken to agree. `pixels_at_hand` gives id -> uint8
    (h, w, 3) of witnesses; where they have no row of a key, it cannot be checked, which is logged.
    """
    cache = Cache(root, HashIndex())
    stores = {key: cache.features(recipe.components(tap)) for key, tap in sorted(taps.items())}
    made = {key: store.shard_records() for key, store in stores.items()}
    others = {key: all_ for key, all_ in made.items() if all_ and not any(_same(r, embed.provenance) for r in all_)}
    if not others:
        return
    pixels, plain = pixels_at_hand(), replace(recipe, view=None)  # the base sees pixels only
    for key, all_ in others.items():
        ids = _stored(stores[key], list(pixels))
        if ids:
            ours = _rows(embed, plain.key(taps[key]), [pixels[image] for image in ids])
            _compare(recipe, taps[key], stores[key].read(ids), ours, all_[0], embed.provenance)
        else:
            log.info("rows of %s are of another engine, version or device; none is at hand to compare with", key[:12])


def _same(record: Mapping[str, Any], provenance: Mapping[str, Any]) -> bool:
    """Whether a shard was made by that engine on that device, in the versions that it names."""
    versions = record.get("versions", {})
    return all(record.get(name) == provenance[name] for name in ("engine", "device")) and all(
        versions.get(name) == version for name, version in provenance["versions"].items()
    )


def _stored(store: FeatureStore, ids: Sequence[str]) -> list[str]:
    absent = set(store.missing(ids))
    return [image for image in ids if image not in absent][:ROWS]


def _rows(embed: Embed, key: str, pixels: Sequence[np.ndarray]) -> np.ndarray:
    parts = [np.stack(pixels[start : start + embed.batch]) for start in range(0, len(pixels), embed.batch)]
    return np.concatenate([embed(part)[key] for part in parts])


def _compare(
    recipe: Recipe, tap: Tap, stored: np.ndarray, ours: np.ndarray, made: Mapping[str, Any], now: Mapping[str, Any]
) -> None:
    theirs = stored.astype(np.float32)
    scale, allowed = float(np.abs(theirs).max()), F32 if recipe.numerics == "f32" else BF16
    if stored.dtype == np.float16:
        allowed += 2**-10  # the same value, rounded to either side
    difference = float(np.abs(ours - theirs).max())
    if not difference <= allowed * scale:
        raise PipelineError(
            f"{_who(now)} makes other rows of {recipe.base} at {tap.layer} than are stored, by {_who(made)}: of "
            f"{len(ours)} images they differ by {difference:.3g}, where {allowed * scale:.3g} is allowed "
            f"({allowed:.1e} of their largest value)",
            "compute where, and with the extract.engine, that made them; or to another cache: --set cache.dir=DIR",
        )


def _who(record: Mapping[str, Any]) -> str:
    """`openvino 2026.4.1 on AMD EPYC`."""
    engine = record.get("engine")
    version = record.get("versions", {}).get(engine, "")
    return f"{engine} {version} on {record.get('device')}".replace("  ", " ")
