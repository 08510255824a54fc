"""Owns predictions for named files and folders. Not training models.

Base, weights, size and taps are those of the model's record. Rows in the cache are used; the others are computed, and
stored there only on request.
"""

import contextlib
import copy
import logging
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cache import registrations
from cache.errors import ImagesRejected, Unusable
from cache.hash_index import HashIndex
from cache.store import Cache
from pipeline.project.project import Project
from pipeline.results import registry
from pipeline.results.csv_parquet import Columns
from pipeline.results.frames import Tabular
from pipeline.results.model import Model
from pipeline.runs import extraction, rejects
from pipeline.serving import recorded_model
from pipeline.serving.recorded_model import Inference
from stages.data import scan
from stages.data.manifest import Manifest, Row
from stages.data.scan import Reject
from stages.sources.blobs import is_url
from stages.sources.listing import EXTENSIONS
from stages.sources.source import Source
from stages.targets.target import Target

log = logging.getLogger(__name__)


@dataclass(frozen=True, repr=False)
class Predicted(Tabular):
    """Predictions for n images, in the order they were named; those of a folder sorted.

    `paths` are as they were named, `ids` the SHA-256 of the files. `probabilities` (n, classes), float64, are without a
    temperature, as in `pipeline predictions`; where the model predicts numbers, these. `rejected` lists the images that
    cannot be used, which are not among the n. `computed` and `reused` count different images, `ignored` the files in
    folders that are no images. `unknown_score` (n,) float64 is how far each is from the images that the model was
    fitted on, over the distance that it took for a threshold: above 1 it is unknown. None where the model cannot tell.
    """

    model: Model
    paths: tuple[str, ...]
    ids: tuple[str, ...]
    classes: Target
    probabilities: np.ndarray
    rejected: tuple[Reject, ...]
    computed: int
    reused: int
    ignored: int
    unknown_score: np.ndarray | None = None
    places: tuple[str, ...] = ()
    """Where each image is (stages/sources/places.py)."""

    def summary(self) -> str:
        counts = ", ".join(self.classes)
        if self.classes.probabilities:
            counts = ", ".join(f"{name} {n:,}" for name, n in Counter(self.predicted).most_common(5))
        return f"{self.model}, {len(self.paths):,} images: {counts or 'none'}"

    @property
    def threshold(self) -> float | None:
        """With two classes, the probability from which the second is predicted, fitted on val; see calibration.py."""
        return self.model.calibration.threshold

    @property
    def temperature(self) -> float | None:
        """What logits are divided by for `confidence`, fitted on val."""
        return self.model.calibration.temperature

    @cached_property
    def _said(self) -> dict[str, Any]:
        """What its target says of each image: columns by name."""
        return self.classes.columns(self.probabilities, self.model.calibration)

    @property
    def predicted(self) -> Sequence[Any]:
        """The most probable class of each image, its labels, or its number, as in `pipeline predictions`.

        Of several numbers all, in the order of `classes`.
        """
        return list(self._said.get("predicted", self.probabilities))

    @property
    def at_threshold(self) -> list[str] | None:
        """The class, or the labels, of each image by the threshold; None without one."""
        return self._said.get("at_threshold")

    @property
    def confidence(self) -> np.ndarray | None:
        """The probability of the predicted class at `temperature`, if there is one: (n,) float64; else None."""
        return self._said.get("confidence")

    @property
    def unknown(self) -> np.ndarray | None:
        """Whether each image is none of what the model knows: (n,) bool; None where the model cannot tell."""
        return None if self.unknown_score is None else self.unknown_score > 1

    def columns(self) -> Columns:
        """id, path, predicted, at_threshold if there is one, confidence, unknown and unknown_score if the model can
        tell, and `p_CLASS` for each class of the model.

        Of numbers predicted, low and high, where several with their names behind.
        """
        behind = {name: values for name, values in self._said.items() if name.startswith("p_")}
        before = {name: values for name, values in self._said.items() if name not in behind}
        told = {} if self.unknown is None else {"unknown": self.unknown, "unknown_score": self.unknown_score}
        return {"id": self.ids, "path": self.paths, **before, **told, **behind}

    def to_json(self) -> dict[str, Any]:
        """All of it; `predictions` has an object for each image, with the probabilities by class."""
        columns = {name: list(map(_plain, values)) for name, values in self.columns().items() if name[:2] != "p_"}
        if self.classes.probabilities:
            rows = self.probabilities.tolist()
            columns["probabilities"] = [dict(zip(self.classes, row, strict=True)) for row in rows]
        return {
            "model": {"name": self.model.name, "key": self.model.key},
            **self.classes.to_json(),
            **{name: getattr(self, name) for name in ("classes", "threshold", "temperature")},
            **({} if self.model.unknown is None else {"unknown_rate": self.model.unknown.rate}),
            "images": len(self.paths),
            **{name: getattr(self, name) for name in ("computed", "reused", "ignored")},
            "rejected": [reject._asdict() for reject in self.rejected],
            "predictions": [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)],
        }

    def check(self) -> None:
        """Raises ImagesRejected where there is a reject."""
        if self.rejected:
            raise ImagesRejected(
                rejects.summarize(self.rejected, len(self.rejected) + len(self.paths)),
                "the others are predicted; repair these, or leave them out"
                if self.paths
                else "repair them, or name others",
            )


