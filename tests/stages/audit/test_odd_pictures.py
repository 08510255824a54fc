"""picture_facts.py and odd_pictures.py: each kind is found among ordinary pictures, and those are not."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image, ImageFilter

from stages.audit.likeness import thumbnail
from stages.audit.odd_pictures import find_odd_pictures
from stages.audit.picture_facts import measure


def picture(seed: int, size: tuple[int, int] = (200, 160)) -> Image.Image:
    """Noise, coarse and fine."""
    rng = np.random.default_rng(seed)
    noise = (rng.integers(0, 256, (side, side, 3), dtype=np.uint8) for side in (5, 70))
    coarse, fine = (Image.fromarray(one).resize(size, Image.Resampling.BICUBIC) for one in noise)
    return Image.blend(coarse, fine, 0.4)


def facts(*images: Image.Image) -> np.ndarray:
    found = []
    for image in images:
        file = io.BytesIO()
        image.save(file, "PNG")
        found.append(measure(file.getvalue(), thumbnail(np.asarray(image))))
    return np.concatenate(found)


ORDINARY = [picture(seed) for seed in range(30)]


@pytest.mark.parametrize(
    ("kind", "odd"),
    [
        ("one colour", Image.new("RGB", (200, 160), (90, 20, 200))),
        ("tiny", picture(99, (36, 30))),
        ("shape", picture(99, (800, 160))),
        ("blurred", picture(99).filter(ImageFilter.GaussianBlur(8))),
        ("dark", picture(99).point(lambda value: value // 12)),
        ("pale", picture(99).point(lambda value: 255 - (255 - value) // 12)),
    ],
)
def test_what_is_odd_is_found_and_nothing_else(kind: str, odd: Image.Image) -> None:
    (found,) = find_odd_pictures(facts(*ORDINARY[:20], odd, *ORDINARY[20:]))
    assert (found.number, found.kind) == (20, kind)


def test_what_all_have_is_not_odd() -> None:
    assert find_odd_pictures(facts(*(image.filter(ImageFilter.GaussianBlur(12)) for image in ORDINARY))) == []
    assert find_odd_pictures(facts(*(image.point(lambda value: value // 12) for image in ORDINARY))) == []
    assert find_odd_pictures(facts(*(picture(seed, (900, 60)) for seed in range(12)))) == []


def test_among_few_only_one_colour_is_told_and_what_was_not_read_is_not_odd() -> None:
    few = facts(*ORDINARY[:5], picture(99, (800, 20)), Image.new("RGB", (9, 9)))
    few = np.concatenate([few, np.zeros(1, few.dtype)])
    assert [(one.number, one.kind) for one in find_odd_pictures(few)] == [(6, "one colour")]


def test_facts_are_those_of_the_file() -> None:
    (found,) = facts(picture(0))
    assert (found["width"], found["height"], found["format"], found["mode"]) == (200, 160, "PNG", "RGB")
    assert found["bytes"] > 1000
    assert measure(b"no image", np.zeros((96, 96), np.uint8))[0]["width"] == 0
