"""likeness.py and copies.py: copies are found however they were altered, and pictures that only look alike are not."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from stages.audit import copies, neighbour_search
from stages.audit.likeness import SIDE, coarse, is_flat, likeness, make_copies, mirror, thumbnail, views


def picture(seed: int, side: int = 120) -> np.ndarray:
    """Blurred noise: (side, side, 3) uint8."""
    noise = np.random.default_rng(seed).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(noise).resize((side, side), Image.Resampling.BICUBIC))


def alike(one: np.ndarray, other: np.ndarray) -> float:
    return float(likeness(views(thumbnail(one)), thumbnail(other)[None])[0])


@pytest.mark.parametrize("kind", ["resized", "recompressed", "brighter", "mirrored", "cropped"])
def test_an_altered_copy_is_like_its_original_and_another_picture_is_not(kind: str) -> None:
    altered = dict(make_copies(picture(1)))[kind]
    assert not np.array_equal(altered, picture(1))
    assert alike(picture(1), altered) > 0.9
    assert alike(picture(2), altered) < 0.5


def test_a_picture_is_like_itself_and_unlike_one_with_another_corner() -> None:
    changed = picture(1).copy()
    changed[60:, 60:] = picture(2)[60:, 60:]
    assert alike(picture(1), picture(1)) == pytest.approx(1, abs=1e-5)
    assert alike(picture(1), changed) < 0.5


def test_small_objects_before_one_background_are_alike_only_if_they_are_the_same() -> None:
    """Most tiles are flat in both pictures, and must not speak for them."""

    def on_white(seed: int, at: int) -> np.ndarray:
        pixels = np.full((120, 120, 3), 250, np.uint8)
        pixels[at : at + 60, at : at + 60] = picture(seed, 60)
        return pixels

    assert alike(on_white(1, 20), on_white(1, 20)) == pytest.approx(1, abs=1e-5)
    assert alike(on_white(1, 20), on_white(2, 20)) < 0.7
    assert alike(on_white(1, 0), on_white(1, 60)) < 0.5


def test_a_picture_of_one_colour_is_flat() -> None:
    thumbs = np.stack([np.full((SIDE, SIDE), 200, np.uint8), thumbnail(picture(0))])
    assert is_flat(thumbs).tolist() == [True, False]


def test_coarse_thumbnails_have_length_1_and_mirrored_ones_are_those_of_the_mirrored_picture() -> None:
    thumbs = np.stack([thumbnail(picture(seed)) for seed in range(3)])
    assert np.linalg.norm(coarse(thumbs), axis=1) == pytest.approx(np.ones(3), abs=1e-5)
    assert mirror(coarse(thumbs)) == pytest.approx(coarse(thumbs[:, :, ::-1]), abs=1e-5)


@pytest.fixture(scope="module")
def planted() -> tuple[np.ndarray, list[tuple[int, int]]]:
    """300 pictures, and 10 copies of some of them: thumbnails, and the pairs."""
    originals = [picture(seed) for seed in range(300)]
    pairs = [(7 * i, 300 + i) for i in range(10)]
    made = [list(make_copies(originals[of]))[number % 5][1] for of, number in pairs]
    return np.stack([thumbnail(one) for one in (*originals, *made)]), pairs


def find(thumbs: np.ndarray, near: np.ndarray) -> copies.Copies:
    return copies.find_copies(thumbs, coarse(thumbs), near)


def near_in_rows(n: int, pairs: list[tuple[int, int]]) -> np.ndarray:
    """The five nearest rows of each, among which is its copy."""
    near = np.random.default_rng(0).integers(0, 300, (n, 5))
    for of, copy in pairs:
        near[copy, 3] = of
    return near


def test_all_copies_are_found_and_no_other_pair(planted: tuple[np.ndarray, list[tuple[int, int]]]) -> None:
    thumbs, pairs = planted
    found = find(thumbs, near_in_rows(len(thumbs), pairs))
    assert {*map(tuple, found.pairs.tolist())} == {*pairs}
    assert [*found.likeness] == sorted(found.likeness, reverse=True)
    assert copies.LEAST <= found.threshold < found.likeness.min()


def test_what_rows_keep_apart_is_no_copy(planted: tuple[np.ndarray, list[tuple[int, int]]]) -> None:
    thumbs, pairs = planted
    found = find(thumbs, near_in_rows(len(thumbs), pairs[:4]))
    assert {*map(tuple, found.pairs.tolist())} == {*pairs[:4]}


def test_candidates_do_not_depend_on_the_size_of_blocks(
    planted: tuple[np.ndarray, list[tuple[int, int]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    thumbs, pairs = planted
    near = near_in_rows(len(thumbs), pairs)
    whole = find(thumbs, near)
    monkeypatch.setattr(neighbour_search, "BLOCK", 64)
    assert np.array_equal(find(thumbs, near).pairs, whole.pairs)


def test_pictures_of_one_colour_are_no_copies() -> None:
    thumbs = np.zeros((12, SIDE, SIDE), np.uint8)
    assert len(find(thumbs, near_in_rows(12, []) % 12).pairs) == 0


def test_the_share_of_copies_that_would_be_found_falls_with_the_threshold() -> None:
    some = [picture(seed) for seed in range(4)]
    assert set(copies.shares_found(some, 0.5).values()) == {1.0}
    assert set(copies.shares_found(some, 0.9999).values()) < {0.0, 0.25, 0.5, 0.75, 1.0}
    assert copies.shares_found(some, 0.9999)["recompressed"] == 0


def test_pairs_make_groups_named_by_their_first() -> None:
    pairs = np.array([(1, 4), (4, 2), (5, 6)])
    assert copies.join_groups(pairs, 8).tolist() == [0, 1, 1, 3, 1, 5, 5, 7]
    assert copies.join_groups(np.empty((0, 2), int), 3).tolist() == [0, 1, 2]
