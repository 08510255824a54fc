"""kinds.py: the target of the labelled images, and the one that a head's file has."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest

from cache.errors import Unusable
from stages.data.cells import TargetKind
from stages.data.manifest import Manifest
from stages.heads.fitted import SCHEMA, Head, Layer, Layers
from stages.targets.classes import Classes
from stages.targets.kinds import KINDS, find_target, load_target
from stages.targets.labels import Labels
from stages.targets.numbers import Numbers
from stages.targets.soft import Soft
from stages.targets.target import Target
from tests.support.problems import rows

TARGETS = [
    Classes(["b", "a"]),
    Soft(["b", "a"]),
    Labels(["b", "a"]),
    Numbers(["b", "a"], (0.1 + 0.2, -1e9), (1 / 3, 1e-9), ("mm", "")),
    Numbers(["a"]),
]


@dataclass(frozen=True)
class Settings:
    kind: TargetKind
    units: Sequence[str] = ()


def find(
    kind: TargetKind, labels: Sequence[str], columns: Sequence[str] = ("label",), order: Sequence[str] | None = None
) -> Target:
    manifest = Manifest(tuple(rows(labels, ["train"] * len(labels))))
    return find_target(manifest, Settings(kind), columns, order)


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.kind)
def test_a_head_s_file_gives_its_target_again(target: Target) -> None:
    head = Head("ridge", target, Layers([Layer(np.ones((3, target.outputs)), np.ones(target.outputs))]), {})
    files = head.to_files()
    again = Head.from_files(files, {"ridge": Layers})
    assert type(again.target) is type(target)
    assert again.target == target
    assert again.target.settings() == target.settings()
    assert again.to_files() == files
    x = np.random.default_rng(0).normal(size=(4, 3))
    assert np.array_equal(again.predict(x), head.predict(x))
    text = json.loads(files["head.json"])
    assert ("target" in text, text["schema"]) == ((False, 3) if target.kind == "classes" else (True, SCHEMA))


def test_a_newer_kind_is_refused() -> None:
    with pytest.raises(Unusable, match="of kind 'boxes'; this version reads classes, labels, number, soft") as caught:
        load_target(["a"], {"kind": "boxes", "sides": 4})
    assert caught.value.hint == "use a newer version"


def test_each_kind_is_listed_by_its_name() -> None:
    assert {name: kind.kind for name, kind in KINDS.items()} == {name: name for name in KINDS}


def test_classes_and_labels_are_sorted_or_in_the_order_that_is_set() -> None:
    assert find("classes", ["b", "a", "b"]) == ("a", "b")
    assert find("classes", ["b", "a", "b"], order=["b", "a"]) == ("b", "a")
    assert find("labels", ['{"b": 1}', '{"a": 1, "b": null}', "{}"]) == ("a", "b")
    assert find("soft", ['{"b": 0.5, "a": 0.5}'], order=["b", "a"]) == ("b", "a")
    with pytest.raises(Unusable, match=r"data\.classes is \['a'\], but the images have \['a', 'b'\]"):
        find("labels", ['{"b": 1}', '{"a": 1}'], order=["a"])


def test_numbers_are_scaled_by_the_rows_that_are_no_test() -> None:
    some = rows(['{"age": 1.0}', '{"age": 3.0}', '{"age": 99.0}'], ["train", "val", "test"])
    target = find_target(Manifest(tuple(some)), Settings("number", ["mm"]), ["age"], None)
    assert isinstance(target, Numbers)
    assert (tuple(target), target.centre, target.scale, target.units) == (("age",), (2.0,), (1.0,), ("mm",))


@pytest.mark.parametrize(
    ("kind", "labels", "columns", "message"),
    [
        ("classes", ["a", "a"], ["label"], "there is one class only, 'a'"),
        ("labels", ['{"a": 1}', '{"a": 1, "b": 1}'], ["label"], "every image has the label 'a'"),
        ("labels", ['{"a": 1}', '{"b": null}'], ["label"], "no image has the label 'b'"),
        ("labels", ['{"a": 1}', "{}"], ["a", "b"], "no image has the label 'b'"),
        ("labels", ["cat", "dog"], ["label"], "the label 'cat' is none of data.target.kind: labels"),
        ("soft", ["[1, 2]"], ["label"], r"the label '\[1, 2\]' is none of data.target.kind: soft"),
        ("labels", ['{"a": 1}', '{"a": null, "b": 1}', '{"a": 1}'], ["label"], "every image has the label 'a'"),
        ("number", ["cat"], ["age"], "the label 'cat' has no number age"),
        ("number", ['{"size": 1}'], ["age"], "has no number age"),
        ("number", ['{"age": 0.3}'] * 10, ["age"], "age is 0.3 for all images, so there is nothing to learn"),
        ("number", ['{"age": 1, "size": 7}', '{"age": 2, "size": 7}'], ["age", "size"], "size is 7 for all images"),
        ("number", [], ["age"], "no image has a label"),
    ],
)
def test_labels_that_no_head_can_learn_are_refused(
    kind: TargetKind, labels: Sequence[str], columns: Sequence[str], message: str
) -> None:
    with pytest.raises(Unusable, match=message) as caught:
        find(kind, labels, columns)
    assert caught.value.hint


def test_two_labels_of_the_same_bytes_are_refused() -> None:
    one, other = rows(['{"age": 1.0}', '{"age": 2.0}'], ["train", "train"])
    with pytest.raises(Unusable, match="two labels for the same bytes"):
        find_target(Manifest((one, other._replace(id=one.id))), Settings("number"), ["age"], None)


def test_users_get_numbers_as_numbers_and_labels_as_names() -> None:
    assert Classes.values(["a", None]).tolist() == ["a", None]
    assert np.array_equal(Numbers.values(['{"a": 2.5}', None]), [2.5, np.nan], equal_nan=True)
    assert Numbers.values(['{"a": 2.5, "b": 1.0}', '{"a": 3.0, "b": 2.0}']).tolist() == [[2.5, 1.0], [3.0, 2.0]]
    assert Labels.values(['{"cat": 1, "dog": null}', "{}", None]).tolist() == [("cat",), (), None]
    assert np.array_equal(Soft.values(['{"b": 0.25, "a": 0.75}', None]), [[0.75, 0.25], [np.nan] * 2], equal_nan=True)


def test_users_get_columns_in_the_order_of_predictions() -> None:
    """That of data.target.columns, or of data.classes; by name where labels have others."""
    two = ['{"a": 2.5, "b": 1.0}', None, '{"a": 3.0, "b": 2.0}']
    expected = np.array([[1.0, 2.5], [np.nan, np.nan], [2.0, 3.0]])
    assert np.array_equal(Numbers.values(two, ["b", "a"]), expected, equal_nan=True)
    assert np.array_equal(Numbers.values(two, ["label"]), expected[:, ::-1], equal_nan=True)
    assert Numbers.values([None, None], ["b", "a"]).shape == (2, 2)
    shares = ['{"a": 0.75, "b": 0.25}', '{"b": 1.0}']
    assert Soft.values(shares, ["a", "b"]).tolist() == [[0.75, 0.25], [0.0, 1.0]]
    assert Soft.values(shares, ["a", "b"], ["c", "b", "a"]).tolist() == [[0, 0.25, 0.75], [0, 1.0, 0]]
    assert Soft.values(shares, ["a", "b"], ["b", "c"]).tolist() == [[0.75, 0.25], [0.0, 1.0]]


@pytest.mark.parametrize(
    ("kind", "label", "counted"),
    [
        (Classes, "b", ["b"]),
        (Soft, '{"a": 0.5, "b": 0.5}', ["a"]),
        (Labels, '{"a": 1, "b": null, "c": 1}', ["a", "c"]),
        (Labels, "{}", ["(none)"]),
        (Numbers, '{"mass": 1.5, "size": 2}', ["mass", "size"]),
    ],
)
def test_an_image_is_counted_by_what_its_label_names(kind: type[Target], label: str, counted: list[str]) -> None:
    assert [*kind.counted(label)] == counted
