"""Owns testing an exported file on original images, in a fresh process without this package."""

import contextlib
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
from stages.data.images import ImageRejected
from stages.export.deployable import Deployable
from stages.extract import prefetch
from stages.sources.places import reading
from stages.targets.target import Target

IMAGES = 32
LIMIT = 5e-3
"""The largest difference that a file may have, of a probability, of a number in standard deviations, or of a score as
unknown, in which the threshold is 1."""

_RUNNER = Path(stages.__path__[0]) / "export" / "standalone_runner.py"
_ENVIRONMENT = {"KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
"""Of the fresh process. It runs on the CPU, since this process has the GPU's memory."""


@dataclass(frozen=True)
class Sample:
    """An original image, and its predictions (columns,), at the model's temperature.

    place: where it is (stages/sources/places.py). expected: by this package, of the image decoded in full, and behind
    it, if the model can tell, its score as unknown.
    stored: as recorded when the model was made, NaN where that is out of fold.
    """

    place: str
    expected: np.ndarray
    stored: np.ndarray


def choose_samples(today: Project, model: Model, deployable: Deployable) -> list[Sample]:
    """Up to 32 images that the model was made from, evenly spread, wherever their bytes are today.

    Raises NotAvailable where none of them is found.
    """
    recorded = predictions.read_predictions(model)
    places = _places(today, {row.id for row in recorded.rows})
    present = [number for number, row in enumerate(recorded.rows) if row.id in places]
    spread = np.linspace(0, len(present) - 1, min(IMAGES, len(present))).round().astype(int)
    data = {}
    for number in (present[i] for i in spread):
        image = recorded.rows[number].id
        with contextlib.suppress(ImageRejected):  # it was changed
            data[number] = prefetch.read_bytes(image, [places[image]], [])
    chosen = [*data]
    if not chosen:
        raise NotAvailable(
            f"none of the {len(recorded.rows)} images of {model} was found; an exported file is tested on some",
            "name the folder where they are: --set data.root=DIR",
        )
    full = [replace(base.recipe.pixels, decode="full") for base in deployable.bases]
    with today.progress(f"computing the predictions of {len(chosen)} images", 1) as advance:
        fitted = zip(*(images.decode_all(data[number], full) for number in chosen), strict=True)
        expected = deployable.open()([np.stack(pixels) for pixels in fitted])
        advance(1)
    stored = deployable.head.target.at_temperature(recorded.probabilities[chosen], deployable.temperature)
    if recorded.folds is not None:
        stored[recorded.folds[chosen] >= 0] = np.nan  # out of fold, so not the model's
    paths = [places[recorded.rows[number].id] for number in chosen]
    return [Sample(*parts) for parts in zip(paths, expected, stored, strict=True)]


def check_file(
    file: Path, deployable: Deployable, samples: Sequence[Sample], log: IO[bytes], advance: Callable[[int], object]
) -> dict[str, Any]:
    """Run the file on whole images: its largest difference, its runtime, and the names of its input and outputs.

    `log` gets the standard error of the process. Raises PipelineError where it is too far off, or cannot be run.
    """
    whole = (_decode(sample.place) for sample in samples)
    names, found = _run_file(file, whole, log, advance)
    expected, stored = (np.stack([getattr(sample, part) for sample in samples]) for part in ("expected", "stored"))
    target, columns = deployable.head.target, len(deployable.head.target)
    unknown = float(np.abs(found[:, columns:] - expected[:, columns:]).max(initial=0))
    found, expected = found[:, :columns], expected[:, :columns]
    largest = _largest(target, found, expected)
    if not largest <= LIMIT:
        what = "a probability" if target.probabilities else "a number, in standard deviations,"
        off = f"of {len(samples)} images, {what} differs by up to {largest:.2g}, and the limit is {LIMIT:g}"
        raise PipelineError(f"the file is not the model: {off}", "nothing was written")
    if not unknown <= LIMIT:
        off = f"of {len(samples)} images, a score as unknown differs by up to {unknown:.2g}, and the limit is {LIMIT:g}"
        raise PipelineError(f"the file is not the model: {off}", "nothing was written")
    scaled = any(base.recipe.pixels.decode == "scaled" for base in deployable.bases)
    own = np.isfinite(stored).all(axis=1)
    return {
        "images": len(samples),
        "max_difference": largest,
        "limit": LIMIT,
        "decode_scaled_adds": _largest(target, stored[own], expected[own]) if scaled and own.any() else None,
        **({"max_difference_unknown": unknown} if deployable.unknown is not None else {}),
        **{name: names[name] for name in ("runtime", "settings", "input", "outputs") if name in names},
    }


def _decode(place: str) -> np.ndarray:
    with reading(place) as read:
        return images.decode(read.data, None)


def _largest(target: Target, a: np.ndarray, b: np.ndarray) -> float:
    """The largest difference of two predictions: of probabilities, or of numbers as heads fit them."""
    if not target.probabilities:
        a, b = target.scores(a), target.scores(b)
    return float(np.abs(a - b).max())


def _places(today: Project, ids: set[str]) -> Mapping[str, str]:
    """id -> a place that holds those bytes now."""
    try:
        return {row.id: today.source.place(row.path) for row in today.rows_with_files(ids)}
    except Unusable as error:
        what = f"an exported file is tested on original images, and there are none: {error.message}"
        raise NotAvailable(what, "name the folder where they are: --set data.root=DIR") from error


def _run_file(
    file: Path, pictures: Iterable[np.ndarray], log: IO[bytes], advance: Callable[[int], object]
) -> tuple[dict[str, Any], np.ndarray]:
    """What standalone_runner.py prints of the file, and the numbers of its outputs, (n, columns), of
    pictures uint8 (h, w, 3)."""
    found = []
    packages = {"PYTHONPATH": os.pathsep.join(folder or os.getcwd() for folder in sys.path)}  # as in this process
    with subprocess.Popen(
        [sys.executable, "-P", str(_RUNNER), str(file)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, env=os.environ | _ENVIRONMENT | packages,
    ) as process:  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            names = json.loads(process.stdout.readline())
            for picture in pictures:
                process.stdin.write(b"%d %d\n" % picture.shape[:2] + picture.tobytes())
                process.stdin.flush()
                found.append(json.loads(process.stdout.readline()))
                advance(1)
        except (BrokenPipeError, json.JSONDecodeError) as error:
            process.wait()
            log.seek(0)
            lines = log.read().decode(errors="replace").strip().splitlines() or ["it ended without a message"]
            reason = lines[-1][:300]
            if reason.startswith(("ImportError", "ModuleNotFoundError")):
                hint = f"install what is missing for {sys.executable}; nothing was written"
                raise PipelineError(f"the file cannot be tested in a fresh process: {reason}", hint) from error
            raise PipelineError(f"no other program can use the file: {reason}", "nothing was written") from error
        finally:
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()
    if names["ours"]:
        raise PipelineError(f"the test of the file imported this package: {', '.join(names['ours'])}")
    return names, np.array(found)
