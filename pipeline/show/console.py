"""Owns the two consoles, and the format of lines, numbers, paths and tables. Not their content (*_tables.py)."""

from __future__ import annotations

import os
import shlex
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from cache.errors import PipelineError

OUT = Console(highlight=False, soft_wrap=True, markup=False, emoji=False, width=None if sys.stdout.isatty() else 160)
ERR = Console(stderr=True, highlight=False, soft_wrap=True, markup=False, emoji=False)


def format_figure(value: float | None) -> str:
    """Three digits, or a dash."""
    return "-" if value is None else f"{value:.3f}"


def format_interval(figures: Mapping[str, Any], name: str) -> str:
    """`0.858 (0.823-0.891)`; the value alone where there is no interval (metrics of older versions)."""
    value, interval = figures[name], figures.get("ci", {}).get(name)
    if value is None:
        return "-"
    separator = " to " if interval and interval[0] < 0 else "-"
    return f"{value:.3f}" + (f" ({interval[0]:.3f}{separator}{interval[1]:.3f})" if interval else "")


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
