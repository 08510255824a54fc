"""augment.py: which view an image gets, and that it holds nothing but the image."""

from __future__ import annotations

import hashlib
import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.data.augment import Augment, View, apply_view
from tests.support.pictures import photograph

PHOTO = np.asarray(photograph(size=(48, 48)))
IDS = [hashlib.sha256(bytes([i])).hexdigest() for i in range(40)]
NOTHING = Augment(flip="none")
ALL = Augment("both", True, rotate=20, shift=0.1, scale=0.2, brightness=0.2, contrast=0.3)


def view(number: int, **limits: Any) -> View:
    return View(Augment(**limits), 0, number)


def one_of_each(pixels: np.ndarray) -> set[bytes]:
    """The eight images that flips and turns make of a square, by other means than the module's."""
    mirrored = [pixels, pixels.transpose(1, 0, 2)]
    return {p[::down, ::along].tobytes() for p in mirrored for down in (1, -1) for along in (1, -1)}


def test_literal_views() -> None:
    """If one changes, rows of views are served that are not of these views: raise VERSION on purpose."""
    pixels = np.arange(192, dtype=np.uint8).reshape(8, 8, 3)
    limits = {"flip": "both", "turns": True, "brightness": 0.2, "contrast": 0.3}
    found = [hashlib.sha256(apply_view(pixels, view(n, **limits), IDS[0]).tobytes()).hexdigest()[:16] for n in (1, 2)]
    assert found == ["442dfcd044edf21f", "5e84970253c18e4c"]


def test_a_view_is_the_same_each_time_and_another_for_another_seed_number_or_image() -> None:
    first = View(ALL, 0, 1)
    others = [
        apply_view(PHOTO, view, image)
        for view, image in [(first, IDS[1]), (replace(first, seed=1), IDS[0]), (replace(first, number=2), IDS[0])]
    ]
    assert np.array_equal(apply_view(PHOTO, first, IDS[0]), apply_view(PHOTO, first, IDS[0]))
    assert not any(np.array_equal(apply_view(PHOTO, first, IDS[0]), other) for other in others)


@pytest.mark.parametrize("field", ["rotate", "shift", "scale", "brightness", "contrast"])
def test_each_limit_alone_makes_other_pixels(field: str) -> None:
    limits = replace(NOTHING, **{field: 0.5 if field != "rotate" else 10.0})
    seen = {apply_view(PHOTO, View(limits, 0, number), IDS[0]).tobytes() for number in range(1, 6)}
    assert len(seen) == 5
    assert PHOTO.tobytes() not in seen


def test_turning_one_thing_on_moves_no_other_draw() -> None:
    """A gray image shows brightness only, whatever else is on."""
    gray = np.full((16, 16, 3), 100, np.uint8)
    for number in (1, 2, 3):
        assert np.array_equal(apply_view(gray, view(number, brightness=0.2), IDS[0]),
                              apply_view(gray, View(ALL, 0, number), IDS[0]))  # fmt: skip


@pytest.mark.parametrize(
    ("flip", "turns", "n"),
    [("none", False, 1), ("horizontal", False, 2), ("vertical", False, 2), ("both", False, 4), ("none", True, 4),
     ("horizontal", True, 8), ("vertical", True, 8), ("both", True, 8)],
)  # fmt: skip
def test_flips_and_turns_are_dealt_without_repetition(flip: str, turns: bool, n: int) -> None:
    for image in IDS[:5]:
        dealt = [apply_view(PHOTO, view(number, flip=flip, turns=turns), image) for number in range(1, 2 * n + 1)]
        assert len({pixels.tobytes() for pixels in dealt[:n]}) == n
        assert np.array_equal(dealt[n - 1], PHOTO)  # the plain image, which is there already, comes last
        assert {pixels.tobytes() for pixels in dealt} <= one_of_each(PHOTO)
        assert all(map(np.array_equal, dealt[:n], dealt[n:]))


def test_images_are_dealt_different_orders() -> None:
    limits = {"flip": "both", "turns": True}
    firsts = {apply_view(PHOTO, view(1, **limits), image).tobytes() for image in IDS}
    assert firsts == one_of_each(PHOTO) - {PHOTO.tobytes()}


def test_flips_and_turns_pixel_by_pixel() -> None:
    a, b, c, d, e, f = np.arange(18, dtype=np.uint8).reshape(6, 3)
    wide, square = np.array([[a, b, c], [d, e, f]]), np.array([[a, b], [c, d]])
    assert apply_view(wide, view(1, flip="horizontal"), IDS[0]).tolist() == np.array([[c, b, a], [f, e, d]]).tolist()
    assert apply_view(wide, view(1, flip="vertical"), IDS[0]).tolist() == np.array([[d, e, f], [a, b, c]]).tolist()
    turned = [apply_view(square, view(number, flip="none", turns=True), IDS[0]).tolist() for number in (1, 2, 3)]
    expected = [[[b, d], [a, c]], [[d, c], [b, a]], [[c, a], [d, b]]]
    assert sorted(turned) == sorted(np.array(rows).tolist() for rows in expected)


