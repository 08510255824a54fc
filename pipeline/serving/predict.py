"""Owns what a model says of images that are named now: files and folders to probabilities. Not making models.

The model goes by its own record: base, weights, size, taps. Rows that the cache has are taken from it; the others are
computed, and kept only where that is asked for.
"""

from __future__ import annotations

import contextlib
import copy
import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cache import registrations
from cache.errors import ImagesRejected, Unusable
from cache.store import Cache
from pipeline.project.project import Project
from pipeline.results import registry
from pipeline.results.csv_parquet import Columns
from pipeline.results.model import Model
from pipeline.runs import extraction, rejects
from pipeline.serving import restored_project
from pipeline.serving.inference import Inference
from stages.data import scan
from stages.data.manifest import Manifest, Row
from stages.data.scan import EXTENSIONS, Reject
from stages.metrics import calibration

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Predicted:
    """What a model says of n images, in the order they were named; of a folder's, sorted.

    `paths` are as they were named; `ids` are the SHA-256 of the files. `probabilities` (n, classes), float64, are the
    model's own, as `pipeline predictions` has them. `rejected` lists the images that cannot be used, which are not
    among the n. `computed` and `reused` count different images, `ignored` files in folders that are no images.
    """

    model: Model
    paths: tuple[str, ...]
    ids: tuple[str, ...]
    classes: tuple[str, ...]
    probabilities: np.ndarray
    rejected: tuple[Reject, ...]
    computed: int
    reused: int
    ignored: int

    @property
    def threshold(self) -> float | None:
        """With two classes, the probability from which the second is the better guess on val; see calibration.py."""
        return self.model.calibration.get("threshold")

    @property
    def temperature(self) -> float | None:
        """What the logits are divided by for `confidence`: fitted on val."""
        return self.model.calibration.get("temperature")

    @property
    def predicted(self) -> list[str]:
        """The class of each image: by the threshold where there is one, else the likeliest."""
        return [self.classes[i] for i in self._guesses]

    @property
    def likeliest(self) -> list[str]:
        """The class of the greatest probability, which is what `pipeline predictions` calls predicted."""
        return [self.classes[i] for i in self.probabilities.argmax(axis=1)]

    @property
    def confidence(self) -> np.ndarray:
        """The calibrated probability of the predicted class, which is that at `temperature`: (n,) float64."""
        heated = calibration.apply_temperature(self.probabilities, self.temperature or 1.0)
        return np.asarray(heated[np.arange(len(heated)), self._guesses])

    @cached_property
    def _guesses(self) -> np.ndarray:
        return calibration.predicted_columns(self.probabilities, self.threshold)

    def columns(self) -> Columns:
        """id, path, predicted, likeliest, confidence, and `p_CLASS` for each class in the order of the model's."""
        columns = {f"p_{name}": self.probabilities[:, i] for i, name in enumerate(self.classes)}
        named = {"id": self.ids, "path": self.paths, "predicted": self.predicted, "likeliest": self.likeliest}
        return {**named, "confidence": self.confidence, **columns}

    def to_json(self) -> dict[str, Any]:
        """All of it; `predictions` has an object for each image, with the probabilities by class."""
        names = ("id", "path", "predicted", "likeliest", "confidence")
        columns = (self.ids, self.paths, self.predicted, self.likeliest, self.confidence.tolist())
        by_class = [dict(zip(self.classes, row, strict=True)) for row in self.probabilities.tolist()]
        rows = zip(*columns, by_class, strict=True)
        return {
            "model": {"name": self.model.name, "key": self.model.key},
            **{name: getattr(self, name) for name in ("classes", "threshold", "temperature")},
            "images": len(self.paths),
            **{name: getattr(self, name) for name in ("computed", "reused", "ignored")},
            "rejected": [reject._asdict() for reject in self.rejected],
            "predictions": [dict(zip((*names, "probabilities"), row, strict=True)) for row in rows],
        }

    def check(self) -> None:
        """Raises ImagesRejected where there is a reject."""
        if self.rejected:
            raise ImagesRejected(
                rejects.summarize(self.rejected, len(self.rejected) + len(self.paths)),
                "the others are predicted; mend these, or leave them out"
                if self.paths
                else "mend them, or name others",
            )


