"""Owns `cache verify --recompute`: rows of some images, computed again here. Not reading shards (upkeep.py)."""

import copy
import random
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cache.errors import NotAvailable, PipelineError
from pipeline.project.project import Project
from pipeline.runs import extraction
from pipeline.serving import recorded_model
from stages.bases.recipe import FeatureSpec
from stages.data.manifest import Manifest, Row
from stages.engines import parity, proof
from stages.extract import schedule


class Differing(NamedTuple):
    """A row that this machine does not compute: its image, tap and shard, and who wrote that, as its record says.

    difference: the largest of a value; allowed: what engines and machines may differ by.
    """

    path: str
    tap: str
    shard: str
    by: str
    difference: float
    allowed: float


@dataclass(frozen=True)
class Recomputed:
    """Images whose rows were computed again, of how many that have rows and files here; rows that differ."""

    images: int
    of: int
    taps: list[str]
    differing: list[Differing] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        return {**vars(self), "differing": [row._asdict() for row in self.differing]}

    def check(self) -> None:
        """Raises PipelineError where a row differs."""
        if self.differing:
            first = self.differing[0]
            raise PipelineError(
                f"{len(self.differing)} of {self.images * len(self.taps)} rows are not what this machine computes; the "
                f"first: {first.path}, tap {first.tap}, differs by {first.difference:.3g} ({first.allowed:.3g} is "
                f"allowed), written by {first.by}",
                "find out who wrote that shard, remove it and its record, here and in the team's cache, and run again "
                "(--json has all)",
            )


def recompute_rows(project: Project, number: int) -> Recomputed:
    """Compute the rows of `number` images of the project again, at random, into a temporary cache, and compare.

    Raises NotAvailable where no image has all its rows and its file here.
    """
    specs = project.specs
    missing = schedule.find_missing(project.cache, {spec.key: spec for spec in specs.values()}, project.manifest.ids)
    there = {row.id: row for row in project.rows_with_files(set(project.manifest.ids) - missing.keys())}
    if not there:
        raise NotAvailable("no image has both its rows and its file here", "name the folder of the images by data.root")
    rows = random.sample(sorted(there.values()), min(number, len(there)))
    again, differing = copy.copy(project), []
    with recorded_model.temporary_cache(again):
        rejected = extraction.fill_rows(again, Manifest(tuple(rows)), specs.values()).rejected
        good = [row for row in rows if row.id not in dict(rejected)]
        for tap, spec in specs.items() if good else ():
            differing += _compare(project, again, tap, spec, good)
    return Recomputed(len(good), len(there), list(specs), differing)


def _compare(project: Project, again: Project, tap: str, spec: FeatureSpec, rows: list[Row]) -> list[Differing]:
    ids, store = [row.id for row in rows], project.rows_of(spec)
    stored, new = store.read(ids), again.rows_of(spec).read(ids)
    rough = partial(proof.is_rough, spec.recipe, Path(project.weight_file(spec.recipe, offline=True)))
    allowed = parity.tolerance(spec.recipe, stored.dtype, rough) * float(np.abs(new.astype(np.float32)).max())
    found = []
    for row, before, after in zip(rows, stored.astype(np.float32), new.astype(np.float32), strict=True):
        difference = float(np.abs(before - after).max())
        if not difference <= allowed:
            (shard,) = store.serving([row.id])
            (record,) = store.shard_records([shard])
            found.append(Differing(row.path, tap, shard, parity.name_of(record), difference, allowed))
    return found
