"""Owns the tables of figures: of a model, of two, of folds, of a fine-tuning. Not computing them."""

import statistics
import sys
from collections.abc import Mapping
from typing import Any

from pipeline.evaluation import cost
from pipeline.evaluation.compare import Comparison
from pipeline.evaluation.crossval import OutOfFold
from pipeline.evaluation.quantise import TURN, Quantised
from pipeline.evaluation.shortlist import Shortlist
from pipeline.results.model import SHORT
from pipeline.runs.finetune_report import Beside, FineTuneReport
from pipeline.show.console import OUT, echo, format_figure, format_interval, make_table, relative_path
from stages.metrics import calibration
from stages.metrics.figures import Calibration, Figure, Figures, Metrics, title
from stages.runtime.counted_words import count_of

_MOST_CLASSES = 20
_MOST_GROUPS = 10


def show_metrics(metrics: Metrics) -> None:
    """Figures of val and test, what was calibrated, classes and groups of test; an older model has fewer."""
    splits = metrics.splits
    table = make_table("", *(f">{split} (95%)" for split in splits))
    table.add_row("images", *(f"{found.n:,}" for found in splits.values()))
    for name in next(iter(splits.values())).values:
        if all(name in found.values for found in splits.values()):
            table.add_row(name, *(format_interval(found[name]) for found in splits.values()))
    OUT.print(table)
    groups = {split: len(found.details.get("per_group", ())) for split, found in splits.items()}
    if any(groups.values()):
        echo(f"intervals are over groups, {' and '.join(f'{n:,} in {split}' for split, n in groups.items())}")
    if metrics.calibration is not None:
        _show_calibration(metrics.calibration, splits)
    split = "test" if splits["test"].n else metrics.chosen_on
    of_class, of_group = (splits[split].details.get(part, {}) for part in ("per_class", "per_group"))
    worst = dict(sorted(of_group.items(), key=lambda item: (item[1]["accuracy"], item[0])))
    _show_parts("class", "classes", split, of_class, ("support", "precision", "recall", "f1", "auroc"), _MOST_CLASSES)
    for of, names in (("label", ("support", "known", "ap", "auroc", "f1")), ("number", ("n", "mae", "rmse", "r2"))):
        _show_parts(of, f"{of}s", split, splits[split].details.get(f"per_{of}", {}), names, _MOST_CLASSES)
    _show_parts("group", "groups, with fewer mistakes", split, worst, ("n", "accuracy"), _MOST_GROUPS)


def show_comparison(found: Comparison) -> None:
    """The rows, the figures of both models and their difference, and McNemar's test."""
    echo(f"A  {found.a}")
    echo(f"B  {found.b}\n")
    which = "that are in the train or val set of neither"
    if found.out_of_fold:
        which = "of train and val, predicted by heads that were not fitted on their fold, as no others are left"
    echo(f"{found.images:,} images {which}" + (f", of {found.groups:,} groups" if found.groups else ""))
    for reason, n in found.dropped.items():
        echo(f"dropped {n:,} {reason}")
    for side, command in found.hints.items():
        echo(f"  rows for {side}: {command}")
    echo("")
    table = make_table("", ">A (95%)", ">B (95%)", ">B - A (95%)")
    for name, difference in found.difference.figures.items():
        table.add_row(name, *(format_interval(side[name]) for side in found.figures), format_difference(difference))
    OUT.print(table)
    if test := found.difference.mcnemar:
        echo(f"\nright where the other is wrong: A {test['only_a']:,}, B {test['only_b']:,}")
        echo(f"exact McNemar: p = {test['p_value']:.2g}")
    if found.groups:
        too_low = "; McNemar's test assumes independent images, so its p is too low" if test else ""
        echo(f"intervals are over groups{too_low}")


