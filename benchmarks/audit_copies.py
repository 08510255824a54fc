"""Which copies an audit finds: python -m benchmarks.audit_copies [--sets NAME...] [--folder DIR].

300 images of each set, or half of them, are copied in five ways, one way at a time, and the copies put among the
others. Recall is of the planted pairs; precision of all pairs that are found, and without those that are found where
nothing is planted, which were looked at and are mostly real. In brackets Wilson intervals, 95 %.
"""

from __future__ import annotations

import argparse
import hashlib
import math
import random
from pathlib import Path

import numpy as np
from PIL import Image

import pipeline
from benchmarks.small_sets import LAY_OUT, available
from stages.audit import copies
from stages.audit.likeness import SIDE, coarse, make_copies, thumbnail
from stages.audit.neighbour_search import Search
from stages.data.images import PixelSpec, decode
from stages.heads.matrix import FeatureMatrix
from stages.runtime.parallel import run_in_threads

PLANTED = 300
KINDS = ("resized", "recompressed", "brighter", "mirrored", "cropped")


def read(path: Path) -> np.ndarray:
    return thumbnail(decode(path.read_bytes(), PixelSpec(SIDE, SIDE)))


def plant(folder: Path, chosen: list[Path]) -> None:
    """The copies, in a folder for each kind; those recompressed as they came out of the JPEG."""
    if (folder / "pipeline.yaml").exists():
        return
    for number, path in enumerate(chosen):
        for kind, pixels in make_copies(decode(path.read_bytes(), None)):
            (folder / "images" / kind).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(folder / "images" / kind / f"{number:04d}.png")
    (folder / "pipeline.yaml").write_text("data: {root: images}\n")


def rows_of(folder: Path) -> dict[str, np.ndarray]:
    """The row of each image, by the digest of its file."""
    found = pipeline.open(folder / "pipeline.yaml").features()
    return dict(zip(found.ids.tolist(), found.X, strict=True))


def wilson(hits: int, n: int) -> str:
    """The share, and its interval (Wilson 1927)."""
    share, z = hits / n, 1.96
    middle, half = share + z * z / (2 * n), z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return f"{share:.3f} ({(middle - half) / (1 + z * z / n):.3f}-{(middle + half) / (1 + z * z / n):.3f})"


def find(thumbnails: np.ndarray, rows: np.ndarray) -> set[tuple[int, int]]:
    near, _ = Search(FeatureMatrix([rows]), copies.NEAREST, np.zeros(len(rows), int), 1).run()
    found = copies.find_copies(thumbnails, coarse(thumbnails).astype(np.float16), near.numbers)
    return {(i, j) for i, j in found.pairs.tolist()}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--sets", nargs="+", choices=list(LAY_OUT), default=["elpv", "fashion"])
    options.add_argument("--folder", type=Path, default=Path("bench-out/small-sets"))
    asked = options.parse_args()
    print("| set | images | copies | recall | precision | without pairs found before | found before |")
    print("|---|---|---|---|---|---|---|")
    for name in available(asked.folder, asked.sets):
        files = sorted(path for path in (asked.folder / name / "images").rglob("*") if path.is_file())
        chosen = sorted(random.Random(1).sample(range(len(files)), min(PLANTED, len(files) // 2)))
        there = rows_of(asked.folder / name)
        place = asked.folder / f"{name}-copies"
        plant(place, [files[i] for i in chosen])
        copied = rows_of(place)
        ids = [hashlib.sha256(path.read_bytes()).hexdigest() for path in files]
        thumbs, rows = np.stack(run_in_threads(read, files)), np.stack([there[image] for image in ids])
        before = find(thumbs, rows)
        for kind in KINDS:
            made = sorted((place / "images" / kind).iterdir())
            own = np.stack([copied[hashlib.sha256(path.read_bytes()).hexdigest()] for path in made])
            found = find(np.concatenate([thumbs, np.stack(run_in_threads(read, made))]), np.concatenate([rows, own]))
            pairs = {(of, len(files) + number) for number, of in enumerate(chosen)}
            hits, others = len(found & pairs), found - pairs
            shares = [wilson(hits, len(pairs)), *(wilson(hits, hits + len(o)) for o in (others, others - before))]
            print(
                f"| {name} | {len(files):,} | {len(pairs)} {kind} | {' | '.join(shares)} | {len(before)} |", flush=True
            )


if __name__ == "__main__":
    main()
