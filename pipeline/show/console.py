"""Owns the two consoles, and the format of lines, numbers, paths and tables. Not their content (*_tables.py)."""

from __future__ import annotations

import os
import shlex
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from cache.errors import PipelineError
from stages.metrics.figures import Figure

OUT = Console(highlight=False, soft_wrap=True, markup=False, emoji=False, width=None if sys.stdout.isatty() else 160)
ERR = Console(stderr=True, highlight=False, soft_wrap=True, markup=False, emoji=False)


def format_figure(value: float | None) -> str:
    """Three digits, or a dash."""
    return "-" if value is None else f"{value:.3f}"


def format_interval(figure: Figure) -> str:
    """`0.858 (0.823-0.891)`; the value alone where there is no interval."""
    if figure.value is None or figure.ci is None:
        return format_figure(figure.value)
    low, high = figure.ci
    return f"{figure.value:.3f} ({low:.3f}{' to ' if low < 0 else '-'}{high:.3f})"


def show_error(error: PipelineError) -> None:
    echo(f"Error: {error.message}", ERR, style="red")
    if error.hint:
        echo(f"  {error.hint}", ERR)


def echo(text: str, console: Console = OUT, style: str | None = None) -> None:
    """Print a line; file names that are not UTF-8 are escaped."""
    console.print(text.encode("utf-8", "backslashreplace").decode("utf-8"), style=style)


def make_table(*names: str) -> Table:
    """A table without lines; a column `>name` is right-aligned."""
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for name in names:
        table.add_column(name.removeprefix(">"), justify="right" if name.startswith(">") else "left")
    return table


def relative_path(path: str | Path) -> str:
    """Relative to the current folder, if it is below."""
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative


def format_time(seconds: float) -> str:
    """Local time, to the minute."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds)) if seconds else "-"


def count_of(n: int, word: str) -> str:
    """`1 shard`, `2,624 shards`."""
    return f"{n:,} {word}{'' if n == 1 else 's'}"


def format_config_option(config: Path) -> str:
    """` -c FILE` quoted for a shell; empty for the default."""
    return "" if config == Path("pipeline.yaml") else f" -c {shlex.quote(str(config))}"
