"""Owns where images lie on maps of their rows, under models/. Not how they are placed, nor how a map is drawn.

These depend on rows alone, so they stay when a head changes: models/map/<key>/.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from cache import keys, npz, records
from cache.errors import Unwritable

Places = Mapping[str, np.ndarray]
"""Name of each map -> the coordinates of n images, (n, 2) int."""


def find_or_make(
    project: Path,
    extract_key: str,
    ids: Sequence[str],
    made_by: Mapping[str, str],
    make: Callable[[], Places],
) -> Places:
    """Those of the images `ids` by their rows of that key; made and published where there are none.

    made_by: what else they depend on, as versions of packages. `project` is the folder of pipeline.yaml; where nothing
    can be written there, they are made each time.
    """
    key = keys.digest("map", {"rows": extract_key, "ids": list(ids), "made_by": dict(made_by)})
    folder = project / "models" / "map" / key
    if records.load_folder(folder) is not None:
        with suppress(ValueError, OSError):
            return npz.load(io.BytesIO((folder / "places.npz").read_bytes()))
    started = time.perf_counter()
    found = make()
    about = {"schema": 1, "created": round(time.time(), 3), "seconds": round(time.perf_counter() - started, 3)}
    with suppress(Unwritable):
        records.publish_folder(folder, {"places.npz": npz.dump(found)}, about)
    return found
