"""Owns how fine-tuning looks to a person: the frozen head, the model, and the difference. Not what is in it."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import Any

from pipeline.runs.finetune_report import FineTuneReport
from pipeline.show.console import OUT, echo, format_figure, format_interval, make_table, relative_path
from pipeline.show.evaluation_tables import format_difference

_FIGURES = ("accuracy", "auroc")


def show_finetune(reports: Mapping[str, FineTuneReport]) -> None:
    """For each, the seed that is best on val; then all seeds together, if there are several."""
    for name, report in reports.items():
        best = report.winner
        show_gain(name, best.metrics)
        if len(report.seeds) > 1:
            _show_seeds(report)
        if "start" in best.metrics:  # an older model has none
            gap = best.metrics["start"]["difference"]
            echo(f"before training it said what the frozen head says of val, to within {gap:.1e}")
        for seed, one in report.seeds.items():
            if one.note:
                echo(f"{name}{f', seed {seed}' if len(report.seeds) > 1 else ''}: {one.note}")
        echo(f"{name}: {'reused' if best.hit else f'trained in {best.seconds:.0f} s'}; {relative_path(best.path)}")


def show_gain(name: str, metrics: Mapping[str, Any]) -> None:
    """The frozen head, the model, and the difference on the same images."""
    table = make_table(name, "split", ">images", "accuracy (95%)", "AUROC (95%)")
    parts = metrics["baseline"], metrics, metrics["difference"]
    for split in ("val", "test"):
        n = f"{metrics[split]['n']:,}"
        for title, figures in zip(("frozen head", "fine-tuned", "difference"), parts, strict=True):
            cells = [
                format_difference(figures[split][metric])
                if title == "difference"
                else format_interval(figures[split], metric)
                for metric in _FIGURES
            ]
            table.add_row(title, split, n, *cells)
    echo("")
    OUT.print(table)


def _show_seeds(report: FineTuneReport) -> None:
    """Each seed, and mean and standard deviation over them; the one above is the best on val."""
    titles = (f">{split} {name}" for split in ("val", "test") for name in ("accuracy", "AUROC"))
    table = make_table("seed", ">epoch", *titles, "key")
    rows = []
    for seed, one in report.seeds.items():
        rows.append([one.metrics[split][name] for split in ("val", "test") for name in _FIGURES])
        table.add_row(f"{seed}", f"{one.epoch}", *map(format_figure, rows[-1]), one.key[:12])
    spread = [
        f"{statistics.mean(values):.3f} +- {statistics.stdev(values):.3f}" if None not in values else "-"
        for values in zip(*rows, strict=True)
    ]
    table.add_row("mean", "", *spread, "")
    OUT.print(table)
