"""Owns which known names an unknown one may mean. Not the message."""

import difflib
from collections.abc import Iterable


def suggest(name: str, known: Iterable[str], most: int = 1) -> list[str]:
    """At most that many known names: those that begin with `name`, in their order; else similar ones, best first."""
    names, asked = list(dict.fromkeys(known)), name.lower()
    begun = [other for other in names if other.lower().startswith(f"{asked}_")]
    begun = begun or [other for other in names if asked and other.lower().startswith(asked)]
    return begun[:most] or difflib.get_close_matches(asked, names, most, cutoff=0.5)
