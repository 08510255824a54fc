"""Owns which images of a folder to label next for a head, and what such suggestions saved on its own data set.

Not the choice (stages/labelling/choose_images.py), the replay (replay.py), nor predicting (serving/predict.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from cache.errors import ImagesRejected, NotAvailable, Unusable
from pipeline.labelling import replay
from pipeline.labelling.replay import Replayed
from pipeline.project.project import Project
from pipeline.results import registry
from pipeline.results.csv_parquet import Columns
from pipeline.results.model import Model
from pipeline.runs import extraction, rejects
from pipeline.serving import recorded_model
from pipeline.serving.predict import Predicted, predict
from pipeline.serving.recorded_model import Inference
from stages.audit import copies
from stages.audit.likeness import SIDE, coarse, thumbnail
from stages.audit.neighbour_search import Search
from stages.data.images import ImageRejected, PixelSpec, decode
from stages.data.manifest import Row
from stages.data.scan import Reject
from stages.extract import prefetch
from stages.heads.matrix import FeatureMatrix
from stages.heads.neighbours import nearest_rows, unit_rows
from stages.labelling import choose_images
from stages.runtime.parallel import run_in_threads

SPARE = 2
"""Times as many images are drawn as are asked for, since copies among them are left out; again, where that was few."""


class Suggestion(NamedTuple):
    """An image to label: its path as it was named, its id, what the head predicts and how sure it is, and why."""

    path: str
    id: str
    predicted: str
    confidence: float | None
    why: str


@dataclass(frozen=True)
class Suggested:
    """Images to label next, the first the most worth it, of `images` that have no label.

    labelled: those that the project has a label for; copies: those that look like one of its labelled images or an
    earlier suggestion; uncompared: those of its labelled images that they were to be compared with, and that have no
    row or no picture here. replayed: what such suggestions saved on the data set itself, or None, and why not,
    if that was asked for.
    """

    model: Model
    images: int
    computed: int
    reused: int
    rejected: Sequence[Reject]
    labelled: int
    copies: int
    uncompared: int
    suggestions: Sequence[Suggestion]
    replayed: Replayed | None
    why_not: str = ""

    def columns(self) -> Columns:
        """A row for each image to label."""
        sure = np.array([np.nan if one.confidence is None else one.confidence for one in self.suggestions], dtype=float)
        texts: dict[str, Any] = {n: [getattr(one, n) for one in self.suggestions] for n in ("path", "predicted", "why")}
        return {"path": texts["path"], "predicted": texts["predicted"], "confidence": sure, "why": texts["why"],
                "id": [one.id for one in self.suggestions]}  # fmt: skip

    def check(self) -> None:
        """Raises ImagesRejected where there is a reject."""
        if self.rejected:
            raise ImagesRejected(
                rejects.summarize(self.rejected, len(self.rejected) + self.images + self.labelled),
                "the others are looked at; repair these, or leave them out",
            )

    def to_json(self) -> dict[str, Any]:
        plain = ("images", "computed", "reused", "labelled", "copies", "uncompared", "replayed", "why_not")
        return {
            "model": {"name": self.model.name, "key": self.model.key},
            **{name: getattr(self, name) for name in plain},
            "rejected": [reject._asdict() for reject in self.rejected],
            "suggestions": [one._asdict() for one in self.suggestions],
        }


def suggest(project: Project, head: str, folders: Sequence[str], count: int, replays: int) -> Suggested:
    """`count` images of these folders (or files) to label next for a head: one of pipeline.yaml, or any saved model's.

    Rows of the images are computed into the cache where they are not there. replays: how often suggestions are tried on
    the labelled images of train and val, beside random choice; 0 for none. Raises Unusable for a fine-tuned model, and
    where no image is without a label; NotAvailable where rows or weights are missing.
    """
    text = f"head/{head}" if head in project.config.heads else head
    model = registry.find(project.folder, text)
    if recorded_model.is_finetuned(model):
        raise Unusable(f"{model} is fine-tuned; suggestions go by the rows that a head takes", "name a head")
    found = predict(project, text, folders, keep=True)
    then = recorded_model.restore(project, model)
    inference = Inference(then, model)
    known = {row.id: row for row in project.manifest.samples}
    place = {image: i for i, image in reversed([*enumerate(found.ids)])}
    ids = [image for image in place if image not in known]
    if not ids:
        raise Unusable("no image is without a label", "name a folder of images that are not among those of the project")
    stores = inference.stores(then.cache)
    features = unit_rows(FeatureMatrix([store.rows(ids) for store in stores]).unit_rows().take(np.arange(len(ids))))
    p = found.probabilities[[place[image] for image in ids]]
    gaps = choose_images.unsure(p, model.head.target)
    absent = {image for store in stores for image in store.missing([*known])}
    with_rows = [image for image in known if image not in absent]
    spare = SPARE * count
    while True:
        order = choose_images.choose(gaps, features, spare, seed=0)
        with project.progress("reading pictures", None):
            drawn = [place[ids[i]] for i in order]
            kept, unread = _without_copies(project, found, drawn, features[order], with_rows, stores)
        if len(kept) >= count or len(order) == len(ids):
            break
        spare *= SPARE
    chosen = [int(order[i]) for i in kept[:count]]
    looked = kept[count - 1] + 1 if len(kept) >= count else len(order)
    suggestions = [_describe(found, place[ids[i]]) for i in chosen]
    replayed, why_not = None, ""
    if replays:
        try:
            replayed, why_not = _replay(project, then, model, inference, replays), ""
        except (Unusable, NotAvailable) as error:
            why_not = error.message
    return Suggested(
        model, len(ids), found.computed, found.reused, found.rejected, len(place) - len(ids),
        looked - len(chosen), len(absent) + unread, suggestions, replayed, why_not,
    )  # fmt: skip


def _describe(found: Predicted, number: int) -> Suggestion:
    said, target = found.predicted[number], found.model.head.target
    sure = None if found.confidence is None else round(float(found.confidence[number]), 4)
    p = found.probabilities[number]
    if not target.probabilities:
        why = "unlike the others"
    elif target.exclusive:
        first, second = np.argsort(-p, kind="stable")[:2]
        why = f"{target[first]} {p[first]:.2f} or {target[second]} {p[second]:.2f}"
    else:
        closest = int(np.abs(p - 0.5).argmin())
        why = f"{target[closest]} {p[closest]:.2f}"
    name = found.paths[number]
    return Suggestion(name, found.ids[number], said if isinstance(said, str) else f"{said}", sure, why)


def _without_copies(
    project: Project, found: Predicted, drawn: Sequence[int], rows: np.ndarray, known: Sequence[str], stores: Any
) -> tuple[list[int], int]:
    """Of the drawn images, by their places in `drawn`, those that look like no earlier one and like no labelled image.

    Pictures are compared with those of their nearest rows, as in an audit. Also, how many labelled ones of these cannot
    be read.
    """
    near_known: list[str] = []
    if known:
        others = FeatureMatrix([store.rows(known) for store in stores]).unit_rows()
        numbers = np.unique(nearest_rows(rows, others, min(copies.NEAREST, len(known)))[1])
        near_known = [known[i] for i in numbers]
        rows = np.concatenate([rows, unit_rows(others.take(numbers))])
    if len(rows) < 2:
        return list(range(len(drawn))), 0
    paths = extraction.named_paths(project, project.manifest, near_known)
    files = [*((found.ids[i], [found.places[i]]) for i in drawn), *((image, paths[image]) for image in near_known)]
    limits = PixelSpec(SIDE, SIDE, max_pixels=project.config.data.max_pixels)
    read = run_in_threads(lambda file: _thumbnail(*file, limits), files)
    unread = sum(picture is None for picture in read[len(drawn) :])
    one_colour = np.zeros((SIDE, SIDE), np.uint8)  # like no other
    pictures = np.stack([one_colour if picture is None else picture for picture in read])
    near = Search(FeatureMatrix([rows]), copies.NEAREST, np.zeros(len(rows), int), copies.NEAREST).run()[0].numbers
    pairs = copies.find_copies(pictures, coarse(pictures).astype(np.float16), near).pairs.tolist()
    alike: dict[int, set[int]] = {}
    for one, other in pairs:
        alike.setdefault(one, set()).add(other)
        alike.setdefault(other, set()).add(one)
    kept: list[int] = []
    for i in range(len(drawn)):
        if not any(j in kept or j >= len(drawn) for j in alike.get(i, ())):
            kept.append(i)
    return kept, unread


def _thumbnail(image: str, paths: Sequence[str], limits: PixelSpec) -> np.ndarray | None:
    """Of the first of these files that has the bytes of that id; None where none has, or they cannot be decoded."""
    with suppress(ImageRejected):
        return thumbnail(decode(prefetch.read_bytes(image, paths, []), limits))
    return None


def _replay(project: Project, then: Project, model: Model, inference: Inference, replays: int) -> Replayed:
    """On the labelled images of train and val that the model's target knows, and that have rows."""
    stores, target = inference.stores(then.cache), model.head.target
    samples = {row.id: row for row in project.manifest.samples if row.split != "test" and target.knows(row.label or "")}
    absent = {image for store in stores for image in store.missing([*samples])}
    rows: list[Row] = [row for row in samples.values() if row.id not in absent]
    features = FeatureMatrix([store.rows([row.id for row in rows]) for store in stores])
    with project.progress("replaying", replay.fits(replays)) as advance:
        spec = recorded_model.head_settings(then, model)
        return replay.replay(spec.model_copy(update={"sweep": None}), features, rows, target, replays, advance)
