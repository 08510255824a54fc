"""shard_task.py: what becomes a row, what becomes a reject, and what becomes neither."""

from __future__ import annotations

import csv
import errno
import hashlib
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cache.errors import Unusable
from cache.hash_index import HashIndex
from stages.bases.recipe import Tap
from stages.data import images
from stages.extract import opened_bases, shard_task
from tests.conftest import Pipeline, cache_files, counts, extract, opened
from tests.support import crash, fakes, pictures
from tests.support.networks import DEFAULT


def test_a_file_that_changes_during_the_run_is_a_reject_never_a_row(
    pipeline: Pipeline, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    victim = project.parent / "images" / "dark" / "0005.png"
    real = HashIndex.digests

    def then_edit(self: HashIndex, paths: Any, *rest: Any) -> Any:
        found = real(self, paths, *rest)
        if str(victim) in paths:
            victim.write_bytes(fakes.numbered(999))
        return found

    monkeypatch.setattr(HashIndex, "digests", then_edit)
    ran = pipeline("run", "extract", "-c", project, "--json")
    assert ran.code == 3
    assert ran.json["extract"]["computed"] == 23
    assert ran.json["extract"]["rejected"] == [
        {
            "path": "dark/0005.png",
            "reason": "its bytes are not those of its id: changed during the run, or since the table was made",
        }
    ]


def spoil(project: Path) -> dict[str, bytes]:
    bad = {
        "dark/empty.png": b"",
        "dark/text.jpg": b"this is no picture",
        "bright/torn.png": fakes.textured(7, bright=True)[:200],
        "bright/torn copy.png": fakes.textured(7, bright=True)[:200],
    }
    for path, data in bad.items():
        (project.parent / "images" / path).write_bytes(data)
    return bad


def test_bad_images_are_listed_and_the_good_ones_extracted(pipeline: Pipeline, project: Path) -> None:
    bad = spoil(project)
    ran = pipeline("run", "-c", project, "--json")
    assert ran.code == 3
    assert ran.json["error"]["code"] == "images_rejected"
    assert ran.json["extract"]["computed"] == 24
    assert {reject["path"] for reject in ran.json["extract"]["rejected"]} == set(bad)
    assert all(reject["reason"] for reject in ran.json["extract"]["rejected"])
    assert "heads" not in ran.json
    with open(project.parent / "rejects.csv", newline="") as file:
        assert {row["path"] for row in csv.DictReader(file)} == set(bad)
    assert pipeline("run", "head", "-c", project, "--json").code == 3


def test_every_kind_of_file_is_a_row_or_a_reject_and_none_disturbs_another(pipeline: Pipeline, tmp_path: Path) -> None:
    photo, options = pictures.photograph, {"save_all": True, "append_images": [pictures.photograph("L")]}
    jpeg = pictures.encoded(photo(), "JPEG")
    exif = Image.Exif()
    exif[0x0112] = 6
    good = {
        "cmyk.jpg": pictures.encoded(photo("CMYK"), "JPEG"),
        "palette.png": pictures.encoded(photo("P"), "PNG"),
        "sixteen.png": pictures.encoded(Image.fromarray(np.arange(0, 60000, 6, np.uint16).reshape(100, 100)), "PNG"),
        "alpha.png": pictures.encoded(photo("RGBA"), "PNG"),
        "animated.gif": pictures.encoded(photo("P"), "GIF", **options),
        "turned.jpg": pictures.encoded(photo(), "JPEG", exif=exif),
        "a gif.jpg": pictures.encoded(photo("P"), "GIF"),
        "plain.png": fakes.numbered(300),
    }
    bad = {
        "empty.png": (b"", "empty file"),
        "half.jpg": (jpeg[: len(jpeg) // 2], "cannot be decoded: "),
        "text.png": (b"hello", "not an image of a known format"),
        "bomb.png": (pictures.png_header(60_000, 60_000), "60000x60000 is more than 250 Mpx"),
    }
    (tmp_path / "images").mkdir()
    for name, data in {**good, **{name: data for name, (data, _) in bad.items()}}.items():
        (tmp_path / "images" / name).write_bytes(data)
    (tmp_path / "pipeline.yaml").write_text("extract: {size: 32}")
    ran = pipeline("run", "extract", "-c", tmp_path, "--json")
    assert (ran.code, ran.json["extract"]["computed"]) == (3, len(good))
    reasons = {reject["path"]: reject["reason"] for reject in ran.json["extract"]["rejected"]}
    assert set(reasons) == set(bad)
    assert all(reasons[name].startswith(reason) for name, (_, reason) in bad.items())
    project = opened(tmp_path)
    for row in project.manifest.without(hashlib.sha256(data).hexdigest() for data, _ in bad.values()).rows:
        pixels = images.decode(good[row.path], project.spec("pooled").recipe.pixels)
        assert np.allclose(project.store("pooled").read([row.id])[0, :3], pixels.mean(axis=(0, 1)), rtol=1e-5)


def test_bad_images_can_be_skipped_and_cost_no_base_later(
    pipeline: Pipeline, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(project)
    ran = pipeline("run", "-c", project, "--json", "--set", "data.on_bad=skip")
    assert ran.code == 0
    assert ran.json["heads"]["logistic"]["metrics"]["folds"]["n"] > 0
    monkeypatch.setattr("stages.extract.opened_bases.open_embed", None)  # building a base would fail now
    again = pipeline("run", "-c", project, "--json", "--set", "data.on_bad=skip")
    assert counts(again) == (0, 24)
    assert again.json["heads"]["logistic"]["hit"]


def test_nothing_but_rejects_is_no_success(pipeline: Pipeline, project: Path) -> None:
    (project.parent / "t.csv").write_text("path,label\nimages/dark/0000.png,dark\n")
    words = ("--set", "data.on_bad=skip", "--set", "data.table=t.csv")
    ran = pipeline("run", "-c", project, "--json", *words)
    assert ran.code == 3
    assert ran.json["error"]["hint"] == f"correct data.root: the table's paths are relative to {project.parent}/images"


def test_a_list_of_rejects_that_cannot_be_written_is_no_obstacle(pipeline: Pipeline, project: Path) -> None:
    spoil(project)
    (project.parent / "rejects.csv").mkdir()
    ran = pipeline("run", "-c", project, "--set", "data.on_bad=skip")
    assert ran.code == 0
    assert "the list of rejects is not up to date" in ran.err


def test_a_cache_that_cannot_be_written_is_said_before_anything_starts(
    pipeline: Pipeline, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project.parent / "file").write_bytes(b"")
    monkeypatch.setattr("stages.extract.schedule.connect", None)
    ran = pipeline("run", "-c", project, "--json", "--set", "cache.dir=file/below")
    assert ran.code == 1
    assert "cannot write to the cache" in ran.json["error"]["message"]
    assert "cache.dir" in ran.json["error"]["hint"]


def test_a_read_only_cache_serves_what_it_has_and_says_why_it_cannot_take_more(
    pipeline: Pipeline, project: Path
) -> None:
    def refuse(_: int, name: str, arguments: tuple[Any, ...]) -> None:
        if name not in ("fsync", "close") and not (name == "open" and not arguments[1] & os.O_CREAT):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    pipeline("run", "-c", project)
    with crash.standing(crash.Shim(refuse)) as shim:
        again = pipeline("run", "-c", project, "--json")
        assert (again.code, again.json["extract"]["computed"], again.json["heads"]["logistic"]["hit"]) == (0, 0, True)
        fakes.two_classes(project.parent / "images", 1, start=70)
        refused = pipeline("run", "-c", project, "--json")
    assert shim.count > 0
    assert refused.code == 1
    assert "cannot write to the cache" in refused.json["error"]["message"]
    assert "(Read-only file system)" in refused.json["error"]["message"]
    assert "name a writable cache: --set cache.dir=DIR" in refused.json["error"]["hint"]


def test_the_list_of_rejects_goes_when_they_are_mended(pipeline: Pipeline, project: Path) -> None:
    bad = spoil(project)
    pipeline("run", "extract", "-c", project)
    for path in bad:
        (project.parent / "images" / path).unlink()
    assert pipeline("run", "extract", "-c", project).code == 0
    assert not (project.parent / "rejects.csv").exists()


def test_a_second_copy_serves_where_the_first_was_edited(pipeline: Pipeline, project: Path) -> None:
    """Both stood under one id; only one still holds its bytes."""
    images = project.parent / "images" / "dark"
    shutil.copy(images / "0000.png", images / "zzz.png")
    table = project.parent / "t.csv"
    sha = hashlib.sha256((images / "zzz.png").read_bytes()).hexdigest()
    table.write_text(f"id,path\n{sha},dark/0000.png\n{sha},dark/zzz.png\n")
    (images / "0000.png").write_bytes(fakes.numbered(3))
    assert extract(pipeline, project, "--set", "data.table=t.csv") == (1, 0)


def test_a_fifo_is_a_reject_and_no_hang(pipeline: Pipeline, project: Path) -> None:
    os.mkfifo(project.parent / "images" / "dark" / "pipe.png")
    ran = pipeline("run", "extract", "-c", project, "--json")
    assert ran.json["extract"]["rejected"] == [
        {"path": "dark/pipe.png", "reason": "cannot be read: it is not a regular file"}
    ]


def test_weights_other_than_those_of_the_key_make_no_row(tmp_path: Path) -> None:
    (tmp_path / "w.pth").write_bytes(b"another file")
    job = shard_task.Job(DEFAULT, str(tmp_path / "w.pth"), str(tmp_path), None, "0")
    with pytest.raises(Unusable, match=r"w\.pth: SHA-256 [0-9a-f]{12}\.\.\.; expected 121212121212\.\.\."):
        opened_bases.open_embed(job, {"k": Tap()})


def test_too_large_for_float16_is_said(pipeline: Pipeline, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stages.extract.opened_bases.open_embed", fakes.LargeEmbed)
    ran = pipeline("run", "extract", "-c", project, "--json", "--set", "extract.dtype=float16")
    assert (ran.code, ran.json["error"]["hint"]) == (1, "use extract.dtype: float32")


def test_old_rejects_do_not_stop_a_run_that_must_not_compute(pipeline: Pipeline, project: Path) -> None:
    spoil(project)
    words = ("--set", "data.on_bad=skip")
    extract(pipeline, project, *words)
    assert extract(pipeline, project, *words, "--require-cached") == (0, 24)


def test_rows_that_are_not_finite_are_not_kept(
    pipeline: Pipeline, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken(fakes.FakeEmbed):
        def __call__(self, pixels: np.ndarray) -> dict[str, np.ndarray]:
            return {key: rows * np.float32(np.nan) for key, rows in super().__call__(pixels).items()}

    monkeypatch.setattr("stages.extract.opened_bases.open_embed", Broken)
    ran = pipeline("run", "-c", project, "--json")
    assert ran.code == 1
    assert "rows are not finite" in ran.json["error"]["message"]
    assert ran.json["error"]["hint"] == "check the weights"
    assert [path.name for path in cache_files(project)] == ["spec.json"]


def test_a_big_shard_is_written_in_parts(pipeline: Pipeline, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stages.extract.shard_task.SHARD_BYTES", 6 * 6 * 4)  # six rows of six float32
    assert extract(pipeline, project, "--set", "extract.shard_rows=24") == (24, 0)
    assert sum(path.suffix == ".h5" for path in cache_files(project)) == 3
