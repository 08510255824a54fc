"""scan.py: what is found, what is ignored, and what is said of the rest."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path

import pytest

from cache.errors import Unusable
from cache.hash_index import HashIndex
from stages.data import scan
from stages.data.manifest import Row
from tests.support.fakes import numbered


def lay(root: Path, *paths: str) -> None:
    for number, path in enumerate(paths):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(numbered(number))


def found(root: Path) -> scan.Found:
    return scan.hash_files(scan.scan_folders(root), root, HashIndex())


def labels(root: Path) -> dict[str, tuple[str | None, str | None]]:
    return {row.path: (row.label, row.split) for row in found(root).rows}


def test_class_folders(tmp_path: Path) -> None:
    lay(tmp_path, "cat/1.png", "dog/deep/2.JPG", "dog/3.webp", "dog/4.HEIC")
    assert labels(tmp_path) == {
        "cat/1.png": ("cat", None),
        "dog/3.webp": ("dog", None),
        "dog/4.HEIC": ("dog", None),
        "dog/deep/2.JPG": ("dog", None),
    }


def test_the_id_is_the_sha256_of_the_bytes(tmp_path: Path) -> None:
    lay(tmp_path, "cat/1.png")
    assert found(tmp_path).rows == [Row(hashlib.sha256(numbered(0)).hexdigest(), "cat/1.png", "cat")]


def test_split_folders(tmp_path: Path) -> None:
    lay(tmp_path, "train/cat/1.png", "Validation/cat/2.png", "test/dog/3.png")
    assert labels(tmp_path) == {
        "train/cat/1.png": ("cat", "train"),
        "Validation/cat/2.png": ("cat", "val"),
        "test/dog/3.png": ("dog", "test"),
    }


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    lay(tmp_path, "train/1.png", "bus/2.png")
    assert labels(tmp_path) == {"bus/2.png": ("bus", None), "train/1.png": ("train", None)}


def test_split_folders_beside_something_else_are_not_taken_for_classes(tmp_path: Path) -> None:
    lay(tmp_path, "train/cat/1.png", "test/cat/2.png", "sample.png", "extra/5.png")
    with pytest.raises(Unusable, match="test/, train/ look like splits, but extra/ is next to them, and 1 more"):
        found(tmp_path)


@pytest.mark.parametrize("stray", ["sample.png", "extra/5.png"])
def test_one_stray_file_or_folder_is_left_out_and_said(tmp_path: Path, stray: str) -> None:
    lay(tmp_path, "train/cat/1.png", "test/cat/2.png", stray)
    result = found(tmp_path)
    assert [row.path for row in result.rows] == ["test/cat/2.png", "train/cat/1.png"]
    assert result.ignored == {"next to the split folders": 1}
    (note,) = result.notes
    assert note == f"{stray.replace('5.png', '')} is next to test/, train/, which are taken for splits, and is left out"


def test_images_without_folders_have_no_label(tmp_path: Path) -> None:
    lay(tmp_path, "1.png", "2.png")
    assert labels(tmp_path) == {"1.png": (None, None), "2.png": (None, None)}


def test_other_files_and_hidden_ones_are_counted_by_kind(tmp_path: Path) -> None:
    lay(tmp_path, "cat/1.png")
    for name in ("cat/notes.txt", "cat/.DS_Store", ".hidden.png", "Thumbs.db"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / ".git").mkdir()
    (tmp_path / "linked").symlink_to(tmp_path / "cat", target_is_directory=True)
    result = found(tmp_path)
    assert [row.path for row in result.rows] == ["cat/1.png"]
    assert result.ignored == {"hidden": 3, ".db": 1, ".txt": 1}


def test_a_link_out_of_the_root_is_a_reject(tmp_path: Path) -> None:
    lay(tmp_path, "secret.png", "images/cat/1.png")
    (tmp_path / "images/cat/out.png").symlink_to(tmp_path / "secret.png")
    (tmp_path / "images/cat/in.png").symlink_to(tmp_path / "images/cat/1.png")
    result = found(tmp_path / "images")
    assert [row.path for row in result.rows] == ["cat/1.png", "cat/in.png"]
    assert result.rejected == [("cat/out.png", "is a link that leaves data.root; to follow it: data.follow_links: all")]


def test_a_linked_class_folder_is_not_lost_in_silence(tmp_path: Path) -> None:
    lay(tmp_path, "elsewhere/1.png", "images/cat/1.png")
    (tmp_path / "images/dog").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    assert found(tmp_path / "images").rejected == [
        ("dog", "is a linked folder that leaves data.root; to follow it: data.follow_links: all")
    ]


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda root: None, r"data\.root: .* is not there"),
        (lambda root: root.write_bytes(b""), r"data\.root: .* is a file; expected a folder"),
        (lambda root: root.mkdir(), r"no images \(0 other files\); looked for \.avif, \.bmp"),
        (lambda root: lay(root, "a/.hidden.png"), r"no images \(1 other files\)"),
    ],
)
def test_a_folder_that_cannot_be_used(tmp_path: Path, prepare: object, message: str) -> None:
    prepare(tmp_path / "images")  # type: ignore[operator]
    with pytest.raises(Unusable, match=message):
        found(tmp_path / "images")


def as_nobody(root: Path) -> str:
    """What `found(root)` raises for a user who is not root: read in a child process, since root may read all."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            if os.getuid() == 0:
                os.setuid(65534)
            rejected = found(root).rejected
            os.write(write, f"rejected {rejected}".encode())
        except Unusable as error:
            os.write(write, f"{error} | {error.hint}".encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    os.close(write)
    with os.fdopen(read) as file:
        return file.read()


def test_folders_and_files_that_may_not_be_read() -> None:
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        root.chmod(0o755)
        lay(root, "cat/1.png", "cat/2.png", "dog/3.png")
        (root / "cat/2.png").chmod(0)
        (root / "dog").chmod(0)
        said = as_nobody(root)
        (root / "dog").chmod(0o755)
        assert said == (
            "rejected [Reject(path='dog', reason='is a folder that cannot be read: Permission denied'), "
            "Reject(path='cat/2.png', reason='cannot be read: Permission denied')]"
        )
        root.chmod(0)
        said = as_nobody(root)
        root.chmod(0o755)
        assert said == f"cannot read the folder {root}: Permission denied | check: ls -ld {root}"


def test_links_that_lead_in_a_circle_are_rejects(tmp_path: Path) -> None:
    lay(tmp_path, "cat/1.png")
    (tmp_path / "cat/loop.png").symlink_to(tmp_path / "cat/loop.png")
    result = found(tmp_path)
    assert [row.path for row in result.rows] == ["cat/1.png"]
    assert [reject.path for reject in result.rejected] == ["cat/loop.png"]


def test_links_are_followed_inside_or_wherever_they_lead(tmp_path: Path) -> None:
    """As DVC, git-annex, Bazel and mounts lay them out."""
    lay(tmp_path, "store/cat/1.png", "store/cat/deep/2.png", "store/3", "images/dog/4.png", "images/.pool/5.png")
    images = tmp_path / "images"
    (images / "cat").symlink_to("../store/cat", target_is_directory=True)
    (images / "dog/3.png").symlink_to("../../store/3")
    (images / "bird").symlink_to(".pool", target_is_directory=True)
    (images / "again").symlink_to("dog", target_is_directory=True)
    (tmp_path / "store/cat/loop").symlink_to("..", target_is_directory=True)
    (images / "dog/up").symlink_to("../..", target_is_directory=True)
    inside = scan.scan_folders(images)
    assert [row.path for row in inside.rows] == ["bird/5.png", "dog/4.png"]
    assert [reject.path for reject in inside.rejected] == ["dog/3.png", "cat", "dog/up"]
    everywhere = scan.scan_folders(images, "all")
    assert everywhere.rejected == []
    paths = {row.path: row.label for row in everywhere.rows}
    assert (
        paths.items() >= {"bird/5.png": "bird", "cat/1.png": "cat", "cat/deep/2.png": "cat", "dog/3.png": "dog"}.items()
    )
    real = [os.path.realpath(images / path) for path in paths]
    assert len(real) == len(set(real))


def test_own_outputs_caches_and_system_folders_are_no_classes(tmp_path: Path) -> None:
    lay(
        tmp_path, "cat/1.png", "cat/models/2.png", "models/head/x.png", "plots/logistic-1/roc.png", "dog/@eaDir/3.png",
        "__MACOSX/4.png", "$RECYCLE.BIN/5.png", "lost+found/6.png", ".features/7.png", "venv/lib/8.png", "gift/9.png",
        "cache/10.png", "cat/exported/11.png", ".git/12.png",
    )  # fmt: skip
    (tmp_path / "pipeline.yaml").write_text("")
    for mark in ("venv/pyvenv.cfg", "gift/EXPORT.json", "cache/CACHE.json", "cat/exported/CACHEDIR.TAG"):
        (tmp_path / mark).write_text("")
    result = found(tmp_path)
    assert [row.path for row in result.rows] == ["cat/1.png", "cat/models/2.png"]
    assert {name for name in result.ignored if name.startswith("folder ")} == {
        f"folder {name}/"
        for name in (
            "models", "plots", "dog/@eaDir", "__MACOSX", "$RECYCLE.BIN", "lost+found", "venv", "gift", "cache",
            "cat/exported",
        )
    }  # fmt: skip
    (tmp_path / "pipeline.yaml").unlink()
    assert {"models", "plots"} <= {row.label for row in found(tmp_path).rows}


def test_images_one_level_too_deep_are_noted(tmp_path: Path) -> None:
    lay(tmp_path, "dataset/cat/1.png", "dataset/dog/2.png")
    (note,) = found(tmp_path).notes
    assert note == (
        "all 2 images are in one folder, dataset, which has the folders cat, dog: "
        f"if these are the classes, set data.root to {tmp_path / 'dataset'}"
    )
    assert found(tmp_path / "dataset").notes == []
