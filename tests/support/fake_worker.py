"""A Dask preload for worker processes: their base is the numpy one of fakes.py.

FAKE_HIDDEN=FOLDER has them see nothing below that folder, as on another machine.
"""

import os
import sys
from typing import Any

from stages.extract import opened_bases
from tests.support import fakes

opened_bases.open_embed = fakes.FakeEmbed
HIDDEN = os.environ.get("FAKE_HIDDEN")
_exists = os.path.exists


def _refuse(event: str, arguments: tuple[Any, ...]) -> None:
    if event in ("open", "os.listdir", "os.scandir", "os.mkdir") and str(arguments[0]).startswith(str(HIDDEN)):
        raise FileNotFoundError(2, "on another machine", str(arguments[0]))


if HIDDEN:
    os.path.exists = lambda path: not os.fspath(path).startswith(HIDDEN) and _exists(path)  # type: ignore[assignment]
    sys.addaudithook(_refuse)