def show_crossval(heads: Mapping[str, OutOfFold]) -> None:
    """Several heads, the best first; then for each all rows together and each fold."""
    headline = next(iter(heads.values())).metrics.headline
    if len(heads) > 1:
        table = make_table("head", *(f">{title(figure)} (95%)" for figure in headline))
        for name, found in sorted(heads.items(), key=lambda item: item[1].metrics.rank):
            table.add_row(name, *(format_interval(found.metrics[figure]) for figure in headline))
        OUT.print(table)
        echo("")
    for name, found in heads.items():
        rows = f"{found.images:,} images of {' and '.join(found.splits)}"
        rows += f", of {found.groups:,} groups" if found.groups else ""
        echo(f"{name}: {rows}, in {len(found.per_fold)} folds\n")
        table = make_table("", ">out of fold (95%)")
        for figure in found.metrics.values:
            table.add_row(figure, format_interval(found.metrics[figure]))
        OUT.print(table)
        echo("")
        table = make_table("fold", ">images", *(f">{title(figure)}" for figure in headline[1:]))
        for number, of in enumerate(found.per_fold, start=1):
            table.add_row(str(number), f"{of.n:,}", *map(format_figure, of.values.values()))
        OUT.print(table)
        echo("")


def show_shortlist(found: Shortlist) -> None:
    """All candidates, the best first, with what their rows of all images take, and the one to take."""
    echo(f"a {found.classes.linear} head on {found.images:,} labelled images of train and val, out of fold\n")
    every = f"{found.all_images:,} images"
    ranking, second, third = headline = found.choice.headline
    titles = (f">{title(ranking)} (95%)", f">{title(second)} (95%)", f">{title(third)}")
    table = make_table("base", ">size", "~tap", *titles, f">s for {every}", ">MB", "pick")
    for one in found.candidates:
        both = [format_interval(one.figures[name]) for name in (ranking, second)]
        cells = [*both, format_figure(one.figures.values[third]), f"{one.seconds:,.1f}", f"{one.bytes / 1e6:,.1f}"]
        marks = "*" if one is found.pick else ""
        table.add_row(one.base, str(one.size), f"{one.tap.layer} {one.tap.pooling}", *cells, marks)
    OUT.print(table)
    first = found.pick is found.candidates[0]
    why = "the first" if first else "the fastest that is within a standard error of the first"
    echo(f"\n* is {why}. In pipeline.yaml, extract: {{taps: {{pooled: {found.setting}}}}}; to try it:")
    echo(f"pipeline run --set 'extract.taps.pooled={found.setting}'", whole=True)
    figures = ", ".join(f"{title(name)} {format_interval(found.choice[name])}" for name in headline)
    echo(f"the first of {len(found.candidates)} flatters itself; by images that took no part in the choice: {figures}")


def show_quantised(found: Quantised) -> None:
    """What was tried, the speeds, the head in either arithmetic, and the file."""
    table = make_table(">layers in f32", ">least cosine", ">mean", ">accuracy f32", ">int8", ">difference (95%)")
    for one in found.tried:
        cells = [f"{one.kept} of {found.layers}", f"{one.least:.3f}", f"{one.mean:.4f}"]
        if one.judged is not None:
            accuracy = (format_figure(figures.values["accuracy"]) for figures in one.judged.figures.values())
            cells += [*accuracy, format_difference(one.judged.difference["accuracy"], 4)]
        table.add_row(*cells, *("",) * (6 - len(cells)))
    OUT.print(table)
    if found.chosen.judged is None:
        few = f"{found.labelled:,} images or groups with a class are too few to tell half a point of accuracy"
        echo(f"\n{few}, which takes {cost.LEAST_JUDGED:,}; so a mean cosine of {TURN} was asked for")
    else:
        judged = found.chosen.judged
        auroc = format_difference(judged.difference["auroc"], 4)
        echo(f"\na logistic head on {judged.images:,} images of train and val, out of fold; AUROC: {auroc}")
    speeds = ", ".join(f"{name} {speed:,.0f}" for name, speed in found.speeds.items())
    slower = "; int8 is no faster here" if found.speeds["int8"] <= found.speeds["f32"] else ""
    echo(f"forward passes, images/s in turns: {speeds}{slower}")
    versions = ", ".join(f"{name} {version}" for name, version in found.versions.items())
    height, width = found.size
    echo(f"calibrated on {found.pictures:,} images by {versions}; made again, it may have other bytes")
    echo(f"{found.path}: {found.base} at {height} x {width}, SHA-256 {found.sha256}")
    echo(f"in pipeline.yaml: base: {found.path}", whole=True)


