"""Owns how an audit is printed. Not its findings."""

from pathlib import Path

from pipeline.evaluation.audit import Audit
from pipeline.show.console import OUT, count_of, echo, make_table

_SHOWN = 10


def show_audit(found: Audit, output: Path | None) -> None:
    """The worst findings of each kind, and how many there are."""
    echo(f"{count_of(found.images, 'image')}, by rows of tap {found.tap}")
    if found.judged:
        wrong = found.wrong_labels
        many = (
            f"{count_of(len(wrong), 'label')} of {found.judged:,} {'is' if len(wrong) == 1 else 'are'} probably wrong"
        )
        echo(f"\n{many}, by heads that never saw the image and are right in {found.accuracy:.1%}")
        table = make_table("image", "split", "label", ">p", "rather", ">p", ">neighbours against", "such as")
        for one in wrong[:_SHOWN]:
            probabilities = f"{one.own:.3f}", f"{one.other:.3f}"
            against = f"{one.against} of {one.neighbours}"
            label, near = one.image.label or "", one.near[0] if one.near else ""
            table.add_row(
                one.image.path,
                one.image.split or "",
                label,
                probabilities[0],
                one.instead,
                probabilities[1],
                against,
                near,
            )
        if wrong:
            OUT.print(table)
    odd = found.odd_ones
    echo(f"\n{count_of(len(odd), 'image')} unlike the others of {'the same class' if found.judged else 'the data set'}")
    table = make_table("image", "split", "label", ">z")
    for image, score in ((one.image, one.score) for one in odd[:_SHOWN]):
        table.add_row(image.path, image.split or "", image.label or "", f"{score:.1f}")
    if odd:
        OUT.print(table)
    for text in found.left_out:
        echo(text)
    if output is not None:
        echo(f"\nwrote {output}")
    elif max(len(found.wrong_labels), len(odd)) > _SHOWN:
        echo(f"\nthe first {_SHOWN} of each are shown; all of them: -o findings.csv, or --json")
