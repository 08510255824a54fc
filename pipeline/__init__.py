"""The user interface: the command line, pipeline.yaml, and from Python `open` and `BottleneckFeatures`."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.python.api import open as open
    from pipeline.python.transformer import BottleneckFeatures as BottleneckFeatures

_FROM = {"open": "pipeline.python.api", "BottleneckFeatures": "pipeline.python.transformer"}


def __getattr__(name: str) -> Any:
    """Imported on first use, so that commands that need no scikit-learn don't import it."""
    if name in _FROM:
        return getattr(importlib.import_module(_FROM[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