def predict(today: Project, text: str, paths: Sequence[str], keep: bool = False) -> Predicted:
    """What the model that `text` names says of the images at `paths`: files, and folders however deep.

    Rows that are missing are computed, into the cache with `keep`, and else into a temporary one: then the project's
    stays as it is. Raises Unusable where a path is not there, no image is named, or today's code would make other rows
    than the model's; NotAvailable where rows are missing and so are the weights.
    """
    model = registry.find(today.folder, text)
    files, ignored = _files(paths)
    with contextlib.nullcontext(today) if keep else _apart(today) as place:
        then = restored_project.restore(place, model)
        inference = Inference(then, model)
        images, reasons = _identified(then, files)
        said = _ask(inference, then.cache, _known(inference, then.cache, images.ids))
        reused, new = len(said), images.without(said)
        then.cache = place.cache
        with registrations.running_job(then.cache.root, [store.key for store in inference.stores(then.cache)]):
            unusable = dict(extraction.fill_rows(then, new, inference.taps).rejected)
            said |= _ask(inference, then.cache, [image for image in new.ids if image not in unusable])
    reasons |= {row.path: unusable[row.id] for row in new.rows if row.id in unusable}
    ids = {row.path: row.id for row in images.rows if row.id in said}
    good = [file for file in files if file.reason is None and file.place in ids]
    classes = tuple(model.record["classes"])
    return Predicted(
        model,
        tuple(file.path for file in good),
        tuple(ids[file.place] for file in good),
        classes,
        np.array([said[ids[file.place]] for file in good]).reshape(len(good), len(classes)),
        tuple(Reject(f.path, f.reason or reasons[f.place]) for f in files if f.reason or f.place in reasons),
        len(said) - reused,
        reused,
        ignored,
    )


@contextlib.contextmanager
def _apart(project: Project) -> Iterator[Project]:
    """The same project on an empty cache, of which nothing is left."""
    apart = copy.copy(project)
    try:
        with restored_project.temporary_cache(apart):
            yield apart
    except KeyboardInterrupt as stop:
        stop.args = ()  # rows that were said to be kept went with the cache
        raise


def _known(inference: Inference, cache: Cache, ids: Sequence[str]) -> list[str]:
    """Those of `ids` that have all rows that the model takes in."""
    lacking = {image for store in inference.stores(cache) for image in store.missing(ids)}
    return [image for image in ids if image not in lacking]


def _ask(inference: Inference, cache: Cache, ids: Sequence[str]) -> dict[str, np.ndarray]:
    """id -> probabilities (classes,)."""
    return dict(zip(ids, inference.probabilities(cache, ids), strict=True))


class _File(NamedTuple):
    """A file that is asked about: as it was named, its absolute path, and why it cannot be used, if that is known."""

    path: str
    place: str
    reason: str | None = None


def _files(paths: Sequence[str]) -> tuple[list[_File], int]:
    """The files that are meant, in order, and how many others were ignored in folders. Raises Unusable for none."""
    found: list[_File] = []
    ignored, empty = 0, []
    for path in paths:
        place = str(Path(path).absolute())
        if not os.path.exists(place):
            raise Unusable(f"{path} is not there", "name image files, or folders of them")
        if not os.path.isdir(place):
            found.append(_File(path, place))
            continue
        inside, others = scan.list_images(Path(place), path, "all")
        found += [_File(os.path.join(path, name), f"{place}/{name}") for name in inside]
        found += [_File(os.path.join(path, name), f"{place}/{name}", reason) for name, reason in others.rejected]
        ignored += others.ignored.total()
        empty += [] if inside or others.rejected else [path]
    if not found:
        raise Unusable(
            f"no image is named: there is none in {', '.join(empty)}; looked for {', '.join(sorted(EXTENSIONS))}"
            if empty
            else "no image is named",
            "name image files, or folders of them",
        )
    for path in empty:
        log.warning("there is no image in %s", path)
    return found, ignored


def _identified(project: Project, files: Sequence[_File]) -> tuple[Manifest, dict[str, str]]:
    """A row for each different file, by its absolute path; and why others cannot be read, by theirs."""
    places = list(dict.fromkeys(file.place for file in files if file.reason is None))
    with project.progress("hashing", None) as advance:
        digests = project.cache.index.digests(places, advance)
    rows = tuple(Row(digest, place) for place, digest in digests.items() if isinstance(digest, str))
    errors = {place: error for place, error in digests.items() if isinstance(error, OSError)}
    return Manifest(rows), {place: f"cannot be read: {error.strerror or error}" for place, error in errors.items()}
