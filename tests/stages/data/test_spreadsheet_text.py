"""spreadsheet_text.py: no cell is a formula, and every text comes back."""

from __future__ import annotations

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.data.spreadsheet_text import escape_formula, unescape_formula


@given(st.text(alphabet=st.sampled_from("'=+-@\t\r1.e|aé"), max_size=6) | st.text())
def test_every_text_comes_back_and_none_begins_a_formula(text: str) -> None:
    written = escape_formula(text)
    assert unescape_formula(written) == text
    assert written[:1] not in tuple("=@\t\r")
    if written[:1] in tuple("+-"):
        float(written)


@pytest.mark.parametrize(
    ("text", "written"),
    [("=cmd|' /C calc'!A0", "'=cmd|' /C calc'!A0"), ("@SUM(A1)", "'@SUM(A1)"), ("-x.jpg", "'-x.jpg"), ("-1", "-1"),
     ("+1.5e3", "+1.5e3"), ("'=x", "''=x"), ("'quoted'", "'quoted'"), ("cat", "cat"), ("", "")],
)  # fmt: skip
def test_what_is_written(text: str, written: str) -> None:
    assert escape_formula(text) == written
    out = io.StringIO(newline="")
    csv.writer(out).writerow([written])
    assert unescape_formula(next(csv.reader(io.StringIO(out.getvalue(), newline="")))[0] if text else "") == text
