"""A run over 100,000 images of which none has changed: python -m benchmarks.warm [--rounds N]."""

from __future__ import annotations

import io
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image

from benchmarks.contest import ENVIRONMENT, asked_rounds, pipeline, race, report

IMAGES = 100_000


def lay_out(folder: Path, images: int = IMAGES) -> Path:
    """Small images, all different, in ten classes; returns the pipeline.yaml."""
    for number in range(images):
        buffer = io.BytesIO()
        Image.new("RGB", (24, 24), (number % 256, number // 256 % 256, number // 65536)).save(buffer, "PNG")
        path = folder / "images" / f"class{number % 10}" / f"{number:06d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(buffer.getvalue())
    config = folder / "pipeline.yaml"
    config.write_text("extract: {size: 32}\n")
    return config


def main() -> None:
    rounds = asked_rounds(__doc__)
    with tempfile.TemporaryDirectory() as name:
        config = lay_out(Path(name))
        time.sleep(2.1)  # a file younger than 2 s is hashed every time; nobody's images are
        started = time.perf_counter()
        subprocess.run(pipeline("run", "extract", "-c", config), check=True, env=ENVIRONMENT)
        print(f"the first run took {time.perf_counter() - started:.0f} s")
        contenders = {
            "SHA-256 of every file": lambda: [sys.executable, "-m", "benchmarks.hash_all", str(config.parent)],
            "pipeline run extract": lambda: pipeline("run", "extract", "-c", config),
        }
        report(f"Nothing has changed, {IMAGES:,} images", race(contenders, rounds))


if __name__ == "__main__":
    main()
