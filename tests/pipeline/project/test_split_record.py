"""split_record.py: splits.csv remembers what was drawn, is only added to, and wins over a new draw."""

from __future__ import annotations

import errno
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import pipeline as frozenbase
from cache import atomic_files
from cache.errors import Unusable
from pipeline.config.data_schema import Split
from pipeline.project import split_record
from pipeline.project.split_record import SPLITS_CSV, SplitRecord
from stages.data.manifest import Row
from tests.conftest import Pipeline, opened
from tests.support import fakes, process

N = 24
HEADER = "# method=stratified val=0.3 test=0.2 seed=0"


@pytest.fixture
def config(project: Path) -> Path:
    project.write_text("data: {split: {method: stratified, val: 0.3, test: 0.2}}\nextract: {size: 16}\n")
    return project


def record(config: Path) -> Path:
    return config.parent / SPLITS_CSV


def lines(config: Path) -> dict[str, tuple[str, str]]:
    """id -> (split, path)."""
    header, columns, *rest = record(config).read_text().splitlines()
    assert (header, columns) == (HEADER, "id,split,path")
    found = [tuple(line.split(",")) for line in rest]
    assert [image for image, *_ in found] == sorted({image for image, *_ in found})
    return {image: (split, path) for image, split, path in found}


def today(config: Path, *overrides: str) -> dict[str, str | None]:
    return {row.id: row.split for row in opened(config, *overrides).manifest.rows}


def change(config: Path, old: str, new: str) -> None:
    """In splits.csv."""
    text = record(config).read_text()
    assert old in text
    record(config).write_text(text.replace(old, new))


def test_a_run_writes_a_line_for_each_image_and_the_next_leaves_the_file_alone(
    pipeline: Pipeline, config: Path
) -> None:
    first = pipeline("run", "-c", config, "--json")
    assert first.code == 0
    found = lines(config)
    assert {image: split for image, (split, _) in found.items()} == today(config)
    assert {path for _, path in found.values()} == {row.path for row in opened(config).manifest.rows}
    for label in ("bright", "dark"):
        counts = Counter(split for split, path in found.values() if path.startswith(label))
        assert counts == {"train": 6, "val": 4, "test": 2} or counts == {"train": 6, "val": 3, "test": 3}
    before = record(config).stat()
    again = pipeline("run", "-c", config, "--json")
    assert again.json["heads"]["logistic"]["hit"]
    assert record(config).stat() == before
    assert sorted(path.name for path in config.parent.iterdir() if "splits" in path.name) == [SPLITS_CSV]


def test_only_what_trains_writes_and_what_was_previewed_is_what_is_run(pipeline: Pipeline, config: Path) -> None:
    previewed = pipeline("status", "--hash", "-c", config, "--json").json["status"]["counts"]
    for words in (
        "run -n --hash", "run extract --part 1/2", "run extract", "crossval logistic", "status",
        f"export features -o {config.parent}/f.npz",
    ):  # fmt: skip
        assert pipeline(*words.split(), "-c", config).code == 0, words
    frozenbase.open(config).features("train")
    drawn = today(config)
    assert not record(config).exists()
    assert pipeline("run", "-c", config).code == 0
    assert {image: split for image, (split, _) in lines(config).items()} == drawn
    assert pipeline("status", "-c", config, "--json").json["status"]["counts"] == previewed


def test_from_python_a_head_writes(fake_embed: None, config: Path) -> None:
    project = frozenbase.open(config)
    before = project.manifest
    project.head("logistic")
    assert project.manifest == before
    assert len(lines(config)) == N


def test_new_images_are_added_and_deleted_ones_stay(pipeline: Pipeline, config: Path) -> None:
    assert pipeline("run", "-c", config).code == 0
    first = lines(config)
    gone = config.parent / "images" / "dark" / "0003.png"
    kept = gone.read_bytes()
    gone.unlink()
    fakes.two_classes(config.parent / "images", 5, start=50)
    previewed = today(config)
    assert pipeline("run", "-c", config).code == 0
    second = lines(config)
    assert len(second) == N + 10
    assert first.items() <= second.items()
    assert {image: split for image, (split, _) in second.items() if image in previewed} == previewed
    (config.parent / "images" / "bright" / "back.png").write_bytes(kept)  # under another name and label
    image, (split, _) = next((image, line) for image, line in first.items() if line[1] == "dark/0003.png")
    assert today(config)[image] == split
    assert pipeline("run", "-c", config).code == 0
    assert lines(config) == second


