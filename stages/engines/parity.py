"""Owns the check that another engine, version or device agrees with the stored rows of a key before it adds to them.

Some stored rows are computed again and compared. Not which engine runs (select.py).
"""

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

UNCHECKED = "unchecked"
"""True in the record of a shard that was added without a comparison: no image was at hand, or it was imported."""

_OF_NO_ENGINE = frozenset({"frozenbase", "numpy", "pillow"})
"""Versions in records that are not the engine's."""

References = tuple[tuple[str, tuple[str, ...]], ...]
"""(id, places) of images that have rows."""


def choose_references(
    cache: Cache, recipe: Recipe, taps: Taps, rows: Sequence[Row], place: Callable[[str], str],
    missing: Mapping[str, Sequence[str]],
) -> References:  # fmt: skip
    """Up to ROWS images of each key, and of its unchecked shards, that have rows in it.

    They are among `rows`, whose places `place` tells; if none is, they are files anywhere that the hash index knows.
    """
    places = {row.id: place(row.path) for row in reversed(rows)}
    chosen: dict[str, tuple[str, ...]] = {}
    for key, tap in taps.items():
        stored = list(islice((row.id for row in rows if key not in missing.get(row.id, ())), ROWS))
        chosen |= {image: (places[image],) for image in stored}
        store = cache.features(recipe.components(tap))
        unchecked = [record["sha256"] for record in store.shard_records() if record.get(UNCHECKED)]
        groups = [unchecked, [] if stored else sorted({*store.names()} - {*unchecked})]
        for ids in (store.ids(names) for names in groups if names):
            known = {image: places[image] for image in ids if image in places} or cache.index.find_files(ids, ROWS)
            chosen |= {image: (path,) for image, path in islice(known.items(), ROWS)}
    return tuple(chosen.items())


def check_parity(
    recipe: Recipe, taps: Taps, root: Path, embed: Embed, read_references: Callable[[], Mapping[str, np.ndarray]],
    is_rough: Callable[[], bool] = lambda: False,
) -> set[str]:  # fmt: skip
    """The keys in the cache at `root` whose rows could not be compared with those that `embed` computes.

    Keys to which that engine, version and device added checked rows before are not checked again; unchecked rows are,
    and those that differ are moved to quarantine. `read_references` returns id -> uint8 (h, w, 3). is_rough: whether
    the base computes in fewer digits than float32, whatever the numerics. Raises PipelineError if `embed` computes
    other rows than the checked ones.
    """
    cache = Cache(root, HashIndex())
    stores = {key: cache.features(recipe.components(tap)) for key, tap in sorted(taps.items())}
    checks = {key: _Check(recipe, taps[key], store, embed, is_rough) for key, store in stores.items()}
    needed = {key: check for key, check in checks.items() if check.foreign or check.unchecked}
    pixels = read_references() if needed else {}
    return {key for key, check in needed.items() if not check.run(pixels)}


def note_unchecked(there: Sequence[Mapping[str, Any]], record: Mapping[str, Any]) -> dict[str, Any]:
    """What is added to the `record` of a shard from elsewhere, where its key has the shards of the records `there`."""
    return {UNCHECKED: True} if _is_foreign(record, [known for known in there if not known.get(UNCHECKED)]) else {}


def tolerance(recipe: Recipe, stored: np.dtype[Any], is_rough: Callable[[], bool]) -> float:
    """What engines and machines may differ by, as a share of the largest value, in rows of that stored dtype."""
    allowed = F32 if recipe.numerics == "f32" and not is_rough() else BF16
    return allowed + (2**-10 if stored == np.float16 else 0)  # one value may round up in one and down in the other


def name_of(record: Mapping[str, Any]) -> str:
    """Who computed a shard: `openvino 2026.4.1 on AMD EPYC`."""
    engine = record.get("engine")
    version = record.get("versions", {}).get(engine, "")
    return f"{engine} {version} on {record.get('device')}".replace("  ", " ")


class _Check:
    """The rows of one key against those of an engine."""

    def __init__(
        self, recipe: Recipe, tap: Tap, store: FeatureStore, embed: Embed, is_rough: Callable[[], bool]
    ) -> None:
        self.recipe, self.tap, self.store, self.embed = recipe, tap, store, embed
        self.is_rough = is_rough
        records = store.shard_records()
        self.checked = [record for record in records if not record.get(UNCHECKED)]
        self.unchecked = [record for record in records if record.get(UNCHECKED)]
        self.foreign = _is_foreign(embed.provenance, self.checked)

    def run(self, pixels: Mapping[str, np.ndarray]) -> bool:
        """False where the engine is foreign and no reference image has a checked row. Raises as `check_parity` does."""
        own = [record for record in self.unchecked if _same(record, self.embed.provenance)]
        if self.foreign:
            problem = self._compare(self.checked, pixels)
            if problem is None:
                log.info("rows of %s cannot be checked: no image of its other engine's is found", self.store.key[:12])
                return False
            if problem:
                self._settle(own, problem)
                advice = "use the machine and the extract.engine that computed them, or another cache: "
                raise PipelineError(problem, f"{advice}--set cache.dir=DIR")
        self._settle(own, "")
        for record in self.unchecked:
            problem = None if record in own else self._compare([record], pixels)
            if problem is not None:
                self._settle([record], problem)
        return True

    def _settle(self, records: Sequence[Mapping[str, Any]], problem: str) -> None:
        """Note that unchecked shards are right, or move them to quarantine."""
        for record in records:
            if problem:
                log.warning("unchecked rows of %s are moved to quarantine: %s", self.store.key[:12], problem)
                self.store.set_aside(record["sha256"])
            else:
                self.store.rewrite_record({name: part for name, part in record.items() if name != UNCHECKED})

    def _compare(self, records: Sequence[Mapping[str, Any]], pixels: Mapping[str, np.ndarray]) -> str | None:
        """What is wrong with the rows of those shards, "" for nothing; None if no reference image is among them."""
        there = set(self.store.ids([record["sha256"] for record in records]))
        ids = [image for image in pixels if image in there][:ROWS]
        if not ids:
            return None
        key = replace(self.recipe, view=None).key(self.tap)  # views differ in pixels only
        rows = embed_all(self.embed, np.stack([pixels[image] for image in ids]))[key]
        stored = self.store.read(ids)
        expected = stored.astype(np.float32)
        scale, allowed = float(np.abs(expected).max()), tolerance(self.recipe, stored.dtype, self.is_rough)
        difference = float(np.abs(rows - expected).max())
        if difference <= allowed * scale:
            return ""
        return (
            f"{name_of(self.embed.provenance)} computes other rows of {self.recipe.base} at {self.tap.layer} than "
            f"those stored by {name_of(records[0])}: they differ by {difference:.3g} on {len(rows)} images; "
            f"{allowed * scale:.3g} is allowed ({allowed:.1e} of their largest value)"
        )


def _is_foreign(provenance: Mapping[str, Any], checked: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a key has checked rows, and none by that engine on that device in its versions."""
    return bool(checked) and not any(_same(record, provenance) for record in checked)


def _same(record: Mapping[str, Any], provenance: Mapping[str, Any]) -> bool:
    """Whether a shard was computed by that engine on that device, in its versions; `provenance` may be a record too."""
    return all(record.get(name) == provenance.get(name) for name in ("engine", "device")) and all(
        record.get("versions", {}).get(name) == str(version)
        for name, version in (provenance.get("versions") or {}).items()
        if name not in _OF_NO_ENGINE
    )
