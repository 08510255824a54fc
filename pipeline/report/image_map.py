"""Owns the map of all images, and which images a page has pictures of. Not the pictures (pictures.py)."""

from __future__ import annotations

import importlib.util
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from cache.errors import PipelineError
from pipeline.report import pictures
from pipeline.report.material import Material
from pipeline.report.mistakes import worst_first
from pipeline.report.page import Section, shorten
from pipeline.results import map_places
from stages.data.manifest import SPLITS, Row
from stages.heads.neighbours import unit_rows
from stages.runtime import hardware
from stages.runtime.silent_imports import without_banners
from stages.targets.target import describe_label

VERSION = 1
"""Of how images are placed. Raise it when the same rows come to lie elsewhere."""

MOST = 3_000
"""Images that a page has points and pictures of; of more, mistakes first, at most a third, then others by their ids."""

COLOURS = 8
_LEAST = 10
"""Images below which there is no map."""

_COMPONENTS = 50
_GRID = 1000
"""Steps of a coordinate."""


def section(material: Material, with_map: bool = True) -> tuple[Section, Mapping[str, Any]]:
    """The section, and the data of the page's script: images as columns, sheets of pictures, coordinates."""
    rows = choose_images(material)
    notes: list[str] = []
    seen = pictures.read_squares(material, [row.id for row in rows], pictures.TILE, "reading pictures")
    sheets = pictures.make_sheets(seen)
    if lacking := len({row.id for row in rows} - seen.keys()):
        notes.append(
            f"{lacking:,} of {len(rows):,} pictures are not here, or were changed since: their points have none"
        )
    maps: Mapping[str, Any] = {}
    if with_map:
        try:
            maps = _place(material, rows)
        except PipelineError as why:
            notes.append(f"no map: {why.message}")
    else:
        notes.append("no map: it was left out on request")
    if with_map and not maps and not notes:
        notes.append(f"no map: {len(rows)} images are too few")
    every, colourings = len(material.manifest.ids), _colourings(material, rows)
    data = {
        **_columns(material, rows),
        "maps": maps,
        "colourings": colourings,
        "sheets": sheets.uris,
        "place": [sheets.place.get(row.id, -1) for row in rows],
        "tile": pictures.TILE,
        "columns": pictures.COLUMNS,
        "perSheet": pictures.PER_SHEET,
    }
    content = {"maps": list(maps), "colourings": [one["name"] for one in colourings], "n": len(rows), "all": every,
               "pictures": len(seen), "tap": material.tap}  # fmt: skip
    return Section("map", "All images on a map", "map.html", content, notes), data


