"""Owns the tables of fine-tuning: the frozen head, the model, and the difference. Not computing them."""

from __future__ import annotations

import statistics
from collections.abc import Mapping

from pipeline.results.model import SHORT
from pipeline.runs.finetune_report import FineTuneReport
from pipeline.show.console import OUT, echo, format_figure, format_interval, make_table
from pipeline.show.evaluation_tables import format_difference
from stages.metrics.figures import Metrics

_FIGURES = ("accuracy", "auroc")


def show_finetune(reports: Mapping[str, FineTuneReport]) -> None:
    """For each the best seed on val; then all seeds, if there are several."""
    for name, report in reports.items():
        best = report.winner
        show_gain(name, best.metrics)
        if len(report.seeds) > 1:
            _show_seeds(report)
        if best.metrics.start is not None:  # an older model has none
            gap = f"{best.metrics.start:.1e}"
            echo(f"before training, its probabilities of val differed from the frozen head's by at most {gap}")
        for seed, one in report.seeds.items():
            if one.note:
                echo(f"{name}{f', seed {seed}' if len(report.seeds) > 1 else ''}: {one.note}")
        how = "reused" if best.hit else f"trained in {best.seconds:.0f} s"
        echo(f"{name}: {how}; epoch {best.epoch}, key {best.key[:SHORT]}")


def show_gain(name: str, metrics: Metrics) -> None:
    """The frozen head, the model, and the difference on the same images."""
    table = make_table(name, "split", ">images", "accuracy (95%)", "AUROC (95%)")
    for split, tuned in metrics.splits.items():
        for title, figures in (("frozen head", metrics.baseline[split]), ("fine-tuned", tuned)):
            table.add_row(title, split, f"{tuned.n:,}", *(format_interval(figures[name]) for name in _FIGURES))
        gaps = metrics.difference[split].figures
        table.add_row("difference", split, f"{tuned.n:,}", *(format_difference(gaps[name]) for name in _FIGURES))
    echo("")
    OUT.print(table)


def _show_seeds(report: FineTuneReport) -> None:
    """Each seed, and the mean and standard deviation over them."""
    titles = (f">{split} {name}" for split in ("val", "test") for name in ("accuracy", "AUROC"))
    table = make_table("seed", ">epoch", *titles, "key")
    rows = []
    for seed, one in report.seeds.items():
        rows.append([figures.values[name] for figures in one.metrics.splits.values() for name in _FIGURES])
        table.add_row(f"{seed}", f"{one.epoch}", *map(format_figure, rows[-1]), one.key[:SHORT])
    spread = [
        f"{statistics.mean(values):.3f} +- {statistics.stdev(values):.3f}" if None not in values else "-"
        for values in zip(*rows, strict=True)
    ]
    table.add_row("mean", "", *spread, "")
    OUT.print(table)
