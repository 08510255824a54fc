"""manifest.py: the table of images, its digest, and what it warns of."""

from __future__ import annotations

import json

import pytest

from cache.errors import Unusable
from stages.data.manifest import Manifest, Row

A, B, C = "a" * 64, "b" * 64, "c" * 64


def test_saved_lines_are_rows_and_neutral_fields_are_left_out() -> None:
    manifest = Manifest((Row(A, "x/1.png", "x", "train", None), Row(B, "2.png")))
    lines = [json.loads(line) for line in manifest.to_bytes().splitlines()]
    assert lines == [{"id": A, "path": "x/1.png", "label": "x", "split": "train"}, {"id": B, "path": "2.png"}]


def test_a_literal_digest() -> None:
    manifest = Manifest((Row(A, "x/1.png", "x", "train", "g"), Row(B, "y/é.png", "y", "val")))
    assert manifest.digest == "8af1351ca0754a8a79dc885c16f33d7461b12d02c706e583a7092dc9b19250ab"


def test_samples_ignore_path_and_order_and_count_copies_once() -> None:
    one = Manifest((Row(A, "1.png", "x", "train"), Row(B, "2.png", "y", "val")))
    other = Manifest(
        (Row(B, "moved/2.png", "y", "val"), Row(A, "1.png", "x", "train"), Row(A, "copy.png", "x", "train"))
    )
    assert one.samples == other.samples
    assert one.samples_digest == other.samples_digest
    assert one.digest != other.digest


@pytest.mark.parametrize("change", [{"label": "z"}, {"split": "test"}, {"group": "g"}, {"id": C}])
def test_samples_see_label_split_group_and_id(change: dict[str, str]) -> None:
    row = Row(A, "1.png", "x", "train")
    assert Manifest((row,)).samples_digest != Manifest((row._replace(**change),)).samples_digest


def test_rows_without_a_label_are_no_samples() -> None:
    assert Manifest((Row(A, "1.png", None, "train"),)).samples == ()


def test_the_same_bytes_under_two_labels_are_listed() -> None:
    manifest = Manifest((Row(A, "cat/1.png", "cat"), Row(A, "dog/1.png", "dog"), Row(B, "dog/2.png", "dog")))
    with pytest.raises(Unusable, match=r"1 image with two labels .*: cat/1\.png \(cat\) = dog/1\.png \(dog\)$"):
        manifest.check_labels()


def test_copies_under_one_label_are_fine() -> None:
    Manifest((Row(A, "cat/1.png", "cat"), Row(A, "cat/2.png", "cat"))).check_labels()


def test_leaks_name_the_copies() -> None:
    manifest = Manifest((Row(A, "1.png", "x", "train"), Row(A, "2.png", "x", "test"), Row(B, "3.png", "x", "val")))
    assert manifest.leaks == "1 image: 1.png (train) = 2.png (test)"
    assert Manifest(manifest.rows[1:]).leaks == ""


def test_a_group_in_two_splits_is_a_leak() -> None:
    manifest = Manifest((Row(A, "1.png", "x", "train", "g"), Row(B, "2.png", "x", "test", "g")))
    assert manifest.leaks == "1 group: group g"


def test_copies_in_two_groups_count_once() -> None:
    manifest = Manifest(
        (Row(A, "1", "x", "train", None), Row(A, "2", "x", "train", "h"), Row(A, "3", "x", "train", "g"))
    )
    assert manifest.samples == (Row(A, "", "x", "train", "g"),)


def test_counts_per_class_and_split() -> None:
    manifest = Manifest((Row(A, "1", "x", "train"), Row(B, "2", "x", "val"), Row(C, "3", "y", "train")))
    assert manifest.counts() == {
        "x": {"train": 1, "val": 1, "test": 0},
        "y": {"train": 1, "val": 0, "test": 0},
    }