def test_an_image_without_a_label_has_no_line_and_one_that_gets_a_label_does(pipeline: Pipeline, config: Path) -> None:
    loose = config.parent / "images" / "loose.png"
    loose.write_bytes(fakes.numbered(1))
    assert pipeline("run", "-c", config).code == 0
    assert len(lines(config)) == N
    loose.rename(config.parent / "images" / "dark" / "loose.png")
    assert pipeline("run", "-c", config).code == 0
    assert len(lines(config)) == N + 1


def test_an_edited_line_counts(pipeline: Pipeline, config: Path) -> None:
    key = pipeline("run", "-c", config, "--json").json["heads"]["logistic"]["key"]
    image = next(image for image, (split, _) in lines(config).items() if split == "train")
    change(config, f"{image},train", f"{image},test")
    assert today(config)[image] == "test"
    again = pipeline("run", "-c", config, "--json")
    assert again.json["heads"]["logistic"]["key"] != key
    assert lines(config)[image][0] == "test"


@pytest.mark.parametrize(
    "saved",
    [
        lambda text: "\ufeff" + text.replace("\n", "\r\n"),
        lambda text: text.replace(HEADER, HEADER + ",,").replace(",", ";"),
        lambda text: text.replace(HEADER, f'"{HEADER}"').replace(",", " ,\t").upper().replace(HEADER.upper(), HEADER),
        lambda text: "\n".join(line.rpartition(",")[0] or line for line in text.splitlines()) + "\n\n",
        lambda text: text + text.splitlines()[-1] + "\n",
        lambda text: text.replace(HEADER, "#   method=stratified  val=0.3 test=0.2 seed=0 "),
    ],
    ids=["mark and CRLF", "semicolons", "spaces and capitals", "no paths", "a line twice", "spaces in the header"],
)
def test_what_spreadsheets_make_of_it_is_read(pipeline: Pipeline, config: Path, saved: Callable[[str], str]) -> None:
    assert pipeline("run", "-c", config).code == 0
    image = next(image for image, (split, _) in lines(config).items() if split == "train")
    change(config, f"{image},train", f"{image},test")
    expected = today(config)
    record(config).write_bytes(saved(record(config).read_text()).encode())
    assert today(config) == expected
    assert expected[image] == "test"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (",train,", ",trian,", r"splits\.csv, line \d+: the split 'trian'; expected train, val or test"),
        ("id,split,path\n", "id,split,path\nabc,train,\n", "line 3: the id 'abc'; expected 64 hex digits"),
        ("id,split,path\n", "id,split,path\n<<<<<<< HEAD\n", "line 3: the id '<<<<<<< HEAD'; expected 64 hex digits"),
        ("id,split,path", "image,split", r"line 2: the columns image, split; expected id, split, path"),
        ("id,split,path\n", "id,split,path\n" + "A" * 64 + ",val,\n" + "a" * 64 + ",test,\n",
         "line 4: test for the image of line 3; expected val"),
        ("id,split,path\n", "id,split,path\n" + "0" * 64 + ",val," + "x" * 200_000, r"line 3: field larger than"),
        (HEADER, "path,label", r"splits\.csv does not begin with # method=\.\.\., so it is not what this package"),
        ("seed=0", "seed=1", "was drawn with method=stratified val=0.3 test=0.2 seed=1, but pipeline.yaml has method="),
        ("val=0.3 ", "", "was drawn with method=stratified test=0.2 seed=0, but pipeline.yaml has method="),
    ],
)  # fmt: skip
def test_a_wrong_file_is_exit_2_with_the_line_and_is_left_as_it_is(
    pipeline: Pipeline, config: Path, old: str, new: str, message: str
) -> None:
    assert pipeline("run", "-c", config).code == 0
    change(config, old, new)
    before = record(config).read_bytes()
    for words in (("run",), ("status",), ("run", "-n")):
        ran = pipeline(*words, "-c", config)
        assert ran.code == 2
    with pytest.raises(Unusable, match=message) as caught:
        _ = opened(config).manifest
    assert "pipeline splits redraw" in caught.value.hint or "call that file otherwise" in caught.value.hint
    assert record(config).read_bytes() == before


def test_a_file_that_cannot_be_read_is_named(config: Path) -> None:
    record(config).mkdir()
    with pytest.raises(Unusable, match=r"splits\.csv cannot be read: "):
        _ = opened(config).manifest
    config.write_text("data: {split: {val: 0.3, test: 0.2}}")
    assert set(today(config).values()) == {"train", "val", "test"}