def show_predictions(found: Mapping[str, Any]) -> None:
    """The table as CSV, or the path of its file."""
    if "csv" in found:
        sys.stdout.buffer.write(found["csv"])
    else:
        echo(f"{found['images']:,} images: {found['path']}")


def show_files(found: Mapping[str, list[str]]) -> None:
    for path in found["files"]:
        echo(relative_path(path))


def format_difference(difference: Figure, digits: int = 3) -> str:
    """`+0.013 (-0.002 to +0.027)`."""
    if difference.value is None:
        return "-"
    ends = [f"{end:+.{digits}f}" for end in difference.ci or ()]
    return f"{difference.value:+.{digits}f}" + (f" ({ends[0]} to {ends[1]})" if ends else "")


def _show_calibration(found: Calibration, before: Mapping[str, Figures]) -> None:
    for note in (*(found.notes or ()), *calibration.describe_limits(found)):
        echo(f"\n{note}")
    if found.temperature is not None:
        echo(f"\ncalibrated on {next(iter(before))}: logits / {found.temperature:.3f}")
        table = make_table("", *(title for split in before for title in (f">{split}", ">calibrated")))
        for name in ("log_loss", "brier", "ece"):
            pairs = [(figures.values[name], found.splits[split].values[name]) for split, figures in before.items()]
            table.add_row(name, *(format_figure(value) for pair in pairs for value in pair))
        OUT.print(table)
    if found.thresholds is not None:
        _show_thresholds(found, before)
    if found.half_widths is not None:
        widths = ", ".join(f"{name} +- {half:.3g}" for name, half in found.half_widths.items())
        covered = ", ".join(f"{split} {format_figure(found.splits[split].values['coverage'])}" for split in before)
        echo(f"\n95 % prediction interval, fitted on {next(iter(before))}: {widths}; share inside: {covered}")
    if found.threshold is not None:
        best = found.threshold_maximises.replace("_", " ")
        echo(f"\nthreshold with the best {best} on {next(iter(before))}: {found.threshold:.3f}")
        table = make_table("", *(f">{split}" for split in before))
        at = [found.splits[split].details["at_threshold"] for split in before]
        for name in ("accuracy", "balanced_accuracy", "f1"):
            table.add_row(name, *(format_figure(figures[name]) for figures in at))
        OUT.print(table)


def _show_thresholds(found: Calibration, before: Mapping[str, Figures]) -> None:
    """Of each label, and the figures with all of them."""
    limits = list((found.thresholds or {}).items())
    more = f" and {len(limits) - _MOST_CLASSES:,} more" if len(limits) > _MOST_CLASSES else ""
    shown = ", ".join(f"{name} {limit:.3f}" for name, limit in limits[:_MOST_CLASSES])
    echo(f"\nthresholds with the best F1 on {next(iter(before))}: {shown}{more}")
    table = make_table("", *(f">{split}" for split in before))
    at = [found.splits[split].details["at_threshold"] for split in before]
    for name in at[0]:
        table.add_row(name, *(format_figure(figures[name]) for figures in at))
    OUT.print(table)


