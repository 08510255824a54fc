"""Owns the two consoles, and the format of lines, numbers, paths and tables. Not their content (*_tables.py)."""

from __future__ import annotations

import os
import re
import shlex
import sys
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from cache.errors import PipelineError
from stages.metrics.figures import Figure

_CONTROLS = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")

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
    """Print lines; what could steer a terminal, and file names that are not UTF-8, are escaped."""
    console.print(escape_controls(text), style=style)


def escape_controls(text: str) -> str:
    """Control characters but the line feed, and those that turn the direction of text, as `\\x1b`."""
    whole = text.encode("utf-8", "backslashreplace").decode("utf-8")
    return _CONTROLS.sub(lambda found: ascii(found[0])[1:-1], whole)


class _EscapingTable(Table):
    """A table whose cells cannot steer a terminal, nor break a row in two."""

    def add_row(self, *cells: Any, **options: Any) -> None:
        super().add_row(*(escape_controls(str(cell)).replace("\n", "\\n") for cell in cells), **options)


def make_table(*names: str) -> Table:
    """A table without lines; a column `>name` is right-aligned."""
    table = _EscapingTable(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for name in map(escape_controls, names):
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
