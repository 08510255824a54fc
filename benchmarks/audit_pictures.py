"""Which odd pictures and shortcuts an audit finds: python -m benchmarks.audit_pictures [--folders DIR...] [--n N].

Each folder is a set of pictures, any in it and below. Found among its first N, in random order, as they are: what was
not looked at counts as false. Then 100 of them are altered in one way each, one way at a time, and put in their places
one at a time among the others: the share that is found. Shortcuts: labels drawn at random, 50 draws of two classes; and
of two classes at random, one saved as JPEG, or at nine tenths of the size. In brackets Wilson intervals, 95 %.
"""

from __future__ import annotations

import argparse
import io
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from stages.audit.likeness import SIDE, thumbnail
from stages.audit.odd_pictures import find_odd_pictures
from stages.audit.picture_facts import FACTS, measure
from stages.audit.shortcuts import clues, find_shortcuts
from stages.data.image_formats import ImageRejected
from stages.data.images import PixelSpec, decode
from stages.data.manifest import Row
from stages.metrics.intervals import wilson

ALTERED, DRAWS, LONGEST = 100, 50, 512


def facts_of(data: bytes) -> np.ndarray:
    return measure(data, thumbnail(decode(data, PixelSpec(SIDE, SIDE))))


def saved(image: Image.Image, form: str = "PNG") -> bytes:
    file = io.BytesIO()
    image.save(file, form)
    return file.getvalue()


def scaled(share: float) -> Callable[[Image.Image], Image.Image]:
    return lambda image: image.resize([max(1, round(share * side)) for side in image.size])


def blurred(share: float) -> Callable[[Image.Image], Image.Image]:
    return lambda image: image.filter(ImageFilter.GaussianBlur(share * min(image.size)))


WAYS: dict[str, tuple[str, Callable[[Image.Image], Image.Image]]] = {
    "one colour": ("one colour", lambda image: Image.new("RGB", image.size, (90, 120, 60))),
    "an eighth of the size": ("tiny", scaled(1 / 8)),
    "a strip, a fifth of the height": ("shape", lambda image: image.crop((0, 0, image.width, image.height // 5 or 1))),
    "blurred, radius 2 % of the side": ("blurred", blurred(0.02)),
    "blurred, radius 4 %": ("blurred", blurred(0.04)),
    "blurred, radius 8 %": ("blurred", blurred(0.08)),
    "a tenth of the light": ("dark", lambda image: image.point(lambda value: round(value / 10))),
    "a tenth of the shade": ("pale", lambda image: image.point(lambda value: 255 - round((255 - value) / 10))),
}


def share(hits: int, n: int) -> str:
    low, high = wilson(hits / n, n)
    return f"{hits / n:.2f} ({low:.2f}-{high:.2f})"


def read(folder: Path, n: int) -> tuple[list[bytes], np.ndarray]:
    """The files that can be decoded, and their facts."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    random.Random(0).shuffle(files)
    found, facts = [], np.zeros(0, FACTS)
    for path in files[:n]:
        data = path.read_bytes()
        try:
            facts = np.concatenate([facts, facts_of(data)])
            found.append(data)
        except ImageRejected:
            continue
    return found, facts


def rows_of(y: np.ndarray) -> list[Row]:
    return [Row(f"{i}", f"{i}", f"{label}") for i, label in enumerate(y.tolist())]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--folders", nargs="+", type=Path, required=True)
    options.add_argument("--n", type=int, default=500)
    asked = options.parse_args()
    print("| set | pictures | what | found |")
    print("|---|---|---|---|")
    for folder in asked.folders:
        data, facts = read(folder, asked.n)
        start = f"| {folder.name} | {len(data)}"
        kinds = Counter(one.kind for one in find_odd_pictures(facts))
        print(f"{start} | as they are | {', '.join(f'{many} {kind}' for kind, many in kinds.items()) or '0'} |")
        chosen = range(min(ALTERED, len(data)))
        for way, (kind, alter) in WAYS.items():
            hits = 0
            for i in chosen:
                image = Image.fromarray(decode(data[i], None))
                image.thumbnail((LONGEST, LONGEST))
                altered = facts.copy()
                altered[i] = facts_of(saved(alter(image)))[0]
                if kind in ("tiny", "shape"):  # the picture was made smaller above, to be fast
                    by = max(Image.open(io.BytesIO(data[i])).size) / max(image.size)
                    altered[i]["width"], altered[i]["height"] = altered[i]["width"] * by, altered[i]["height"] * by
                hits += any(one.number == i and one.kind == kind for one in find_odd_pictures(altered))
            print(f"{start} | {way} | {share(hits, len(chosen))} |", flush=True)
        rng = np.random.default_rng(0)
        named = Counter(
            one.by for _ in range(DRAWS) for one in find_shortcuts(clues(facts), rows_of(rng.integers(0, 2, len(data))))
        )
        print(f"{start} | shortcuts to labels at random, of {DRAWS} draws | {sum(named.values())} |")
        y = rng.integers(0, 2, len(data))
        for way, alter, form in (("JPEG", scaled(1), "JPEG"), ("nine tenths of the size", scaled(0.9), "PNG")):
            made = facts.copy()
            for i in np.flatnonzero(y).tolist():
                made[i] = facts_of(saved(alter(Image.fromarray(decode(data[i], None))), form))[0]
            found = find_shortcuts(clues(made), rows_of(y))
            told = ", ".join(f"{one.by} {one.accuracy.value:.2f}" for one in found) or "none"
            print(f"{start} | shortcuts, one class {way} | {told} |", flush=True)


if __name__ == "__main__":
    main()
