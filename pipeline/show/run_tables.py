"""Owns how run and status print: tables on a terminal, or one JSON object. Not what is in them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.filesize import decimal
from rich.table import Table

from cache.errors import ImagesRejected, PipelineError
from cache.records import RECORD
from pipeline.config import yaml_file
from pipeline.config.head_schema import format_setting
from pipeline.results.model import SHORT
from pipeline.runs import rejects
from pipeline.runs.extraction import ExtractReport
from pipeline.runs.status import Status
from pipeline.runs.sweeps import SweepReport
from pipeline.runs.train_heads import HeadReport
from pipeline.show.console import (
    ERR,
    OUT,
    echo,
    format_config_option,
    format_figure,
    format_interval,
    make_table,
    show_error,
)
from stages.data import splits
from stages.data.manifest import SPLITS
from stages.metrics.figures import title
from stages.runtime.counted_words import count_of
from stages.targets.target import Target

SCHEMA_VERSION = 1
_MOST_CLASSES = 20
_MOST_POINTS = 20
_LONG_S = 10.0
"""Below this, images per second are not shown: most of the time is start-up."""


def show_result(
    command: str,
    result: Mapping[str, Any],
    error: PipelineError | None,
    as_json: bool,
    config: Path | None,
    verbose: bool = False,
    quiet: bool = False,
) -> None:
    """Results to stdout and the error to stderr; as JSON, both in one object on stdout."""
    if as_json:
        failure = {"code": error.code, "message": error.message, "hint": error.hint} if error else None
        head = {"schema_version": SCHEMA_VERSION, "command": command}
        parts = json.loads(json.dumps(result, default=_plain))
        document = {**head, "exit_code": error.exit_code if error else 0, "error": failure, **parts}
        echo(json.dumps(document), whole=True)
        return
    if "extract" in result:
        _show_extract(result["extract"], skip=int(isinstance(error, ImagesRejected)))
    if result.get("heads"):
        _show_heads(result["heads"])
    if result.get("heads") and not quiet and config is not None and _are_first(result["heads"], config):
        config = yaml_file.config_path(config)
        echo(f"\nnext: edit {config} (another size, tap or split) and run again: only what that touches is computed;")
        echo(f"  pipeline status{format_config_option(config)} previews what and why")
    if error:
        show_error(error)


def _plain(value: Any) -> Any:
    """What JSON has for a report or another object: its to_json, a path as text, or its fields."""
    if isinstance(value, Path):
        return str(value)
    return value.to_json() if hasattr(value, "to_json") else vars(value)


def _are_first(heads: Mapping[str, HeadReport | SweepReport], config: Path) -> bool:
    """Whether this run trained all heads that the project has."""
    points = [p for head in heads.values() for p in (head.points.values() if isinstance(head, SweepReport) else [head])]
    records = (config if config.is_dir() else config.parent).glob(f"models/head/*/*/{RECORD}")
    return sum(not point.hit for point in points) == len(list(records))


def _show_extract(report: ExtractReport, skip: int) -> None:
    """The counts, and rejects up to the fifth; the first `skip` are in the error message already."""
    rate = f"{report.images_per_second:.0f} images/s, " if report.seconds >= _LONG_S else ""
    facts = {} if report.part is None else {"part": f"{report.part.number} of {report.part.of}"}
    facts |= {
        "images": f"{report.images:,}" + (f" ({report.unique:,} different)" if report.unique < report.images else ""),
        "computed": f"{report.computed:,}" + (f"   {rate}{report.seconds:.1f} s" if report.seconds else ""),
        "reused": f"{report.reused:,}",
    }
    if report.remote is not None and (taken := report.remote.pulled).shards:
        facts["pulled"] = f"{count_of(taken.shards, 'shard')}, {decimal(taken.bytes)}, from {report.remote.url}"
    if report.remote is not None and (given := report.remote.pushed).shards:
        facts["pushed"] = f"{count_of(given.shards, 'shard')}, {decimal(given.bytes)}, to {report.remote.url}"
    if report.ignored:
        facts["ignored"] = f"{report.ignored:,} other files"
    if report.rejected:
        facts["rejected"] = f"{len(report.rejected):,} (listed in {rejects.file_name(report.part)})"
    table = Table.grid(padding=(0, 2))
    for name, value in facts.items():
        table.add_row(name, value)
    OUT.print(table)
    for reject in report.rejected[skip:5]:
        echo(f"  rejected {reject.path}: {reject.reason}", ERR)


def _show_heads(heads: Mapping[str, HeadReport | SweepReport]) -> None:
    first_metrics = next(iter(heads.values())).metrics
    headline = first_metrics.splits[first_metrics.chosen_on].headline[1:]
    table = make_table("head", "", "split", ">images", *(f"{title(figure)} (95%)" for figure in headline))
    best = {name: head.winner if isinstance(head, SweepReport) else head for name, head in heads.items()}
    for name, head in best.items():
        first = (name, "reused" if head.hit else "trained")
        for split, figures in heads[name].metrics.splits.items():
            shown = [format_interval(figures[name]) for name in headline]
            table.add_row(*first, split, f"{figures.n:,}", *shown)
            first = ("", "")
    OUT.print()
    OUT.print(table)
    if any(head.metrics.judged != "val" for head in best.values()):
        echo("folds: train and val together, each fold judged by heads that were fitted and chosen on the others")
    for split, classes in next(iter(best.values())).lacking.items():
        if classes:
            echo(f"no AUROC on {split}: it has no image of {', '.join(classes[:5])}")
    for name, head in best.items():
        chosen = "".join(f"{field} {format_setting(value)}, " for field, value in head.chosen.items())
        echo(f"{name}: {chosen}key {head.key[:SHORT]}")
    for name, report in heads.items():
        if isinstance(report, SweepReport):
            _show_leaderboard(name, report)


def _show_leaderboard(name: str, report: SweepReport) -> None:
    """The points of a sweep, the best on val or folds first; figures of test are shown for the winner only."""
    own = report.winner.metrics.chosen_on
    ranking, second, third = headline = report.winner.metrics.splits[own].headline
    table = make_table(name, "", f">{own} {title(ranking)}", f">{title(second)}", f">{title(third)}", "key")
    for point, head in report.ranked()[:_MOST_POINTS]:
        values = head.metrics.splits[head.metrics.chosen_on].values
        figures = [values[name] for name in headline]
        table.add_row(point, "reused" if head.hit else "trained", *map(format_figure, figures), head.key[:SHORT])
    for point, lost in list(report.diverged.items())[:_MOST_POINTS]:
        table.add_row(point, "diverged", *map(format_figure, (None, None, None)), lost.key[:SHORT])
    OUT.print()
    OUT.print(table)
    if report.choice is not None:
        echo(
            "figures that rank the points; the best of many flatters itself, so the table above has those of the choice"
        )
    more = sum(max(0, len(points) - _MOST_POINTS) for points in (report.points, report.diverged))
    if more:
        echo(f"and {more} more points (all of them: --json)")


def show_status(status: Status, verbose: bool) -> None:
    table = make_table("stage", "", "", ">to compute", ">about", "~why")
    for s in status.stages:
        costs = [f"{s.seconds:,.0f} s" if s.seconds else "", f"{s.bytes / 1e6:,.1f} MB" if s.bytes else ""]
        work = f"{'at most ' if s.at_most else ''}{s.missing:,} of {s.rows:,}" if s.state != "HIT" else ""
        table.add_row(s.stage, s.name, s.state, work, ", ".join(filter(None, costs)), s.reason)
    OUT.print(table)
    for hint in dict.fromkeys(s.hint for s in status.stages if s.hint):
        of = [f"{s.stage} {s.name}" for s in status.stages if s.hint == hint]
        echo(f"{', '.join(of)}: {hint}", whole=True)
    if status.not_made:
        names = " ".join(status.not_made)
        echo(
            f"not made: {', '.join(f'finetune {name}' for name in status.not_made)} (pipeline run finetune {names})",
            style="dim",
        )
    for s in status.stages if verbose else ():
        for name, (before, now) in s.differences.items():
            echo(f"  {s.stage} {s.name}: {name}: {before} -> {now}")
    if status.counts:
        show_counts(status.counts, status.target, status.unhashed > 0)
    if status.rejected:
        echo(f"\nrejected: {count_of(status.rejected, 'image')} (a run tries again, and lists them in rejects.csv)")
    if status.stops:
        echo("  a run stops after extraction, with exit 3, unless they are repaired or removed, or data.on_bad is skip")
    if status.unhashed:
        echo(f"\nimages in each split: without {status.unhashed:,} files that are not hashed yet (--hash)")


def show_counts(counts: Mapping[str, Mapping[str, int]], target: type[Target], partial: bool = False) -> None:
    table = make_table(target.word, *(f">{split}" for split in SPLITS))
    for label, by_split in list(counts.items())[:_MOST_CLASSES]:
        table.add_row(label, *(f"{by_split[split]:,}" for split in SPLITS))
    OUT.print()
    OUT.print(table)
    if len(counts) > _MOST_CLASSES:
        echo(f"and {len(counts) - _MOST_CLASSES} more {target.noun} (all of them: --json)")
    if (few := splits.describe_few(counts)) and not partial:
        echo(few, ERR)