def predict(today: Project, text: str, paths: Sequence[str], keep: bool = False) -> Predicted:
    """Predictions of the model that `text` names for the images at `paths`: files, folders with their subfolders, URLs.

    Missing rows are computed into the cache with `keep`, else into a temporary one. Raises Unusable where a path is not
    there, no image is named, or today's code would make other rows than the model's; NotAvailable where rows and
    weights are missing.
    """
    model = registry.find(today.folder, text)
    files, ignored = _files(today, paths)
    with contextlib.nullcontext(today) if keep else _on_temporary_cache(today) as place:
        then = recorded_model.restore(place, model)
        inference = Inference(then, model)
        with then.progress("hashing", None) as advance:
            images, reasons = _hash(files, then.cache.index, advance)
        lacking = {image for store in inference.stores(then.cache) for image in store.missing(images.ids)}
        found = _predict(inference, then.cache, images.without(lacking).ids)
        reused, new = len(found), images.without(found)
        then.cache = place.cache
        with registrations.running_job(then.cache.root, [store.key for store in inference.stores(then.cache)]):
            unusable = dict(extraction.fill_rows(then, new, inference.specs).rejected)
            found |= _predict(inference, then.cache, [image for image in new.ids if image not in unusable])
    reasons |= {row.path: unusable[row.id] for row in new.rows if row.id in unusable}
    ids = {row.path: row.id for row in images.rows if row.id in found}
    good = [file for file in files if file.reason is None and file.place in ids]
    classes = model.head.target
    said = np.array([found[ids[file.place]] for file in good]).reshape(len(good), len(classes) + 1)
    return Predicted(
        model,
        tuple(file.path for file in good),
        tuple(ids[file.place] for file in good),
        classes,
        said[:, :-1],
        tuple(Reject(f.path, f.reason or reasons[f.place]) for f in files if f.reason or f.place in reasons),
        len(found) - reused,
        reused,
        ignored,
        None if model.unknown is None else said[:, -1],
        tuple(file.place for file in good),
    )


@contextlib.contextmanager
def _on_temporary_cache(project: Project) -> Iterator[Project]:
    """The same project on an empty cache, which is removed afterwards."""
    other = copy.copy(project)
    try:
        with recorded_model.temporary_cache(other):
            yield other
    except KeyboardInterrupt as stop:
        stop.args = ()  # it says that finished rows are kept; these were not
        raise


def _predict(inference: Inference, cache: Cache, ids: Sequence[str]) -> dict[str, np.ndarray]:
    """id -> predictions and, behind them, its score as unknown: (columns + 1,)."""
    said = inference.predict(cache, ids), inference.unknown_scores(cache, ids)[:, None]
    return dict(zip(ids, np.hstack(said), strict=True))


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.floating | np.bool_) else value


class _File(NamedTuple):
    """An image to predict: as it was named, its place, what lists it, and why it cannot be used, if that is known."""

    path: str
    place: str
    source: Source
    reason: str | None = None


def _hash(files: Sequence[_File], index: HashIndex, advance: Callable[[int], None]) -> tuple[Manifest, dict[str, str]]:
    """A row for each place, and place -> reason of those that cannot be read."""
    rows, reasons = dict[str, Row](), dict[str, str]()
    for source in dict.fromkeys(file.source for file in files):
        named = (file.place for file in files if file.source is source and file.reason is None)
        found, unread = scan.hash_names(source, named, index, advance)
        rows |= {row.path: row for row in found.rows}
        reasons |= unread
    return Manifest(tuple(rows.values())), reasons


def _files(today: Project, paths: Sequence[str]) -> tuple[list[_File], int]:
    """The images to predict, in order, and how many others in folders are ignored. Raises Unusable for none."""
    found: list[_File] = []
    files, ignored, empty = Source("/"), 0, []
    for path in paths:
        remote = is_url(path)
        place = path if remote else str(Path(path).absolute())
        if not remote and not os.path.exists(place):
            raise Unusable(f"{path} is not there", "name image files, or folders of them")
        offline = today.options.leave_buckets
        source = Source(place, "all", index=today.cache.index, offline=offline, called=path)
        if not remote and not os.path.isdir(place) and not source.is_one_file:
            found.append(_File(path, place, files))
            continue
        listing = source.list()
        before = os.path.dirname(path) if source.is_one_file else path.rstrip("/") or path
        inside = listing.names or listing.members
        found += [_File(os.path.join(before, name), source.place(name), source) for name in inside]
        found += [
            _File(os.path.join(before, name), f"{source.root}/{name}", source, reason)
            for name, reason in listing.rejected
        ]
        ignored += listing.ignored.total()
        empty += [] if inside or listing.rejected else [path]
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
