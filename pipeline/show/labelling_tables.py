"""Owns how learning curves and suggestions are printed. Not their numbers."""

from pathlib import Path

from pipeline.labelling.curve import Learned
from pipeline.labelling.replay import LEAST, Replayed
from pipeline.labelling.suggest import Suggested
from pipeline.show.console import OUT, echo, make_table
from stages.labelling.power_law import LEVEL, LOSSES, Ends
from stages.metrics.figures import title
from stages.runtime.counted_words import count_of


def show_curve(found: Learned, picture: Path | None) -> None:
    """A line for each number of images, the forecast below them, and what as many images more would change."""
    of = f", of {count_of(found.groups, 'group')}" if found.groups else ""
    images = f"{count_of(found.images, 'image')} of train and val{of}"
    echo(f"{found.head}, fitted on some of {images}, judged out of fold\n")
    table = make_table(">images", "", *(f">{title(name)} ({LEVEL:.0%})" for name in found.names))
    for kind, points in (("measured", found.measured), ("forecast", found.forecast)):
        for point in points:
            table.add_row(f"{point.images:,}", kind, *(_written(point.figures[name]) for name in found.names))
    OUT.print(table)
    more = found.forecast[-1].images - found.images
    gains = [f"{title(name)} {_signed(ends)}" for name, ends in found.gain.items() if ends is not None]
    if gains:
        echo(f"\n{more:,} images more would change, on the same images: {'; '.join(gains)}")
    else:
        echo("\nno forecast: too many subsets lack a class")
    if picture is not None:
        echo(f"wrote {picture}")


def show_suggestions(found: Suggested, file: Path | None) -> None:
    """The images to label, or their file, and what suggestions saved on the labels that are there."""
    echo(f"{found.model}: {count_of(found.images, 'image')} without a label; "
         f"{found.computed:,} computed, {found.reused:,} reused")  # fmt: skip
    if file is not None:
        echo(f"wrote {count_of(len(found.suggestions), 'suggestion')} to {file}")
    else:
        table = make_table("predicted", ">confidence", "why", "path")
        for one in found.suggestions:
            sure = "-" if one.confidence is None else f"{one.confidence:.3f}"
            table.add_row(one.predicted, sure, one.why, one.path)
        OUT.print(table)
    for n, what in (
        (found.copies, "that look like an image here or in the project"),
        (found.labelled, "that have a label"),
    ):
        if n:
            echo(f"left out: {count_of(n, 'image')} {what}")
    if found.uncompared:
        echo(f"not compared with {count_of(found.uncompared, 'labelled image')}, which have no row or no picture here: "
             "suggestions may look like these")  # fmt: skip
    if found.why_not:
        echo(f"\nwhat suggestions save is not known: {found.why_not}")
    if found.replayed is not None:
        _show_replay(found.replayed)


def _show_replay(found: Replayed) -> None:
    name = title(found.figure)
    values = [errors[-1] if found.figure in LOSSES else 1 - errors[-1] for errors in (found.suggested, found.random)]
    span = f"from {found.labels[0]:,} labels to {found.labels[-1]:,}, judged on {found.judged:,} others"
    both = f"{name} {values[0]:.3f} with suggestions, {values[1]:.3f} at random"
    echo(f"\non your own labels, {count_of(found.replays, 'replay')} {span}: {both}")
    saved, of = round(found.saved.value), f"of {found.labels[-1]:,} labels"
    if found.saved.low is None or found.saved.high is None:
        echo(f"labels saved: {saved:+,} {of}; fewer than {LEAST} replays tell no interval, nor whether that is chance")
        return
    least, most = round(found.saved.low), round(found.saved.high)
    range_of = f"{LEVEL:.0%}: {least:+,} to {most:+,}"
    if least > 0:
        echo(f"suggestions save {saved:,} {of} ({range_of})")
    elif most < 0:
        echo(f"suggestions save nothing here: they cost {-saved:,} labels of {found.labels[-1]:,} ({range_of})")
    else:
        echo(f"suggestions save {saved:+,} {of} ({range_of}): not told from none")


def _written(ends: Ends | None) -> str:
    return "-" if ends is None else f"{ends.value:.3f} ({ends.low:.3f}-{ends.high:.3f})"


def _signed(ends: Ends) -> str:
    return f"{ends.value:+.3f} ({ends.low:+.3f} to {ends.high:+.3f})"
