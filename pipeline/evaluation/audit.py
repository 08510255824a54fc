"""Owns the audit of a project: copies, suspect labels, odd images. Not how they are found (stages/audit).

Cached rows are read, and pictures decoded; no network runs, and nothing of the project is changed.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cache.errors import NotAvailable, Unusable
from pipeline.config.head_schema import HEAD_KINDS
from pipeline.evaluation import audit_pictures
from pipeline.evaluation.audit_findings import (
    Audit,
    Copy,
    Labels,
    OddOne,
    Shortcut,
    SuspectLabel,
    find_contradictions,
)
from pipeline.project.project import Project
from pipeline.results import csv_parquet, grouped_table, predictions
from pipeline.runs import train_heads
from pipeline.serving import dataset
from stages.audit import copies, odd_ones, shortcuts, wrong_labels
from stages.audit.neighbour_search import Search
from stages.data import tables
from stages.data.manifest import Manifest, Row
from stages.heads import labelled_rows
from stages.heads.matrix import FeatureMatrix
from stages.metrics import intervals
from stages.runtime.counted_words import count_of
from stages.targets.classes import Classes

NEIGHBOURS = 10
"""Of each image, whose labels are set against its own."""

_SHOWN = 3


@dataclass(frozen=True)
class _Images:
    """Images, each once, with their rows, and the class that each counts as; "" for none.

    near (n, NEIGHBOURS): the nearest rows; own (n, odd_ones.NEIGHBOURS): cosines with the nearest of the same class.
    """

    rows: Sequence[Row]
    features: FeatureMatrix
    names: np.ndarray
    near: np.ndarray
    own: np.ndarray


def audit(project: Project, tap: str | None = None, groups: Path | None = None, sample: int | None = None) -> Audit:
    """What cached rows of a tap (None: the first) and the pictures tell of all images; byte copies count once.

    groups: a table to write, for data.table, in which copies are in one group: of class folders a new one, else the
    user's with such a column. sample: so many images, drawn by their ids, instead of all. Raises Unusable where there
    are too few images, or `groups` cannot be written; NotAvailable where a row is missing, or `groups` is given and a
    picture.
    """
    tap = next(iter(project.config.extract.taps)) if tap is None else tap
    dataset.check_request(project, tap, None)
    if groups is not None:
        _check_groups(project, groups, sample)
    manifest = dataset.images_with_rows(project, [tap])
    identical = find_contradictions(manifest.rows)
    images = _look(project, tap, manifest, identical, sample)
    left_out: list[str] = []
    found, facts = None, None
    try:
        with audit_pictures.read_pictures(project, manifest, [row.id for row in images.rows]) as pictures:
            found, facts = audit_pictures.find_copies(project, pictures, images.near), pictures.facts
    except NotAvailable:
        if groups is not None:
            raise
        left_out.append("copies and odd pictures are not looked for: the pictures are not all here")
    pairs = np.empty((0, 2), int) if found is None else found.pairs
    joined = _join(manifest, images.rows, pairs)
    if groups is not None:
        of = {row.id: group for row, group in zip(images.rows, joined.tolist(), strict=True)}
        _write_groups(project, manifest, of, groups)
    odd, lone = _find_odd(images)
    if lone:
        one = f"{count_of(lone, 'image')} {'is' if lone == 1 else 'are'} of classes"
        left_out.append(f"{one} with fewer than {odd_ones.LEAST}: not told whether odd")
    labels, shortened = None, None
    try:
        if not project.target_kind.exclusive:
            raise Unusable("that takes one class for each image")
        judged, grouped = _judged(images, joined)
        try:
            shortened = _find_shortcuts(project, judged, grouped, facts)
        except Unusable as why:
            left_out.append(f"shortcuts are not looked for: {why.message}")
        labels = _judge_labels(tap, images, judged, grouped, len(pairs) > 0)
    except Unusable as why:
        left_out.append(f"labels are not judged: {why.message}")
    return Audit(
        tap,
        len(images.rows),
        len(manifest.ids),
        identical,
        None if found is None else audit_pictures.describe_copies(project, manifest, images.rows, found),
        labels,
        odd,
        None if facts is None else audit_pictures.find_odd(images.rows, facts),
        shortened,
        bool(images.names.any()),
        left_out,
    )


def _check_groups(project: Project, path: Path, sample: int | None) -> None:
    if sample is not None:
        raise Unusable("--write-groups takes all images: others have copies too", "leave out --sample")
    if project.config.data.table is None:
        csv_parquet.check_path(path)
    else:
        grouped_table.check_path(project.at(project.config.data.table), path)


def _look(project: Project, tap: str, manifest: Manifest, identical: Sequence[Copy], sample: int | None) -> _Images:
    """The images, and what is near each. A file under two labels counts as of no class."""
    two_labels = {one.image.id for one in identical if one.of_two_labels}
    known = {row.id: row for row in reversed(manifest.rows) if row.label is not None}
    first = {row.id: row for row in reversed(manifest.rows)} | known
    chosen = set(sorted(manifest.ids)[:sample])  # ids are digests, so the first ones are a random sample
    rows = [first[image] for image in manifest.ids if image in chosen]
    if len(rows) < odd_ones.LEAST:
        raise Unusable(
            f"{count_of(len(rows), 'image')} {'is' if len(rows) == 1 else 'are'} too few to audit",
            f"{odd_ones.LEAST} or more are compared",
        )
    kind, features = project.target_kind, FeatureMatrix([project.store(tap).rows([row.id for row in rows])])
    labels = [row.label if kind.exclusive and row.id not in two_labels else None for row in rows]
    names = np.array(["" if label is None else kind.counted(label)[0] for label in labels])
    search = Search(features, NEIGHBOURS, np.unique(names, return_inverse=True)[1], odd_ones.NEIGHBOURS)
    with project.progress("comparing rows", search.pairs) as advance:
        near, own = search.run(advance)
    return _Images(rows, features, names, near.numbers, own.cosines)


def _join(manifest: Manifest, rows: Sequence[Row], pairs: np.ndarray) -> np.ndarray:
    """The group of each image, by its number: of the copies, and of all the groups that its paths are in."""
    number, first = {row.id: i for i, row in enumerate(rows)}, dict[str, int]()
    grouped = [(row.group, number[row.id]) for row in manifest.rows if row.group is not None]
    same = [(first.setdefault(group, i), i) for group, i in grouped]
    return copies.join_groups(np.concatenate([pairs, np.array(same, int).reshape(-1, 2)]), len(rows))


def _write_groups(project: Project, manifest: Manifest, joined: Mapping[str, int], path: Path) -> None:
    """joined: the group of each image, by its id. A group has a name that it had, or the path of its first image."""
    sizes, had = Counter(joined.values()), dict[int, str]()
    for row in manifest.rows:
        if row.group is not None:
            had.setdefault(joined[row.id], row.group)
    first = {joined[row.id]: row.path for row in reversed(manifest.rows)}
    group = {image: had.get(of, first[of]) for image, of in joined.items() if of in had or sizes[of] > 1}
    found, data = project.found.rows, project.config.data
    if data.table is not None:
        table, ids = project.at(data.table), {row.path: row.id for row in found}
        paths = tables.find_paths(table, data.columns.path, project.source, project.found.with_ids)
        told = {number: group[ids[of]] for number, of in paths.items() if ids.get(of) in group}
        grouped_table.write_grouped(table, path, data.columns.group, told)
        return
    named: dict[str, Sequence[str | None]] = {data.columns.path: [row.path for row in found]}
    named[data.columns.label] = [row.label for row in found]
    if any(row.split for row in found):
        named[data.columns.split] = [row.split for row in found]
    named[data.columns.group] = [group.get(row.id) for row in found]
    csv_parquet.write_table(named, path)


def _find_odd(images: _Images) -> tuple[list[OddOne], int]:
    """The odd ones, and how many images are of classes too small to tell."""
    scores = odd_ones.find_odd(images.own, images.names)
    worst = [i for i in np.argsort(-scores, kind="stable") if scores[i] >= odd_ones.ODD]
    return [OddOne(images.rows[i], round(float(scores[i]), 3)) for i in worst], int(np.isnan(scores).sum())


def _judged(images: _Images, joined: np.ndarray) -> tuple[list[int], list[Row]]:
    """The numbers of the images that folds can judge, and these, with their class as label and `joined` as group.

    Raises Unusable where there are fewer than two such classes, or too many.
    """
    named = zip(images.rows, images.names.tolist(), joined.tolist(), strict=True)
    grouped = [row._replace(label=name or None, split="train", group=f"{of}") for row, name, of in named]
    units: dict[str, set[str]] = defaultdict(set)
    for row in grouped:
        units[row.label or ""].add(row.group or "")
    judged = [i for i, row in enumerate(grouped) if row.label and len(units[row.label]) > 1]
    if len({grouped[i].label for i in judged}) < 2:
        raise Unusable("that takes two classes with two images, or groups, each")
    if len(judged) * len(units) > predictions.MOST_JUDGED:
        raise Unusable(f"{len(judged):,} images times {len(units):,} classes are too many")
    return judged, [grouped[i] for i in judged]


def _find_shortcuts(
    project: Project, judged: Sequence[int], rows: Sequence[Row], facts: np.ndarray | None
) -> list[Shortcut] | None:
    """By size, format and bytes, where pictures were read, and by folder, where a table has the labels; else None."""
    columns, here = {}, np.ones(len(rows), bool)
    if facts is not None and (facts["width"][judged] > 0).any():
        here = facts["width"][judged] > 0
        columns = shortcuts.clues(facts[judged][here])
    known = [row for row, there in zip(rows, here, strict=True) if there]
    if project.config.data.table is not None and (folders := shortcuts.folders(known)) is not None:
        columns["folder"] = folders
    if not columns:
        return None
    return [
        Shortcut(one.by, one.accuracy.value or 0.0, one.accuracy.ci, one.majority.value or 0.0, one.majority.ci)
        for one in shortcuts.find_shortcuts(columns, known)
    ]


def _judge_labels(tap: str, images: _Images, judged: Sequence[int], grouped: Sequence[Row], copied: bool) -> Labels:
    """By logistic heads out of fold, on images of all splits; once more without regard to copies, if some are `copied`.

    Raises Unusable where heads know no more than chance.
    """
    target = Classes(sorted({row.label or "" for row in grouped}))
    spec = HEAD_KINDS["logistic"].spec.model_validate({"tap": tap, "choose": "folds"})
    some = images.features.some(np.array(judged))

    def predict(rows: Sequence[Row]) -> np.ndarray:
        found = train_heads.fit_kind(spec, some, rows, target).out_of_fold
        assert found is not None
        return found.predictions

    y, groups = labelled_rows.encode(grouped, target), [row.group for row in grouped]
    p = predict(grouped)
    right, shares = p.argmax(axis=1) == y, np.bincount(y) / len(y)
    if target.losses(y, p).mean() >= target.losses(y, np.tile(shares, (len(y), 1))).mean():
        raise Unusable(f"heads that never saw an image are right in {right.mean():.0%}, and know no more than chance")
    apart = [row._replace(group=images.rows[i].group) for i, row in zip(judged, grouped, strict=True)]
    across = predict(apart).argmax(axis=1) == y if copied else right
    suspects, found = wrong_labels.find_suspects(p, y), []
    for place in (place for place in suspects.order if suspects.confident[place]):
        i, instead = judged[place], suspects.instead[place]
        others = [j for j in images.near[i] if images.names[j] not in ("", images.names[i])]
        near = [images.rows[j].path for j in others[:_SHOWN]]
        own, other = float(suspects.own[place]), float(p[place, instead])
        found.append(SuspectLabel(images.rows[i], target[instead], own, other, len(others), images.near.shape[1], near))
    ours, theirs = (intervals.share_with_interval(some, groups) for some in (right, across))
    values = ours.value or 0.0, theirs.value or 0.0
    return Labels(len(judged), found, *values, ours.ci, theirs.ci, copied)
