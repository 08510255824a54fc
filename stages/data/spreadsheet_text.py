"""Owns texts in CSV files that a spreadsheet would take for formulas: how they are written and read. Not the files.

A text that begins with = + - @ tab or return is written with an apostrophe before it, unless it is a number; so is one
that begins with apostrophes and then one of these. Reading takes that one apostrophe away, so every text comes back.
"""

import re

_FORMULA = re.compile(r"'*[=+\-@\t\r]")
_ESCAPED = re.compile(r"'+[=+\-@\t\r]")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


def escape_formula(text: str) -> str:
    """As it is written to a CSV file."""
    return f"'{text}" if _FORMULA.match(text) and not _NUMBER.fullmatch(text) else text


def unescape_formula(text: str) -> str:
    """As it was before `escape_formula`."""
    return text[1:] if text.startswith("'") and _ESCAPED.match(text) else text
