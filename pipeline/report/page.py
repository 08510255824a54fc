"""Owns a page as one file: templates, escaping, what it may load and run. Not what its sections say."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.show.console import escape_controls, format_figure, format_interval, format_time
from stages.metrics.figures import title
from stages.runtime.counted_words import count_of

_TEMPLATES = Path(__file__).parent / "templates"
_LONGEST = 80
"""Characters of a name that are shown; of longer ones, the middle is left out."""

_KEY = re.compile(rb'<meta name="frozenbase-report" content="([0-9a-f]{64}|incomplete)">')
_HEAD_BYTES = 4096
"""What the key of a page is looked for in."""


@dataclass(frozen=True)
class Section:
    """A part of a page. template: the file of its HTML, which gets `content`; notes: what was left out, and why.

    passing: whether that may be otherwise next time, though nothing changed: weights or files that were not here.
    """

    id: str
    title: str
    template: str = ""
    content: Mapping[str, Any] = field(default_factory=dict)
    notes: Sequence[str] = ()
    passing: bool = False


def render(key: str, heading: Mapping[str, Any], sections: Sequence[Section], data: Mapping[str, Any]) -> bytes:
    """The page: UTF-8, with all that it shows inside; its key is `incomplete` where a section may yet be otherwise.

    data: JSON for its script. All text is escaped, names from files too. A policy (CSP) has browsers load nothing, and
    run only the one script that belongs to the page, by its digest.
    """
    import jinja2  # with it, other commands would start later

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True, finalize=_printable,
    )  # fmt: skip
    environment.filters |= {"figure": format_figure, "interval": format_interval, "time": format_time}
    environment.filters |= {"count": count_of, "figure_title": title, "short": shorten}
    style, script = ((_TEMPLATES / name).read_text("utf-8") for name in ("page.css", "page.js"))
    policy = (
        f"default-src 'none'; img-src data:; style-src '{_digest(style)}'; script-src '{_digest(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    text = environment.get_template("page.html").render(
        key="incomplete" if any(section.passing for section in sections) else key,
        policy=policy,
        style=style,
        script=script,
        heading=heading,
        sections=sections,
        data=_escaped(data),
    )
    return text.encode("utf-8")


def read_key(path: Path) -> str | None:
    """The key of the page in that file, or `incomplete`; None where it is no such page."""
    try:
        with open(path, "rb") as file:
            found = _KEY.search(file.read(_HEAD_BYTES))
    except OSError:
        return None
    return found[1].decode("ascii") if found else None


def shorten(name: str) -> str:
    """At most _LONGEST characters of it."""
    half = _LONGEST // 2
    return name if len(name) <= _LONGEST else f"{name[: half - 1]}…{name[-half:]}"


def _printable(value: Any) -> Any:
    """Text without control characters, and without those that UTF-8 doesn't have; HTML as it is."""
    return escape_controls(value) if type(value) is str else value


def _escaped(value: Any) -> Any:
    """JSON with all its text printable, and not too long."""
    if isinstance(value, Mapping):
        return {name: _escaped(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_escaped(part) for part in value]
    return escape_controls(value) if isinstance(value, str) else value


def _digest(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode('utf-8')).digest()).decode('ascii')}"
