"""console.py: names and labels of others cannot steer a terminal."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from pipeline.show import console

EVIL = "a\x1b]0;owned\x07\x1b[2J\x9b31m\r\tb\u202ec"
SHOWN = r"a\x1b]0;owned\x07\x1b[2J\x9b31m\r\tb\u202ec"


def printed(*parts: object) -> str:
    out = Console(file=io.StringIO(), force_terminal=True, color_system=None, width=200, soft_wrap=True, markup=False)
    for part in parts:
        if isinstance(part, str):
            console.echo(part, out)
        else:
            out.print(part)
    return out.file.getvalue()  # type: ignore[attr-defined]


def test_a_line_is_escaped_and_its_own_line_feeds_stay() -> None:
    assert printed(f"\n{EVIL}") == f"\n{SHOWN}\n"


def test_a_name_with_a_line_feed_does_not_break_a_line() -> None:
    assert printed("\nError: a\nb.png: empty\n") == "\nError: a\\nb.png: empty\n\n"
    assert printed("\n") == "\n\n"
    show = Console(file=io.StringIO(), width=200)
    console.echo("a\nb", show, lines=True)
    assert show.file.getvalue() == "a\nb\n"  # type: ignore[attr-defined]


def test_a_table_is_escaped_in_cells_and_names_and_a_row_is_one_line() -> None:
    table = console.make_table(f">{EVIL}", "other")
    table.add_row(EVIL, "two\nlines")
    lines = [line.split() for line in printed(table).splitlines()]
    assert lines == [[SHOWN, "other"], [SHOWN, r"two\nlines"]]


@pytest.mark.parametrize("text", ["Émile 東京 🐦 \u200d", "-1 '=x", "\\x1b"])
def test_other_text_is_printed_as_it_is(text: str) -> None:
    assert console.escape_controls(text) == text


def test_a_name_that_is_not_utf_8_is_escaped() -> None:
    assert console.escape_controls("a\udcff") == r"a\udcff"
