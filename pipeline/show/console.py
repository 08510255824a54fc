"""Owns the two consoles, and the format of lines, numbers, paths and tables. Not their content (*_tables.py)."""

import os
import re
import shlex
import sys
import textwrap
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.table import Column, Table
from rich.text import Text

from cache.errors import PipelineError
from stages.metrics.figures import Figure

_CONTROLS = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")

_INNER_LINE_FEEDS = re.compile(r"(?<=[^\n])\n+(?=[^\n])")

_PIPED = 1000
"""Columns where the output is no terminal, so that programs get one line a row; COLUMNS sets another width."""

_WIDTH = None if sys.stdout.isatty() or "COLUMNS" in os.environ else _PIPED
OUT = Console(highlight=False, soft_wrap=True, markup=False, emoji=False, width=_WIDTH)
ERR = Console(
    stderr=True, highlight=False, soft_wrap=True, markup=False, emoji=False,
    width=None if sys.stderr.isatty() or "COLUMNS" in os.environ else _PIPED,
)  # fmt: skip


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
        echo(f"  {error.hint}", ERR, whole=True)


def echo(text: str, console: Console = OUT, style: str | None = None, whole: bool = False, lines: bool = False) -> None:
    """Print a line, or with `lines` several; on a terminal broken between words, or `whole`, as commands and JSON are.

    Control characters, line feeds in names, and file names that are not UTF-8 are escaped.
    """
    text = escape_controls(text) if lines else escape_line(text)
    if not whole:
        fits = ((line, cell_len(line) <= console.width) for line in text.split("\n"))
        text = "\n".join(line if fit else "\n".join(wrap_words(line, console.width)) for line, fit in fits)
    console.print(text, style=style)


def escape_controls(text: str) -> str:
    """Control characters but the line feed, and those that turn the direction of text, as `\\x1b`."""
    whole = text.encode("utf-8", "backslashreplace").decode("utf-8")
    return _CONTROLS.sub(lambda found: ascii(found[0])[1:-1], whole)


def escape_line(text: str) -> str:
    """The same, and line feeds within the text, which a name may have."""
    return _INNER_LINE_FEEDS.sub(lambda found: "\\n" * len(found[0]), escape_controls(text))


class FittingTable(Table):
    """Cuts no cell: text columns are wrapped between words, and where that is too wide each row becomes lines.

    Control characters and line feeds in cells are escaped.
    """

    def add_row(self, *cells: Any, **options: Any) -> None:
        super().add_row(*(escape_controls(str(cell)).replace("\n", "\\n") for cell in cells), **options)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        least = sum(max(map(_least_width(column), [column.header, *column.cells])) + 2 for column in self.columns) - 2
        if least <= options.max_width:
            yield from super().__rich_console__(console, options)
            return
        titles = [str(column.header) for column in self.columns]
        for row in zip(*(column.cells for column in self.columns), strict=True):
            items = [f"{title} {cell}".strip() for title, cell in zip(titles[1:], row[1:], strict=True) if cell]
            yield Text("\n".join(_fill([str(row[0]), *items], options.max_width)), no_wrap=True, overflow="ignore")


def _least_width(column: Column) -> Callable[[RenderableType], int]:
    """The width of a cell of that column, of a text column that of its longest word."""
    if column.no_wrap:
        return lambda cell: cell_len(str(cell))
    return lambda cell: max(map(cell_len, str(cell).split()), default=0)


def _fill(items: Iterable[str], width: int) -> list[str]:
    """Lines of items, each whole unless it is wider than a line, which is then broken between words."""
    first, *others = items
    lines = [first or "  "]
    for item in others:
        joined = f"{lines[-1]}  {item}"
        if cell_len(joined) <= width:
            lines[-1] = joined
        else:
            lines += wrap_words(f"    {item}", width)
    return [line for line in lines if line.strip()]


def wrap_words(line: str, width: int) -> list[str]:
    """The line in lines of that width, broken between words alone, with its indentation and two more columns."""
    indent = " " * (len(line) - len(line.lstrip()))
    return textwrap.wrap(
        line.strip(), width, initial_indent=indent, subsequent_indent=f"{indent}  ", break_long_words=False,
        break_on_hyphens=False,
    )  # fmt: skip


def make_table(*names: str) -> Table:
    """A table without lines; a column `>name` is right-aligned, and one `~name` has text that may be wrapped."""
    table = FittingTable(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for name in map(escape_line, names):
        right, text = name.startswith(">"), name.startswith("~")
        table.add_column(name.lstrip(">~"), justify="right" if right else "left", no_wrap=not text, overflow="fold")
    return table


def relative_path(path: str | Path) -> str:
    """Relative to the current folder, if it is below."""
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative


def format_time(seconds: float) -> str:
    """Local time, to the minute."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds)) if seconds else "-"


def format_config_option(config: Path) -> str:
    """` -c FILE` quoted for a shell; empty for the default."""
    return "" if config == Path("pipeline.yaml") else f" -c {shlex.quote(str(config))}"
