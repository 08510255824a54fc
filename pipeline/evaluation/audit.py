"""Owns the audit of a project: copies, suspect labels, odd images. Not how they are found (stages/audit).

Cached rows are read, and pictures decoded; no network runs, and nothing of the project is changed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from cache.errors import NotAvailable, Unusable
from pipeline.config.head_schema import HEAD_KINDS
from pipeline.evaluation.audit_findings import Audit, Copies, Copy, Labels, OddOne, SuspectLabel
from pipeline.project.project import Project
from pipeline.results import csv_parquet, predictions
from pipeline.runs import extraction, train_heads
from pipeline.serving import dataset
from stages.audit import copies, odd_ones, wrong_labels
from stages.audit.likeness import SIDE, thumbnail
from stages.data.images import ImageRejected, PixelSpec, decode
from stages.data.manifest import Manifest, Row
from stages.extract import prefetch
from stages.heads import labelled_rows
from stages.heads.matrix import FeatureMatrix
from stages.runtime.parallel import run_in_threads
from stages.targets.classes import Classes

NEIGHBOURS = 10
"""Of each image, whose labels are set against its own."""

SAMPLE, SAMPLE_SIDE = 60, 512
"""Pictures that copies are made of, to tell which kinds of copies would be found; at their own size, or this one."""

_SHOWN = 3


@dataclass(frozen=True)
class _Images:
    """Images, each once, with their rows and nearest neighbours, and the class that each counts as; "" for none."""

    rows: Sequence[Row]
    features: FeatureMatrix
    near: np.ndarray
    names: np.ndarray


def audit(project: Project, tap: str | None = None, groups: Path | None = None) -> Audit:
    """What cached rows of a tap (None: the first) and the pictures tell of all images; byte copies count once.

    groups: a table to write, of images in class folders, in which copies are in one group, for data.table. Raises
    Unusable where there are too few images, or the same bytes have two labels; NotAvailable where a row is missing, or
    `groups` is given and a picture.
    """
    tap = next(iter(project.config.extract.taps)) if tap is None else tap
    dataset.check_request(project, tap, None)
    manifest = dataset.images_with_rows(project, [tap])
    manifest.check_labels()
    if groups is not None and project.config.data.table is not None:
        raise Unusable(
            f"--write-groups makes a table of class folders; here data.table is {project.config.data.table}",
            "give that table a column group (data.columns.group); -o lists the pairs",
        )
    known = {row.id: row for row in reversed(manifest.rows) if row.label is not None}
    first = {row.id: row for row in reversed(manifest.rows)} | known
    rows = [first[image] for image in manifest.ids]
    if len(rows) < odd_ones.LEAST:
        raise Unusable(f"{len(rows)} images are too few to audit", f"{odd_ones.LEAST} or more are compared")
    kind, features = project.target_kind, FeatureMatrix([project.store(tap).rows([row.id for row in rows])])
    names = [kind.counted(row.label)[0] if kind.exclusive and row.label is not None else "" for row in rows]
    with project.progress("comparing rows", None) as advance:
        images = _Images(rows, features, odd_ones.find_nearest(features, NEIGHBOURS)[1], np.array(names))
        advance(len(rows))
    left_out: list[str] = []
    found = None
    try:
        found = _find_copies(project, tap, manifest, images)
    except NotAvailable:
        if groups is not None:
            raise
        left_out.append("copies are not looked for: the pictures are not all here")
    pairs = np.empty((0, 2), int) if found is None else found.pairs
    joined = _join(manifest, rows, pairs)
    if groups is not None:
        _write_groups(project, rows, joined, groups)
    odd, lone = _find_odd(images)
    if lone:
        left_out.append(f"{lone:,} images are of classes with fewer than {odd_ones.LEAST}, so none of them is odd")
    labels = None
    try:
        if not kind.exclusive:
            raise Unusable("that takes one class for each image")
        labels = _judge_labels(tap, images, joined, len(pairs))
    except Unusable as why:
        left_out.append(f"labels are not judged: {why.message}")
    copied = None if found is None else _describe_copies(project, manifest, rows, found)
    return Audit(tap, len(rows), copied, labels, odd, bool(images.names.any()), left_out)


def _find_copies(project: Project, tap: str, manifest: Manifest, images: _Images) -> copies.Copies:
    """Raises NotAvailable where a picture is not here."""
    thumbnails = np.zeros((len(images.rows), SIDE, SIDE), np.uint8)  # a picture that cannot be read is of one colour
    ids, pixels = [row.id for row in images.rows], PixelSpec(SIDE, SIDE, max_pixels=project.config.data.max_pixels)
    recipe, paths = replace(project.spec(tap).recipe, pixels=pixels), extraction.image_paths(project, manifest, ids)
    with project.progress("reading pictures", len(ids)) as advance:

        def read(number: int) -> None:
            with suppress(ImageRejected):
                thumbnails[number] = thumbnail(prefetch.read_image(ids[number], paths[ids[number]], [recipe], [])[0])
            advance(1)

        run_in_threads(read, range(len(ids)))
    return copies.find_copies(thumbnails, images.near)


def _describe_copies(project: Project, manifest: Manifest, rows: Sequence[Row], found: copies.Copies) -> Copies:
    """With the copies that would be found: of a sample by ids, which are digests."""
    pairs = [
        Copy(rows[i], rows[j], round(alike, 4))
        for (i, j), alike in zip(found.pairs.tolist(), found.likeness.tolist(), strict=True)
    ]
    ids = sorted(row.id for row in rows)[:SAMPLE]
    paths = extraction.image_paths(project, manifest, ids)
    sample = [pixels for pixels in run_in_threads(lambda image: _at_its_size(paths[image]), ids) if pixels is not None]
    groups = len(set(copies.join_groups(found.pairs, len(rows))[found.pairs.ravel()].tolist()))
    return Copies(pairs, groups, round(found.threshold, 4), copies.shares_found(sample, found.threshold))


def _at_its_size(paths: Sequence[str]) -> np.ndarray | None:
    """The pixels (h, w, 3) of a picture, its longer side at most SAMPLE_SIDE; None where it cannot be read."""
    for path in paths:
        with suppress(OSError, ImageRejected):
            image = Image.fromarray(decode(Path(path).read_bytes(), None))
            image.thumbnail((SAMPLE_SIDE, SAMPLE_SIDE))
            return np.asarray(image)
    return None


def _join(manifest: Manifest, rows: Sequence[Row], pairs: np.ndarray) -> np.ndarray:
    """The group of each image, by its number: of the copies, and of all the groups that its paths are in."""
    number, first = {row.id: i for i, row in enumerate(rows)}, dict[str, int]()
    grouped = [(row.group, number[row.id]) for row in manifest.rows if row.group is not None]
    same = [(first.setdefault(group, i), i) for group, i in grouped]
    return copies.join_groups(np.concatenate([pairs, np.array(same, int).reshape(-1, 2)]), len(rows))


def _write_groups(project: Project, rows: Sequence[Row], joined: np.ndarray, path: Path) -> None:
    """All images, with the splits of their folders; a group has the path of its first image as name."""
    sizes = np.bincount(joined, minlength=len(rows))
    group = {row.id: rows[of].path for row, of in zip(rows, joined.tolist(), strict=True) if sizes[of] > 1}
    found, columns = project.found.rows, project.config.data.columns
    named: dict[str, Sequence[str | None]] = {columns.path: [row.path for row in found]}
    named[columns.label] = [row.label for row in found]
    if any(row.split for row in found):
        named[columns.split] = [row.split for row in found]
    named[columns.group] = [group.get(row.id) for row in found]
    csv_parquet.write_table(named, path)


def _find_odd(images: _Images) -> tuple[list[OddOne], int]:
    """The odd ones, and how many images are of classes too small to tell."""
    scores = odd_ones.find_odd(images.features, images.names)
    worst = [i for i in np.argsort(-scores, kind="stable") if scores[i] >= odd_ones.ODD]
    return [OddOne(images.rows[i], round(float(scores[i]), 3)) for i in worst], int(np.isnan(scores).sum())


def _judge_labels(tap: str, images: _Images, joined: np.ndarray, pairs: int) -> Labels:
    """By logistic heads out of fold, on images of all splits. Raises Unusable where folds cannot judge two classes."""
    named = zip(images.rows, images.names, strict=True)
    labelled = [row._replace(label=name or None, split="train") for row, name in named]
    grouped = [row._replace(group=f"{of}") for row, of in zip(labelled, joined, strict=True)]
    units: dict[str, set[str]] = defaultdict(set)
    for row in grouped:
        units[row.label or ""].add(row.group or "")
    judged = [i for i, row in enumerate(grouped) if row.label and len(units[row.label]) > 1]
    if len(judged) * len(units) > predictions.MOST_JUDGED:
        raise Unusable(f"{len(judged):,} images times {len(units):,} classes are too many")
    target = Classes(sorted({grouped[i].label or "" for i in judged}))
    if len(target) < 2:
        raise Unusable("that takes two classes with two images, or groups, each")
    spec = HEAD_KINDS["logistic"].spec.model_validate({"tap": tap, "choose": "folds"})

    def predict(rows: Sequence[Row]) -> np.ndarray:
        some = images.features.some(np.array(judged))
        found = train_heads.fit_kind(spec, some, [rows[i] for i in judged], target).out_of_fold
        assert found is not None
        return found.predictions

    y = labelled_rows.encode([grouped[i] for i in judged], target)
    p = predict(grouped)
    accuracy, shares = float((p.argmax(axis=1) == y).mean()), np.bincount(y) / len(y)
    if target.losses(y, p).mean() >= target.losses(y, np.tile(shares, (len(y), 1))).mean():
        raise Unusable(f"heads that never saw an image are right in {accuracy:.0%}, and know no more than chance")
    across = float((predict(labelled).argmax(axis=1) == y).mean()) if pairs else accuracy
    suspects, found = wrong_labels.find_suspects(p, y), []
    for place in (place for place in suspects.order if suspects.confident[place]):
        i, instead = judged[place], suspects.instead[place]
        others = [j for j in images.near[i] if images.names[j] not in ("", images.names[i])]
        near = [images.rows[j].path for j in others[:_SHOWN]]
        own, other = float(suspects.own[place]), float(p[place, instead])
        found.append(SuspectLabel(images.rows[i], target[instead], own, other, len(others), images.near.shape[1], near))
    return Labels(len(judged), found, accuracy, across)