def test_other_settings_for_one_command_are_a_trial(pipeline: Pipeline, config: Path) -> None:
    assert pipeline("run", "-c", config).code == 0
    before = record(config).read_bytes()
    fakes.two_classes(config.parent / "images", 3, start=80)
    for override in ("data.split.seed=3", "data.split.method=hash", "data.split.val=0.4", r"data.group_from='(\d)\.'"):
        assert pipeline("run", "-c", config, "--set", override).code == 0, override
        assert record(config).read_bytes() == before
    assert today(config, "data.split.seed=3") != today(config)
    assert pipeline("run", "-c", config, "--set", "extract.size=24").code == 0
    assert len(lines(config)) == N + 6, "the images are the same with another size"


def test_hash_remembers_nothing_and_minds_no_table_of_that_name(pipeline: Pipeline, config: Path) -> None:
    stratified = config.read_text()
    config.write_text(stratified.replace("method: stratified, ", ""))
    assert pipeline("run", "-c", config).code == 0
    assert not record(config).exists()
    record(config).write_text("path,label,split\n")
    assert pipeline("run", "-c", config).code == 0
    assert record(config).read_text() == "path,label,split\n"
    record(config).write_text(f"{HEADER}\nid,split\n")
    ran = pipeline("run", "-c", config)
    assert ran.code == 2
    assert "but pipeline.yaml has method=hash val=0.3 test=0.2 seed=0" in ran.err
    assert "hash remembers nothing: remove the file, or set data.split as it was" in ran.err


def test_a_table_of_that_name_with_all_splits_is_a_table(pipeline: Pipeline, config: Path) -> None:
    rows = opened(config).manifest.rows
    table = "path,label,split\n" + "".join(f"{row.path},{row.label},{row.split}\n" for row in rows)
    record(config).write_text(table)
    config.write_text(config.read_text().replace("data: {", "data: {table: splits.csv, root: images, "))
    assert pipeline("run", "-c", config).code == 0
    assert record(config).read_text() == table


def test_only_what_is_drawn_has_a_line(pipeline: Pipeline, config: Path) -> None:
    rows = opened(config).manifest.rows
    own = {row.path: "test" if i % 4 == 0 else "train" for i, row in enumerate(rows)}
    (config.parent / "labels.csv").write_text(
        "path,label,split\n" + "".join(f"{row.path},{row.label},{own[row.path]}\n" for row in rows)
    )
    config.write_text(config.read_text().replace("data: {", "data: {table: labels.csv, root: images, "))
    assert pipeline("run", "-c", config).code == 0
    found = {path: split for split, path in lines(config).values()}
    assert set(found) == {path for path, split in own.items() if split == "train"}
    assert set(found.values()) == {"train", "val"}


def test_a_copy_and_a_group_follow_their_line(pipeline: Pipeline, config: Path) -> None:
    images = config.parent / "images"
    config.write_text(config.read_text().replace("data: {", r"data: {group_from: '(\d\d)\.png', "))
    assert pipeline("run", "-c", config).code == 0
    split_of = {path: split for split, path in lines(config).values()}
    assert all(split_of[f"bright/00{i:02}.png"] == split_of[f"dark/00{i:02}.png"] for i in range(12))
    shutil.copy(images / "dark" / "0005.png", images / "dark" / "copy 05.png")
    (images / "dark" / "new 05.png").write_bytes(fakes.textured(777, False))
    assert pipeline("run", "-c", config).code == 0
    found = {path: split for split, path in lines(config).values()}
    assert found == {**split_of, "dark/new 05.png": split_of["dark/0005.png"]}


def test_merged_groups_that_disagree_are_told_and_their_lines_stay(pipeline: Pipeline, config: Path) -> None:
    assert pipeline("run", "-c", config).code == 0
    before = lines(config)
    config.write_text(config.read_text().replace("data: {", "data: {group_from: '(dark)', "))
    split_of = {row.path: row.split for row in opened(config).manifest.rows}
    assert {split for path, split in split_of.items() if path.startswith("dark")} == {"test"}
    ran = pipeline("run", "-c", config)
    told = "put images of one group into different splits: dark (train, val, test); all of a group go to test"
    assert told in ran.err
    assert lines(config) == before


