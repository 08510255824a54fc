"""Owns the check that another engine, version or device agrees with the stored rows of a key before it adds to them.

Some stored rows are computed again and compared. Not which engine runs (select.py).
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
from stages.engines.embed import Embed, Taps, embed_all

log = logging.getLogger(__name__)

ROWS = 8
F32, BF16 = 1e-4, 5e-2
"""The difference allowed, as a share of the largest stored value.

In bfloat16, EfficientNet-Lite0 on AVX-512 with and without bfloat16 instructions differs by 3e-2 (OpenVINO; maps, 32
photographs at 96 pixels). TensorFlow with and without oneDNN differs by 2e-1, as much as from f32, and is refused.
"""

Witnesses = tuple[tuple[str, tuple[str, ...]], ...]
"""(id, absolute paths) of images that have rows."""


def choose_witnesses(rows: Sequence[Row], root: Path, taps: Taps, lacking: Mapping[str, Sequence[str]]) -> Witnesses:
    """The first images that have a row of each key, up to ROWS; paths of `rows` are under `root`."""
    chosen: dict[str, tuple[str, ...]] = {}
    for key in taps:
        stored = (row for row in rows if key not in lacking.get(row.id, ()))
        chosen |= {row.id: (str(root / row.path),) for row in islice(stored, ROWS)}
    return tuple(chosen.items())


def check_parity(
    recipe: Recipe, taps: Taps, root: Path, embed: Embed, read_witnesses: Callable[[], Mapping[str, np.ndarray]]
) -> None:
    """Raises PipelineError if `embed` computes other rows than those in the cache at `root`, at any of the taps.

    Keys to which that engine, version and device added before are not checked again. `read_witnesses` returns id ->
    uint8 (h, w, 3); a key of which none has a row cannot be checked, which is logged.
    """
    cache = Cache(root, HashIndex())
    stores = {key: cache.features(recipe.components(tap)) for key, tap in sorted(taps.items())}
    records = {key: store.shard_records() for key, store in stores.items()}
    foreign = {key: all_ for key, all_ in records.items() if all_ and not any(_same(r, embed.provenance) for r in all_)}
    if not foreign:
        return
    pixels, plain = read_witnesses(), replace(recipe, view=None)  # views differ in pixels only
    for key, all_ in foreign.items():
        ids = _stored(stores[key], list(pixels))
        if ids:
            rows = embed_all(embed, np.stack([pixels[image] for image in ids]))[plain.key(taps[key])]
            _compare(recipe, taps[key], stores[key].read(ids), rows, all_[0], embed.provenance)
        else:
            log.info("rows of %s are of another engine, version or device; none is at hand to compare with", key[:12])


def _same(record: Mapping[str, Any], provenance: Mapping[str, Any]) -> bool:
    """Whether a shard was computed by that engine on that device, in its versions."""
    versions = record.get("versions", {})
    return all(record.get(name) == provenance[name] for name in ("engine", "device")) and all(
        versions.get(name) == version for name, version in provenance["versions"].items()
    )


def _stored(store: FeatureStore, ids: Sequence[str]) -> list[str]:
    absent = set(store.missing(ids))
    return [image for image in ids if image not in absent][:ROWS]


def _compare(
    recipe: Recipe, tap: Tap, stored: np.ndarray, rows: np.ndarray, old: Mapping[str, Any], new: Mapping[str, Any]
) -> None:
    expected = stored.astype(np.float32)
    scale, allowed = float(np.abs(expected).max()), F32 if recipe.numerics == "f32" else BF16
    if stored.dtype == np.float16:
        allowed += 2**-10  # one value may round up in one and down in the other
    difference = float(np.abs(rows - expected).max())
    if not difference <= allowed * scale:
        raise PipelineError(
            f"{_name(new)} computes other rows of {recipe.base} at {tap.layer} than those stored by {_name(old)}: "
            f"they differ by {difference:.3g} on {len(rows)} images; {allowed * scale:.3g} is allowed "
            f"({allowed:.1e} of their largest value)",
            "use the machine and the extract.engine that computed them, or another cache: --set cache.dir=DIR",
        )


def _name(record: Mapping[str, Any]) -> str:
    """`openvino 2026.4.1 on AMD EPYC`."""
    engine = record.get("engine")
    version = record.get("versions", {}).get(engine, "")
    return f"{engine} {version} on {record.get('device')}".replace("  ", " ")
