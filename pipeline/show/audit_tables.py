"""Owns how an audit is printed. Not its findings."""

from collections.abc import Sequence
from pathlib import Path

from pipeline.evaluation.audit_findings import Audit, Copies, Labels, OddOne
from pipeline.show.console import OUT, echo, make_table
from stages.runtime.counted_words import count_of
from stages.targets.target import written

_SHOWN = 10


def show_audit(found: Audit, files: Sequence[Path], full: bool) -> None:
    """The worst findings of each kind, and how many there are. full: whether a file has them all."""
    echo(f"{count_of(found.images, 'image')}, by rows of tap {found.tap}")
    if found.copies is not None:
        _show_copies(found.copies, found.by_class)
    if found.labels is not None:
        _show_labels(found.labels)
    _show_odd_ones(found.odd_ones, "their class" if found.by_class else "the data set")
    for text in found.left_out:
        echo(text)
    lists = found.copies.pairs if found.copies else (), found.labels.suspects if found.labels else (), found.odd_ones
    for path in files:
        echo(f"wrote {path}")
    if not full and max(map(len, lists)) > _SHOWN:
        echo(f"\nthe first {_SHOWN} of each are shown; all of them: -o findings.csv, or --json")


def _show_copies(found: Copies, by_class: bool) -> None:
    n, labels = len(found.pairs), f", {found.of_two_labels:,} with two labels" if by_class else ""
    look, groups = "looks" if n == 1 else "look", count_of(found.groups, "group")
    many = f"{count_of(n, 'pair')} of images {look} like copies, in {groups}"
    echo(f"\n{many}: {found.across_splits:,} across splits{labels}" if n else "\nno two images look like copies")
    table = make_table("image", "split", "label", "copy", "split", "label", ">alike")
    for one in found.pairs[:_SHOWN]:
        cells = (cell for row in (one.image, one.of) for cell in (row.path, row.split or "", _written(row.label)))
        table.add_row(*cells, f"{one.likeness:.4f}")
    if found.pairs:
        OUT.print(table)
    if made := ", ".join(f"{kind} {share:.0%}" for kind, share in found.found_of.items()):
        echo(f"copies made of some of your images are as alike: {made}")


def _show_labels(found: Labels) -> None:
    n = len(found.suspects)
    right, across = f"{found.accuracy:.1%}", f"{found.across_copies:.1%}"
    right += f" ({across} where copies may be in two folds)" if across != right else ""
    what = f"{count_of(n, 'label')} of {found.images:,} {'is' if n == 1 else 'are'} suspect"
    echo(f"\n{what}: heads that never saw the image, right in {right}, confidently say another class")
    table = make_table("image", "split", "label", ">p", "rather", ">p", ">neighbours against", "such as")
    for one in found.suspects[:_SHOWN]:
        image, against = one.image, f"{one.against} of {one.neighbours}"
        table.add_row(image.path, image.split or "", _written(image.label), f"{one.own:.3f}", one.instead,
                      f"{one.other:.3f}", against, next(iter(one.near), ""))  # fmt: skip
    if n:
        OUT.print(table)


def _show_odd_ones(found: Sequence[OddOne], of: str) -> None:
    echo(f"\n{count_of(len(found), 'image')} unlike the rest of {of}")
    table = make_table("image", "split", "label", ">z")
    for one in found[:_SHOWN]:
        table.add_row(one.image.path, one.image.split or "", _written(one.image.label), f"{one.score:.1f}")
    if found:
        OUT.print(table)


def _written(label: str | None) -> str:
    """A label as people read it: of several labels, numbers or shares, each by its name."""
    parts = None if label is None else written(label)
    if parts is None:
        return label or ""
    return ", ".join(_named(name, value) for name, value in parts.items() if value != 0) or "(none)"


def _named(name: str, value: float | None) -> str:
    if value is None:
        return f"{name} ?"
    return name if value == 1 else f"{name} {value:.3g}"
