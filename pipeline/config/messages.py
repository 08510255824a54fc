"""Owns the messages for invalid values in pipeline.yaml: what was expected, what was found. Not where it is."""

import datetime
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic_core import PydanticCustomError

_FIELDS = "fields below it, each as `name: value`"
_WORDS = {
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "dict_type": _FIELDS,
    "finite_number": "a finite number",
    "float_parsing": "a number",
    "float_type": "a number",
    "greater_than": "more than {gt:g}",
    "greater_than_equal": "at least {ge:g}",
    "int_from_float": "a whole number",
    "int_parsing": "a whole number",
    "int_parsing_size": "a smaller whole number",
    "int_type": "a whole number",
    "less_than": "less than {lt:g}",
    "less_than_equal": "at most {le:g}",
    "list_type": "a list",
    "literal_error": "{expected}",
    "model_type": _FIELDS,
    "number_type": "a number",
    "string_type": "text",
    "too_long": "at most {max_length} entries",
    "too_short": "at least {min_length} entry",
    "tuple_type": "a list",
}
"""What was expected, by pydantic's type of an error; its own messages are for programmers."""

_LONGEST = 60
"""Characters of a value that are shown."""


def reject_bool(value: Any) -> Any:
    """The value, unless it is true or false, which pydantic accepts as 1 or 0. YAML reads yes and on as true."""
    if isinstance(value, bool):
        raise PydanticCustomError("number_type", "input should be a number")
    return value


def describe(problems: Sequence[Mapping[str, Any]], written: str | None = None) -> str:
    """What is wrong with one field; `problems` are pydantic's, one for each type that it may have.

    written: the value as it is in the file, if that is known.
    """
    first = problems[0]
    shown = _shown(first["input"], written)
    if first["type"] == "missing":
        return "it is missing, and has no default"
    if first["type"] == "value_error":
        return str(first["msg"]).removeprefix("Value error, ")
    if first["type"] == "unknown_kind" and not isinstance(first["input"], dict):
        return f"expected {_FIELDS}, got {shown}"
    if own := [str(problem["msg"]) for problem in problems if problem["type"] not in _WORDS]:
        return f"{own[0][:1].lower()}{own[0][1:]}, got {shown}"
    expected = [_WORDS[problem["type"]].format_map(problem.get("ctx", {})) for problem in problems]
    return f"expected {' or '.join(dict.fromkeys(expected))}, got {shown}"


def yaml_hint(problems: Sequence[Mapping[str, Any]], written: str | None) -> str:
    """What to do where YAML reads a word as something else; "" elsewhere. Arguments as of `describe`."""
    return next(filter(None, (_hint(problem, written) for problem in problems)), "")


def _hint(problem: Mapping[str, Any], written: str | None) -> str:
    kind, found = problem["type"], problem["input"]
    if kind == "string_type" and isinstance(found, bool):
        return "YAML reads yes, no, on and off as true and false: put the word in quotes"
    if kind == "string_type" and isinstance(found, int | float | datetime.date):
        return f"text that looks like a number or a date is put in quotes: {written or str(found)!r}"
    if kind == "number_type":
        return "YAML reads yes, no, on and off as true and false"
    return ""


def _shown(value: Any, written: str | None) -> str:
    """About as it is in the file; text in quotes, so that an empty one is visible."""
    if isinstance(value, int | float | datetime.date) and written and len(written) <= _LONGEST:
        return written
    if value is None:
        return "nothing"
    text = str(value).lower() if isinstance(value, bool) else repr(value)
    text = str(value) if isinstance(value, datetime.date) else text
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."
