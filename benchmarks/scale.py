"""What commands take where nothing has changed, by the number of images: python -m benchmarks.scale [--images N...].

[--folder DIR] [--commands NAME...] [--rounds N] [--keep]. Each image is a PNG file of its own, of one pixel that says
its number; rows (1,280 float16) are synthetic, written by the store's own writer. The first run hashes the files and
computes nothing. Told are seconds on the clock and of processors, and the most memory of the process (ru_maxrss).
"""

from __future__ import annotations

import argparse
import hashlib
import statistics
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from pathlib import Path

import numpy as np
from rich.console import Console

from benchmarks.contest import ENVIRONMENT, Run, measure, pipeline
from pipeline.project.project import Options, Project
from pipeline.show.progress import make_progress

CLASSES, DIM, SHARD = 10, 1280, 12_500
COMMANDS = {
    "first run": ("run", "extract"),
    "run extract": ("run", "extract"),
    "status": ("status",),
    "cache ls": ("cache", "ls"),
    "cache compact -n": ("cache", "compact", "-n"),
    "run head, ridge": ("run", "head", "ridge"),
    "run head, logistic at one C": ("run", "head", "logistic"),
    "run": ("run",),
    "export features": ("export", "features", "--force"),
    "cache export": ("cache", "export"),
    "audit --sample 2000": ("audit", "--sample", "2000"),
}
QUICK = ["first run", "run extract", "status", "cache ls", "cache compact -n"]


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(number: int) -> bytes:
    """One pixel of 24 bits, which are the number."""
    head, pixel = struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0), zlib.compress(b"\0" + number.to_bytes(3, "big"))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", pixel) + chunk(b"IEND", b"")


def lay_out(folder: Path, images: int) -> Path:
    """A project with all its files and rows; returns its pipeline.yaml."""
    config = folder / "pipeline.yaml"
    heads = "{ridge: {kind: ridge}, logistic: {kind: logistic, C: 1.0e-4}}"
    config.write_text(f"extract: {{size: 32, dtype: float16}}\nheads: {heads}\n")
    for label in range(CLASSES):
        (folder / "images" / f"class{label}").mkdir(parents=True)
    rng = np.random.default_rng(0)
    noise, centres = rng.standard_normal((SHARD, DIM), np.float32), 0.1 * rng.standard_normal((CLASSES, DIM))
    store = Project(config, Options(), make_progress(Console(), quiet=True)).store("pooled")
    for number, start in enumerate(range(0, images, SHARD)):
        rows, ids = np.arange(start, min(start + SHARD, images)), []
        for i in rows.tolist():
            data = png(i)
            (folder / "images" / f"class{i % CLASSES}" / f"{i:07d}.png").write_bytes(data)
            ids.append(hashlib.sha256(data).hexdigest())
        x = np.roll(noise, 31 * number, axis=1)[: len(rows)] + centres[rows % CLASSES]
        store.put(ids, np.maximum(x, 0).astype(np.float16), {"engine": "none", "device": "none", "seconds": 1.0})
    return config


def command(name: str, config: Path) -> list[str]:
    words, places = COMMANDS[name], {"export features": ["-o", "rows.h5"], "cache export": ["rows"]}
    more = [str(config.parent / part) if part[0] != "-" else part for part in places.get(name, ())]
    quiet = pipeline(*words, *more, "-c", config)
    return quiet if words[0] == "run" or words[-1] == "push" else quiet[:-1]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--images", type=int, nargs="+", default=[60_000, 250_000, 1_000_000])
    options.add_argument("--commands", nargs="+", choices=COMMANDS, default=QUICK)
    options.add_argument("--rounds", type=int, default=1)
    options.add_argument("--folder", type=Path)
    options.add_argument("--keep", type=Path, help="Lay out one size here, and stop; or use what lies here.")
    asked = options.parse_args()
    if asked.keep is not None and not asked.keep.exists():
        asked.keep.mkdir()
        lay_out(asked.keep, asked.images[0])
        return
    print("| images | command | s | s of processors | most memory, MB |\n|---|---|---|---|---|")
    for images in asked.images:
        with tempfile.TemporaryDirectory(dir=asked.folder) as name:
            if asked.keep is None:  # in a process of its own, since what one takes would count in the peak of others
                script = (
                    f"from benchmarks import scale; from pathlib import Path; scale.lay_out(Path({name!r}), {images})"
                )
                subprocess.run([sys.executable, "-c", script], check=True, env=ENVIRONMENT)
                time.sleep(2.1)  # a file younger than 2 s is hashed every time
            config = (asked.keep or Path(name)) / "pipeline.yaml"
            for title in asked.commands:
                runs = [measure(command(title, config)) for _ in range(1 if title == "first run" else asked.rounds)]
                middle = Run(*(statistics.median(part) for part in zip(*runs, strict=True)))
                figures = f"{middle.seconds:.1f} | {middle.cpu:.1f} | {middle.peak:,.0f}"
                print(f"| {images:,} | {title} | {figures} |", flush=True)


if __name__ == "__main__":
    main()
