"""Extraction from nothing, end to end, beside the usual Keras loop: python -m benchmarks.extract [--rounds N]."""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from benchmarks.contest import HOST_CACHE, asked_rounds, demo, pipeline, race, report


def main() -> None:
    rounds = asked_rounds(__doc__)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = demo(folder)
        images = sum(1 for _ in (folder / "images").rglob("*.png"))

        def ours(*more: str) -> list[str]:
            for place in (folder / ".features", HOST_CACHE):  # nothing cached, nothing hashed before
                shutil.rmtree(place, ignore_errors=True)
            return pipeline("run", "extract", "-c", config, *more)

        contenders = {
            "usual Keras loop": lambda: [sys.executable, "-m", "benchmarks.keras_loop", str(folder / "images"), name],
            "pipeline run extract": ours,
            "pipeline run extract --workers 2": lambda: ours("--workers", "2"),
        }
        report(f"EfficientNet-Lite0 at 224, {images} PNGs of 300x300", race(contenders, rounds), images)


if __name__ == "__main__":
    main()