def test_with_everything_off_a_view_is_the_image() -> None:
    assert all(np.array_equal(apply_view(PHOTO, View(NOTHING, 3, number), IDS[0]), PHOTO) for number in range(1, 9))


def numbers(most: float) -> st.SearchStrategy[float]:
    return st.one_of(st.just(0.0), st.floats(0, most))


@settings(max_examples=60, deadline=None)
@given(
    height=st.integers(1, 33),
    width=st.integers(1, 33),
    limits=st.builds(
        Augment,
        st.sampled_from(["none", "horizontal", "vertical", "both"]),
        st.just(False),
        numbers(180), numbers(1), numbers(0.9), numbers(1), numbers(1),
    ),
    number=st.integers(1, 20),
)  # fmt: skip
def test_shape_and_dtype_stay_for_any_size(height: int, width: int, limits: Augment, number: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    pixels.setflags(write=False)
    found = apply_view(pixels, View(limits, 0, number), IDS[0])
    assert (found.shape, found.dtype, found.flags.c_contiguous) == (pixels.shape, np.uint8, True)


@pytest.mark.parametrize("size", [(48, 48), (31, 64), (5, 3)])
def test_a_white_image_has_no_black_corners(size: tuple[int, int]) -> None:
    white = np.full((*size, 3), 255, np.uint8)
    for number in range(1, 30):
        assert apply_view(white, view(number, rotate=180, shift=1, scale=0.9), IDS[0]).min() == 255


def test_a_view_is_turned_zoomed_and_shifted_about_the_centre_within_the_limits() -> None:
    """Pixels that tell their own place show the map: x and y of the view as linear functions of those of the image."""
    limits = {"flip": "none", "rotate": 20.0, "shift": 0.1, "scale": 0.2}
    down, along = np.mgrid[0:160, 0:200].astype(np.uint8)
    places = np.stack([along, down, np.zeros_like(down)], axis=2)
    middle = (slice(60, 100), slice(80, 120))
    y, x = (grid[middle].ravel() + 0.5 for grid in np.mgrid[0:160, 0:200])
    turns, zooms, shifts = [], [], []
    for number, image in itertools.product((1, 2), IDS):
        seen = apply_view(places, view(number, **limits), image)[middle].reshape(-1, 3)
        inverse, *_ = np.linalg.lstsq(np.stack([x, y, np.ones_like(x)], axis=1), seen[:, :2] + 0.5, rcond=None)
        linear, offset = np.linalg.inv(inverse[:2].T), inverse[2]
        zooms.append(np.sqrt(np.linalg.det(linear)))
        turns.append(np.degrees(np.arctan2(linear[1, 0], linear[0, 0])))
        shifts.append((linear @ ([100, 80] - offset) - [100, 80]) / [200, 160])
        assert np.allclose(linear @ linear.T, zooms[-1] ** 2 * np.eye(2), atol=0.02)
    for found, most, near in ((turns, 20, 0.5), (np.array(zooms) - 1, 0.2, 0.01), (np.array(shifts), 0.1, 0.005)):
        found = np.asarray(found).reshape(len(turns), -1)
        assert (np.abs(found).max(axis=0) < most + near).all()
        assert (found.max(axis=0) > 0.8 * most).all()
        assert (found.min(axis=0) < -0.8 * most).all()
    together = np.corrcoef(np.column_stack([turns, zooms, shifts]).T)
    assert np.abs(together - np.eye(4)).max() < 0.5  # each has a draw of its own


def test_brightness_adds_the_same_everywhere_and_is_clipped() -> None:
    gray, white = (np.full((4, 4, 3), value, np.uint8) for value in (100, 255))
    added = [int(apply_view(gray, view(1, brightness=0.2), image)[0, 0, 0]) - 100 for image in IDS]
    assert -51 <= min(added) < -40
    assert 40 < max(added) <= 51
    assert all(len(np.unique(apply_view(gray, view(1, brightness=0.2), image))) == 1 for image in IDS)
    assert max(int(apply_view(white, view(1, brightness=1), image).min()) for image in IDS) == 255


def test_contrast_is_about_the_mean_of_the_image() -> None:
    halves = np.full((4, 4, 3), 50, np.uint8)
    halves[:2] = 150
    spans = []
    for image in IDS:
        found = apply_view(halves, view(1, flip="none", contrast=0.5), image).astype(int)
        assert found[0, 0, 0] + found[-1, 0, 0] == 200
        spans.append(found[0, 0, 0] - found[-1, 0, 0])
    assert 50 <= min(spans) < 65
    assert 135 < max(spans) <= 150
