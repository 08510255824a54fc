"""schedule.py: runs with a numpy base, of views of images, and of taps stored each in its own way."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache.errors import PipelineError
from cache.hash_index import HashIndex
from cache.store import Cache
from stages.bases.recipe import FeatureSpec, Recipe, Tap
from stages.data import augment, images
from stages.extract import schedule, shard_task
from stages.extract.cluster import ClusterSpec
from tests.support import fakes
from tests.support.networks import DEFAULT
from tests.support.pictures import encoded, photograph

RECIPE = replace(DEFAULT, pixels=images.PixelSpec(32, 32))


def some_view(number: int = 1) -> augment.View:
    return augment.View(augment.Augment("both", True, 20, 0.1, 0.1, 0.1, 0.1), 0, number)


def run_of(cache: Cache, recipe: Recipe, taps: list[Tap], files: dict[str, str], batch: int) -> list[Any]:
    """The rows at each tap, after a run of nothing but them."""
    (cache.root.parent / "weights").write_bytes(b"")
    job = shard_task.Job(recipe, str(cache.root.parent / "weights"), str(cache.root), batch, version("frozenbase"))
    keyed = {recipe.key(tap): tap for tap in taps}
    lacking = schedule.find_missing(cache, {key: FeatureSpec(recipe, keyed[key]) for key in keyed}, list(files))
    paths = {image: [path] for image, path in files.items()}
    schedule.compute_missing(cache, schedule.Work([(job, keyed)], lacking, paths), ClusterSpec(1))
    return [cache.features(recipe.components(tap)).read(sorted(files)) for tap in taps]


@pytest.fixture
def pictures(tmp_path: Path) -> dict[str, str]:
    """id -> path of 11 photographs, one a pixel or two narrower than the other."""
    found = {}
    for i in range(11):
        data = encoded(photograph(size=(60 - i, 64)), "PNG")
        found[hashlib.sha256(data).hexdigest()] = str(tmp_path / f"{i}.png")
        (tmp_path / f"{i}.png").write_bytes(data)
    return found


def test_rows_of_a_view_are_of_the_view_whoever_stands_beside(
    fake_embed: None, tmp_path: Path, pictures: dict[str, str]
) -> None:
    recipe, taps = replace(RECIPE, view=some_view()), [Tap(), Tap(pooling="none")]
    vectors, maps = run_of(Cache(tmp_path / "a", HashIndex()), recipe, taps, pictures, batch=4)
    for row, (image, path) in zip(maps, sorted(pictures.items()), strict=True):
        plain = images.decode(Path(path).read_bytes(), recipe.pixels)
        assert np.array_equal(row, augment.apply_view(plain, some_view(), image)[::8, ::8])
        assert not np.array_equal(row, plain[::8, ::8])
    turned = dict(reversed(pictures.items()))
    others = run_of(Cache(tmp_path / "b", HashIndex()), recipe, taps, turned, batch=3)
    assert [rows.tobytes() for rows in others] == [vectors.tobytes(), maps.tobytes()]


def test_one_base_serves_all_views(tmp_path: Path, pictures: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    built = []

    class Counted(fakes.FakeEmbed):
        def __init__(self, *about: Any) -> None:
            super().__init__(*about)
            built.append(self)

    monkeypatch.setattr("stages.extract.opened_bases.open_embed", Counted)
    cache = Cache(tmp_path / "a", HashIndex())
    rows = [
        run_of(cache, replace(RECIPE, view=view), [Tap()], pictures, batch=4)[0].tobytes()
        for view in (None, some_view(1), some_view(2))
    ]
    assert (len(set(rows)), len(built)) == (3, 1)


def test_one_forward_pass_fills_taps_of_either_dtype(
    fake_embed: None, tmp_path: Path, pictures: dict[str, str]
) -> None:
    taps = [Tap(), Tap(dtype="float16"), Tap(pooling="none", dtype="float16")]
    wide, narrow, maps = run_of(Cache(tmp_path / "a", HashIndex()), RECIPE, taps, pictures, batch=4)
    assert (wide.dtype, narrow.dtype, maps.dtype) == (np.float32, np.float16, np.float16)
    assert np.array_equal(wide.astype(np.float16), narrow)


def test_a_tap_s_own_float16_that_is_too_narrow_is_said(
    tmp_path: Path, pictures: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stages.extract.opened_bases.open_embed", fakes.LargeEmbed)
    with pytest.raises(PipelineError) as caught:
        run_of(Cache(tmp_path / "a", HashIndex()), RECIPE, [Tap(dtype="float16")], pictures, batch=4)
    assert caught.value.hint == "store layer output as float32"


@given(st.integers(1, 20_000), st.integers(1, 64), st.sampled_from([None, 8, 32]), st.sampled_from(["lite0", "vgg16"]))
def test_tasks_are_of_whole_batches_and_as_many_for_each_thread(
    n: int, threads: int, batch: int | None, base: str
) -> None:
    """A part of a batch is padded, and costs as much: 25 rows in batches of 8 took a quarter longer than 24."""
    recipe = replace(DEFAULT, base={"lite0": "efficientnet_lite0"}.get(base, base))
    ids = [str(i) for i in range(n)]
    job = shard_task.Job(recipe, "/w", "/c", batch, "0")
    work = schedule.Work([(job, {"k": Tap()})], dict.fromkeys(ids, ("k",)), dict.fromkeys(ids, ("/i",)))
    tasks = work.tasks(threads, "run")
    assert [image for task in tasks for image, _ in task.rows] == ids
    size, sizes = batch or 8, [len(task.rows) for task in tasks]
    assert all(rows % size == 0 for rows in sizes[:-1])
    assert max(sizes) - min(sizes[:-1], default=max(sizes)) <= size
    assert max(sizes) * 4 * 1280 <= shard_task.SHARD_BYTES
    assert len(tasks) % threads == 0 or set(sizes[:-1]) <= {size}


def test_a_task_has_as_many_images_as_are_asked_for() -> None:
    ids = [str(i) for i in range(20)]
    job = shard_task.Job(DEFAULT, "/w", "/c", None, "0")
    work = schedule.Work([(job, {"k": Tap()})], dict.fromkeys(ids, ("k",)), dict.fromkeys(ids, ("/i",)), shard_rows=9)
    assert [len(task.rows) for task in work.tasks(2, "run")] == [9, 9, 2]