def _show_parts(
    kind: str, others: str, split: str, parts: Mapping[str, Mapping[str, Any]], columns: tuple[str, ...], most: int
) -> None:
    """A row for each class or group; `columns` are fields of its figures, the first the number of its images."""
    if not parts:
        return
    count, *names = columns
    table = make_table(f"{kind} ({split})", ">images", *(f">{'AUROC' if name == 'auroc' else name}" for name in names))
    for part, figures in list(parts.items())[:most]:
        cells = (f"{x:,}" if isinstance(x, int) else format_figure(x) for x in (figures[name] for name in names))
        table.add_row(part, f"{figures[count]:,}", *cells)
    echo("")
    OUT.print(table)
    if len(parts) > most:
        echo(f"and {len(parts) - most:,} more {others} (all of them: --json)")


def show_finetune(reports: Mapping[str, FineTuneReport]) -> None:
    """For each the average, or else the best seed on val; then all seeds, if there are several."""
    for name, report in reports.items():
        best = report.winner
        show_gain(name, best.metrics, report.pooled)
        if len(report.seeds) > 1 or report.average:
            _show_seeds(report)
        if best.metrics.start is not None:  # an older model has none
            gap = f"{best.metrics.start:.1e}"
            echo(f"before training, its predictions of val differed from the frozen head's by at most {gap}")
        for seed, one in report.seeds.items():
            if one.note:
                echo(f"{name}{f', seed {seed}' if len(report.seeds) > 1 else ''}: {one.note}")
        how = "reused" if best.hit else f"{'averaged' if report.average else 'trained'} in {best.seconds:.0f} s"
        what = f"epoch {best.epoch}"
        if report.average:
            seeds, views = (count_of(n, word) for n, word in ((len(report.seeds), "seed"), (best.views, "view")))
            what = f"the mean of {seeds} and {views} of an image"
        echo(f"{name}: {how}; {what}, key {best.key[:SHORT]}")


def show_gain(name: str, metrics: Metrics, pooled: Beside | None = None) -> None:
    """The frozen head, the model, and the difference on the same images; on test also the head of train and val."""
    shown = metrics.splits[metrics.chosen_on].headline[1:]
    table = make_table(name, "split", ">images", *(f"{title(figure)} (95%)" for figure in shown))
    for split, tuned in metrics.splits.items():
        where = (f"{split} (chosen on)" if split == metrics.chosen_on else split, f"{tuned.n:,}")
        gaps = metrics.difference[split].figures
        table.add_row("frozen head", *where, *(format_interval(metrics.baseline[split][name]) for name in shown))
        table.add_row("fine-tuned", *where, *(format_interval(tuned[name]) for name in shown))
        table.add_row("difference", *where, *(format_difference(gaps[name]) for name in shown))
        if split == "test" and pooled:
            gaps = pooled.difference.figures
            table.add_row("head of train+val", *where, *(format_interval(pooled.test[name]) for name in shown))
            table.add_row("difference", *where, *(format_difference(gaps[name]) for name in shown))
    echo("")
    OUT.print(table)


def _show_seeds(report: FineTuneReport) -> None:
    """Each seed, the mean and standard deviation over them, and the average of what they say."""
    shown = report.winner.metrics.splits["val"].headline[1:]
    titles = (f">{split} {title(name)}" for split in ("val", "test") for name in shown)
    table = make_table("seed", ">epoch", *titles, "key")
    rows = []
    for seed, one in report.seeds.items():
        rows.append([figures.values[name] for figures in one.metrics.splits.values() for name in shown])
        table.add_row(f"{seed}", f"{one.epoch}", *map(format_figure, rows[-1]), one.key[:SHORT])
    spread = [
        f"{statistics.mean(values):.3f} +- {statistics.stdev(values):.3f}" if None not in values else "-"
        for values in zip(*rows, strict=True)
        if len(rows) > 1
    ]
    if spread:
        table.add_row("mean", "", *spread, "")
    if report.average:
        found = [figures.values[name] for figures in report.average.metrics.splits.values() for name in shown]
        table.add_row("average", "", *map(format_figure, found), report.average.key[:SHORT])
    OUT.print(table)