def test_where_it_cannot_be_written_a_run_stops_unless_it_is_complete(
    pipeline: Pipeline, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_only(path: str | Path, *more: int) -> int:
        if str(path).endswith(".splits.csv.lock"):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        return really(path, *more)

    really = os.open
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", read_only)
        ran = pipeline("run", "-c", config, "--json")
    assert (ran.code, "extract" in ran.json) == (2, False)
    assert (
        "splits.csv cannot be written: Read-only file system; 24 labelled images have no line in it"
        in (ran.json["error"]["message"])
    )
    assert pipeline("run", "extract", "-c", config).code == 0
    assert pipeline("run", "-c", config).code == 0
    monkeypatch.setattr(os, "open", read_only)
    assert pipeline("run", "-c", config).code == 0


def test_who_loses_the_race_reads_it_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process draws one of the images between our reading and our writing."""
    rows = [Row(f"{i:064x}", f"{i}.png", "a") for i in range(6)]
    settings = Split(method="stratified", val=0.3, test=0.2)
    exclusive, faster = atomic_files.exclusive, [rows[:1], rows[1:4]]

    @contextmanager
    def late(path: Path) -> Iterator[bool]:
        if faster:
            monkeypatch.setattr(atomic_files, "exclusive", exclusive)
            SplitRecord(path, settings).add(faster.pop(0))
            monkeypatch.setattr(atomic_files, "exclusive", late)
        with exclusive(path) as held:
            yield held and bool(not faster)

    monkeypatch.setattr(atomic_files, "exclusive", late)
    ours = SplitRecord(tmp_path / SPLITS_CSV, settings)
    assigned = ours.add(rows)
    assert faster == []
    assert ours.assign(rows) == assigned
    expected = SplitRecord(tmp_path / "other.csv", settings)
    for part in (rows[:1], rows[1:4], rows):
        expected.add(part)
    assert (tmp_path / SPLITS_CSV).read_text() == (tmp_path / "other.csv").read_text()


def test_who_was_killed_while_writing_holds_others_up_for_a_minute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    lock = tmp_path / f".{SPLITS_CSV}.lock"
    lock.touch()
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 50:
            os.utime(lock, (0, 0))

    monkeypatch.setattr(split_record.time, "sleep", pause)
    SplitRecord(tmp_path / SPLITS_CSV, Split(method="stratified")).add([Row("0" * 64, "a.png", "a")])
    assert caplog.text.count("or was killed while it did; waiting a minute at most") == 1
    assert [path.name for path in tmp_path.iterdir()] == [SPLITS_CSV]


def test_processes_that_add_at_once_lose_no_line(config: Path) -> None:
    """Two files of settings in one folder, of other images, share splits.csv."""
    folder = config.parent
    fakes.two_classes(folder / "more", 12, start=100)
    (folder / "b.yaml").write_text(config.read_text().replace("data: {", "data: {root: more, "))
    running = [process.start("run", "-c", folder / name) for name in ("pipeline.yaml", "b.yaml", "pipeline.yaml")]
    for one in running:
        out, err = one.communicate(timeout=120)
        assert one.returncode == 0, out + err
    found = lines(config)
    assert len(found) == 2 * N
    for name in ("pipeline.yaml", "b.yaml"):
        assert {image: found[image][0] for image in today(folder / name)} == today(folder / name)


def test_reproduce_goes_by_the_record(pipeline: Pipeline, config: Path) -> None:
    assert pipeline("run", "-c", config).code == 0
    image = next(image for image, (split, _) in lines(config).items() if split == "train")
    change(config, f"{image},train", f"{image},test")
    assert pipeline("reproduce", "head/logistic", "-c", config).code == 0
    record(config).write_text("spoilt")
    assert pipeline("reproduce", "head/logistic", "-c", config).code == 0
    assert pipeline("predict", "head/logistic", config.parent / "images", "-c", config).code == 0
    record(config).unlink()
    assert pipeline("reproduce", "head/logistic", "-c", config).code == 0


def test_an_export_has_the_splits_in_its_table(pipeline: Pipeline, config: Path) -> None:
    assert pipeline("run", "-c", config).code == 0
    image = next(image for image, (split, _) in lines(config).items() if split == "train")
    change(config, f"{image},train", f"{image},test")
    expected = today(config)
    assert pipeline("cache", "export", config.parent / "out", "-c", config).code == 0
    assert today(config.parent / "out" / "pipeline.yaml") == expected
    assert pipeline("run", "-c", config.parent / "out").code == 0
    assert not (config.parent / "out" / SPLITS_CSV).exists()
    fresh = config.parent / "fresh" / "pipeline.yaml"
    assert pipeline("cache", "import", config.parent / "out", "-c", fresh).code == 0
    assert today(fresh) == expected