def choose_images(material: Material) -> list[Row]:
    """Each image once; of more than MOST, the worst mistakes, and the first by their ids, which are digests."""
    first = {row.id: row for row in reversed(material.manifest.rows)}
    if len(first) <= MOST:
        return list(first.values())
    numbers = np.concatenate([judged.numbers for judged in reversed(material.judged)])
    worst = [material.predicted.rows[i].id for i in worst_first(material, numbers)][: MOST // 3]
    return [first[image] for image in list(dict.fromkeys([*worst, *sorted(first)]))[:MOST]]


def _place(material: Material, rows: Sequence[Row]) -> Mapping[str, Sequence[Sequence[int]]]:
    """Name of each map -> x and y of each image, 0 to _GRID. Raises NotAvailable where a row is missing."""
    if len(rows) < _LEAST:
        return {}
    ids = sorted({row.id for row in rows})
    features = material.rows(ids)
    packages = ["scikit-learn", "numpy", *(["umap-learn"] if importlib.util.find_spec("umap") is not None else [])]
    made_by = {"version": f"{VERSION}", **hardware.versions(packages)}

    def make() -> map_places.Places:
        title = "placing images on a map"
        # one thread: the same on any number of cores, and threads that wait for each other cost more than they gain
        with material.today.progress(title, None) as advance, threadpool_limits(1):
            found = _coordinates(unit_rows(features.take(np.arange(len(ids)))))
            advance(len(ids))
        return found

    extract_key = material.then.store(material.tap).key
    found = map_places.find_or_make(material.today.folder, extract_key, ids, made_by, make)
    place = {image: i for i, image in enumerate(ids)}
    here = [place[row.id] for row in rows]
    return {name: [column.tolist() for column in of[here].T] for name, of in found.items()}


def _coordinates(x: np.ndarray) -> map_places.Places:
    """On each map of rows (n, dim) of length 1: (n, 2) int, 0 to _GRID."""
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    few = PCA(min(_COMPONENTS, *x.shape), svd_solver="randomized", random_state=0).fit_transform(x)
    found = {}
    if importlib.util.find_spec("umap") is not None:
        with without_banners():  # it brings TensorFlow along, where that is installed
            import umap

        found["UMAP"] = umap.UMAP(n_neighbors=min(15, len(x) - 1), random_state=0, n_jobs=1).fit_transform(few)
    tsne = TSNE(perplexity=min(30.0, (len(x) - 1) / 3), init="pca" if few.shape[1] > 1 else "random", random_state=0)
    found["t-SNE"] = tsne.fit_transform(few)
    found["PCA"] = few[:, :2] if few.shape[1] > 1 else np.repeat(few, 2, axis=1)
    return {name: _on_grid(of) for name, of in found.items()}


def _on_grid(coordinates: np.ndarray) -> np.ndarray:
    low, high = coordinates.min(axis=0), coordinates.max(axis=0)
    scale = float((high - low).max()) or 1.0
    middle = (low + high) / 2
    return np.asarray(np.clip(np.rint(_GRID * ((coordinates - middle) / scale + 0.5)), 0, _GRID).astype(np.int32))


def _columns(material: Material, rows: Sequence[Row]) -> Mapping[str, Any]:
    """Of each image: path, label, split and guess in words; set, true and guessed class as numbers, -1 for none."""
    number = {(row.id, row.label): i for i, row in enumerate(material.predicted.rows)}
    sets = {int(i): n for n, judged in enumerate(material.judged) for i in judged.numbers}
    places = [number.get((row.id, row.label), -1) for row in rows]
    judged = [sets.get(i, -1) for i in places]
    p = material.predicted.probabilities
    exclusive = material.classes is not None
    return {
        "path": [shorten(material.names.get(row.id, row.path)) for row in rows],
        "label": [shorten(describe_label(row.label)) for row in rows],
        "guess": [shorten(material.guess(i)) if n >= 0 else "" for i, n in zip(places, judged, strict=True)],
        "p": [round(float(p[i].max()), 3) if exclusive and n >= 0 else None
              for i, n in zip(places, judged, strict=True)],
        "set": judged,
        "sets": [one.name for one in material.judged],
        "split": [row.split or "none" for row in rows],
        "truthClass": [int(material.classes[i]) if material.classes is not None and i >= 0 else -1 for i in places],
        "guessClass": [int(p[i].argmax()) if exclusive and i >= 0 else -1 for i in places],
        "wrong": [bool(material.wrong[i]) if material.wrong is not None and n >= 0 else False
                  for i, n in zip(places, judged, strict=True)],
    }  # fmt: skip


def _colourings(material: Material, rows: Sequence[Row]) -> list[Mapping[str, Any]]:
    """What points can be coloured by: names and the number of one for each image, or values and their ends."""
    number = {(row.id, row.label): i for i, row in enumerate(material.predicted.rows)}
    places = [number.get((row.id, row.label), -1) for row in rows]
    found: list[Mapping[str, Any]] = []
    if material.target.probabilities:
        labels = [describe_label(row.label) if row.label is not None else "no label" for row in rows]
        order = [*material.target] if material.target.exclusive else []
        found.append(_categories("label", labels, order))
    else:
        for column, name in enumerate(material.target[:COLOURS]):
            found.append(_scale(name, [float(material.numbers[i, column]) if i >= 0 else None for i in places]))
    found.append(_categories("split", [row.split or "none" for row in rows], list(SPLITS)))
    in_sets = {int(i) for judged in material.judged for i in judged.numbers}
    if material.wrong is not None:
        said = ["not judged" if i not in in_sets else "mistake" if material.wrong[i] else "right" for i in places]
        found.append(_categories("mistake", said, ["right", "mistake", "not judged"]))
    else:
        found.append(_scale("error", [float(material.losses[i]) if i in in_sets else None for i in places]))
    return found


def _categories(name: str, values: Sequence[str], order: Sequence[str]) -> Mapping[str, Any]:
    """The names in that order, else the most frequent first; beyond COLOURS, the rarer ones are one."""
    counts = Counter(values)
    names = [one for one in order if one in counts]
    names += sorted(counts.keys() - set(names), key=lambda one: (-counts[one], one))
    if len(names) > COLOURS:
        frequent = {one for one, _ in counts.most_common(COLOURS - 1)}
        names = [one for one in names if one in frequent]
    number = {one: i for i, one in enumerate(names)}
    rest = len(counts) - len(names)
    shown = [shorten(one) for one in names] + ([f"{rest:,} others"] if rest else [])
    values_of = [number.get(one, len(names)) for one in values]
    return {"name": name, "names": shown, "counts": np.bincount(values_of, minlength=len(shown)).tolist(),
            "values": values_of}  # fmt: skip


def _scale(name: str, values: Sequence[float | None]) -> Mapping[str, Any]:
    known = [value for value in values if value is not None and np.isfinite(value)]
    low, high = (min(known), max(known)) if known else (0.0, 1.0)
    shares = [
        None if value is None or not np.isfinite(value) else round((value - low) / ((high - low) or 1), 3)
        for value in values
    ]
    return {"name": shorten(name), "low": f"{low:.4g}", "high": f"{high:.4g}", "values": shares}
