"""Owns the canonical form of a key's components and its SHA-256. Not what the components are."""

import hashlib
import json
import math
import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from cache.errors import Unkeyable

_DIGEST = re.compile(r"[0-9a-f]{64}")


def digest(kind: str, components: Mapping[str, Any]) -> str:
    """SHA-256, in hex, of `kind` and the canonical JSON of `components`.

    Components that are None are neutral and left out, so that a field added later does not move the keys
    of those who don't use it. Raises Unkeyable where a value is neither a mapping with string keys, a sequence, str,
    bool, int, finite float nor None.
    """
    return hashlib.sha256(_encode([kind, _plain(components, kind)])).hexdigest()


def is_digest(text: str) -> bool:
    """Whether it looks like a SHA-256 in hex, as all names by content do."""
    return _DIGEST.fullmatch(text) is not None


def canonical(value: Any) -> bytes:
    """Canonical JSON: keys sorted, no spaces, ASCII, decimals as normalised strings (0.1 is 1e-1 is "0.1")."""
    return _encode(_plain(value, "value"))


def _encode(plain: Any) -> bytes:
    return json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode("ascii")


def _plain(value: Any, where: str) -> Any:
    if value is None or isinstance(value, bool | str | int):
        return value
    if isinstance(value, float):
        return _decimal(value, where)
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise Unkeyable(f"{where}: cannot key a mapping with the key {key!r}; use str")
        return {k: _plain(v, f"{where}.{k}") for k, v in value.items() if v is not None}
    if isinstance(value, list | tuple):
        # text as it is: a million rows of it are part of a key, and a call for each would take longer than all else
        return [item if type(item) is str else _plain(item, f"{where}[{i}]") for i, item in enumerate(value)]
    raise Unkeyable(f"{where}: cannot key a {type(value).__name__}; use str, int, float, bool, list or dict")


def _decimal(value: float, where: str) -> str:
    if not math.isfinite(value):
        raise Unkeyable(f"{where}: cannot key {value}; use a finite number")
    if value == 0:
        return "0"
    return str(Decimal(repr(float(value))).normalize())
