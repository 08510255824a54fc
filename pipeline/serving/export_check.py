"""Owns trying an exported file: original images, a fresh process without this package, and what may come of it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

import numpy as np

import stages
from cache.errors import NotAvailable, PipelineError, Unusable
from pipeline.project.project import Project
from pipeline.results import predictions
from pipeline.results.model import Model
from stages.data import images
from stages.export.deployable import Deployable
from stages.metrics.calibration import apply_temperature

IMAGES = 32
LIMIT = 5e-3
"""Of the difference of a probability: a file that is further off is not the model."""

_ALONE = Path(stages.__path__[0]) / "export" / "standalone_runner.py"
_ENVIRONMENT = {"KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
"""Of the fresh process. It is held to the CPU, since the GPU's memory is taken by this one."""


@dataclass(frozen=True)
class Sample:
    """An original image; what this package says of it, decoded in full; and what it said when the model was made.

    Both are probabilities (classes,) at the model's temperature.
    """

    file: Path
    expected: np.ndarray
    stored: np.ndarray


def choose_samples(today: Project, model: Model, servable: Deployable) -> list[Sample]:
    """Up to 32 of the images that the model was made of, spread over them, wherever their bytes are today.

    Raises NotAvailable where none of them is at hand.
    """
    said = predictions.read_predictions(model)
    places = _places(today, {row.id for row in said.rows})
    at_hand = [number for number, row in enumerate(said.rows) if row.id in places]
    spread = np.linspace(0, len(at_hand) - 1, min(IMAGES, len(at_hand))).round().astype(int)
    data = {at_hand[i]: places[said.rows[at_hand[i]].id].read_bytes() for i in spread}
    chosen = [number for number in data if hashlib.sha256(data[number]).hexdigest() == said.rows[number].id]
    if not chosen:
        raise NotAvailable(
            f"none of the {len(said.rows)} images of {model} is at hand, and a file is tried on some before it counts",
            "name the folder where they are: --set data.root=DIR",
        )
    full = replace(servable.recipe.pixels, decode="full")
    with today.progress(f"asking the model of {len(chosen)} images", None):
        expected = servable.open()(np.stack([images.decode(data[number], full) for number in chosen]))
    stored = apply_temperature(said.probabilities[chosen], servable.temperature)
    paths = [places[said.rows[number].id] for number in chosen]
    return [Sample(*parts) for parts in zip(paths, expected, stored, strict=True)]


def check_file(
    file: Path, servable: Deployable, tried_on: Sequence[Sample], log: IO[bytes], advance: Callable[[int], object]
) -> dict[str, Any]:
    """Ask the file, alone, of whole pictures: how far it is off, what ran it, and its names of input and output.

    What the process says on standard error goes to `log`. Raises PipelineError where it is too far off, or no use.
    """
    whole = (images.decode(sample.file.read_bytes(), None) for sample in tried_on)
    names, said = _alone(file, whole, log, advance)
    expected, stored = (np.stack([getattr(sample, part) for sample in tried_on]) for part in ("expected", "stored"))
    largest = float(np.abs(said - expected).max())
    if not largest <= LIMIT:
        off = f"of {len(tried_on)} images, a probability differs by up to {largest:.2g}, and the limit is {LIMIT:g}"
        raise PipelineError(f"the file is not the model: {off}", "nothing was written")
    scaled = servable.recipe.pixels.decode == "scaled"
    return {
        "images": len(tried_on),
        "max_difference": largest,
        "limit": LIMIT,
        "decode_scaled_adds": float(np.abs(stored - expected).max()) if scaled else None,
        **{name: names[name] for name in ("runtime", "input", "output")},
    }


def _places(today: Project, ids: set[str]) -> Mapping[str, Path]:
    """id -> a file that holds those bytes now."""
    try:
        return {row.id: today.root / row.path for row in today.rows_with_files(ids)}
    except Unusable as error:
        what = f"a file is tried on original images before it counts, and there are none: {error.message}"
        raise NotAvailable(what, "name the folder where they are: --set data.root=DIR") from error


def _alone(
    file: Path, pictures: Iterable[np.ndarray], log: IO[bytes], advance: Callable[[int], object]
) -> tuple[dict[str, Any], np.ndarray]:
    """What standalone_runner.py says of the file, and the file of pictures, uint8 (h, w, 3): (n, classes)."""
    said = []
    with subprocess.Popen(
        [sys.executable, "-I", str(_ALONE), str(file)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, env={**os.environ, **_ENVIRONMENT},
    ) as process:  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            names = json.loads(process.stdout.readline())
            for picture in pictures:
                process.stdin.write(b"%d %d\n" % picture.shape[:2] + picture.tobytes())
                process.stdin.flush()
                said.append(json.loads(process.stdout.readline()))
                advance(1)
        except (BrokenPipeError, json.JSONDecodeError) as error:
            process.wait()
            raise PipelineError(f"no other program can use the file: {_last(log)}", "nothing was written") from error
        finally:
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()
    if names["ours"]:
        raise PipelineError(f"the file was not tried without this package: {', '.join(names['ours'])} came along")
    return names, np.array(said)


def _last(log: IO[bytes]) -> str:
    log.seek(0)
    lines = log.read().decode(errors="replace").strip().splitlines()
    return lines[-1][:300] if lines else "it ended without a word"
