"""Owns how an audit is printed. Not its findings."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from pipeline.evaluation.audit_findings import (
    Audit,
    Copies,
    Copy,
    Labels,
    OddOne,
    OddPicture,
    Shortcut,
)
from pipeline.show.console import OUT, echo, format_interval, make_table
from stages.metrics.figures import Figure, title
from stages.runtime.counted_words import count_of
from stages.targets.target import describe_label

_SHOWN = 10


def show_audit(found: Audit, files: Sequence[Path], full: bool) -> None:
    """The worst findings of each kind, and how many there are. full: whether a file has them all."""
    sample = f", a random sample of {found.of:,}" if found.of > found.images else ""
    echo(f"{count_of(found.images, 'image')}{sample}, by rows of tap {found.tap}")
    if found.identical:
        many, are = count_of(len(found.identical), "pair"), "is" if len(found.identical) == 1 else "are"
        echo(f"\n{many} of files {are} the same byte for byte, under two labels or in two splits")
        _show_pairs(found.identical)
    if found.copies is not None:
        _show_copies(found.copies, found.by_class)
    if found.labels is not None:
        _show_labels(found.labels)
    if (one := found.out_of_fold) is not None:
        apart, across = format_interval(Figure(one.value, one.ci)), Figure(one.across_copies, one.across_copies_ci)
        folds = f"{apart} with copies in one fold, {format_interval(across)} where they may be in two"
        echo(f"\n{title(one.figure)} out of fold, of {count_of(one.images, 'image')}: {folds}")
    _show_odd_ones(found.odd_ones, "their class" if found.by_class else "the data set")
    if found.odd_pictures is not None:
        _show_odd_pictures(found.odd_pictures)
    if found.shortcuts is not None:
        _show_shortcuts(found.shortcuts)
    for text in found.left_out:
        echo(text)
    lists = found.identical, found.copies.pairs if found.copies else (), found.odd_ones, found.odd_pictures or ()
    most = max(map(len, (*lists, found.labels.suspects if found.labels else ())))
    for path in files:
        echo(f"wrote {path}")
    if not full and most > _SHOWN:
        echo(f"\nthe first {_SHOWN} of each are shown; all of them: -o findings.csv, or --json")


def _show_copies(found: Copies, by_class: bool) -> None:
    n, labels = len(found.pairs), f", {found.of_two_labels:,} with two labels" if by_class else ""
    look, groups = "looks" if n == 1 else "look", count_of(found.groups, "group")
    many = f"{count_of(n, 'pair')} of images {look} like copies, in {groups}"
    echo(f"\n{many}: {found.across_splits:,} across splits{labels}" if n else "\nno two images look like copies")
    _show_pairs(found.pairs)
    if made := ", ".join(f"{kind} {share:.0%}" for kind, share in found.found_of.items()):
        echo(f"copies made of some of your images are as alike: {made}")


def _show_pairs(pairs: Sequence[Copy]) -> None:
    table = make_table("image", "split", "label", "copy", "split", "label", ">alike")
    for one in pairs[:_SHOWN]:
        cells = (cell for row in (one.image, one.of) for cell in (row.path, row.split or "", describe_label(row.label)))
        table.add_row(*cells, f"{one.likeness:.4f}")
    if pairs:
        OUT.print(table)


def _show_labels(found: Labels) -> None:
    n = len(found.suspects)
    right = format_interval(Figure(found.accuracy, found.accuracy_ci))
    what = f"{count_of(n, 'label')} of {found.images:,} {'is' if n == 1 else 'are'} suspect"
    echo(f"\n{what}: heads that never saw the image, right in {right}, confidently say another class")
    if found.copied:
        across = format_interval(Figure(found.across_copies, found.across_copies_ci))
        echo(f"accuracy out of fold: {right} with copies in one fold, {across} where they may be in two")
    table = make_table("image", "split", "label", ">p", "rather", ">p", ">neighbours against", "such as")
    for one in found.suspects[:_SHOWN]:
        image, against = one.image, f"{one.against} of {one.neighbours}"
        table.add_row(image.path, image.split or "", describe_label(image.label), f"{one.own:.3f}", one.instead,
                      f"{one.other:.3f}", against, next(iter(one.near), ""))  # fmt: skip
    if n:
        OUT.print(table)


def _show_odd_ones(found: Sequence[OddOne], of: str) -> None:
    echo(f"\n{count_of(len(found), 'image')} unlike the rest of {of}")
    table = make_table("image", "split", "label", ">z")
    for one in found[:_SHOWN]:
        table.add_row(one.image.path, one.image.split or "", describe_label(one.image.label), f"{one.score:.1f}")
    if found:
        OUT.print(table)


def _show_odd_pictures(found: Sequence[OddPicture]) -> None:
    many, are = count_of(len(found), "picture"), "is" if len(found) == 1 else "are"
    echo(f"\n{many} {are} odd as such" if found else "\nno picture is odd as such")
    table = make_table("image", "split", "label", "is", "~found")
    for one in _first_of_each(found):
        table.add_row(one.image.path, one.image.split or "", describe_label(one.image.label), one.kind, one.found)
    if found:
        OUT.print(table)


def _first_of_each(found: Sequence[OddPicture]) -> Sequence[OddPicture]:
    """_SHOWN of them, the first of each kind before the second of any."""
    seen = Counter[str]()
    ranked = []
    for one in found:
        ranked.append((seen[one.kind], one))
        seen[one.kind] += 1
    chosen = {id(one) for _, one in sorted(ranked, key=lambda pair: pair[0])[:_SHOWN]}
    return [one for one in found if id(one) in chosen]


def _show_shortcuts(found: Sequence[Shortcut]) -> None:
    echo("" if found else "\nsize, format and the like do not tell the class")
    for one in found:
        accuracy = format_interval(Figure(one.accuracy, one.accuracy_ci))
        echo(f"the class can be told from {one.by} alone: accuracy {accuracy}, most frequent class {one.majority:.3f}")
