"""keys.py: a key is a promise, so the digests below are literal."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache import keys
from cache.errors import Unkeyable


def test_canonical_form() -> None:
    value = {"b": [1, True, "é"], "a": 0.1, "none": None}
    assert keys.canonical(value) == b'{"a":"0.1","b":[1,true,"\\u00e9"]}'


def test_a_literal_digest() -> None:
    """If this changes, every cache in the world is cold: bump a version on purpose instead."""
    digest = keys.digest("extract", {"size": [224, 224], "scale": 0.1, "antialias": True})
    assert digest == "a59605c3d9eb7c37ce4e1d5fbe76550579c20958c10683adf168991b9fcaca5d"


@pytest.mark.parametrize(("a", "b"), [(0.1, 1e-1), (100.0, 1e2), (0.0, -0.0), (127.0, float(np.float64(127)))])
def test_one_number_has_one_form(a: float, b: float) -> None:
    assert keys.digest("k", {"x": a}) == keys.digest("k", {"x": b})


def test_neutral_components_do_not_move_a_key() -> None:
    assert keys.digest("k", {"size": 3, "view": None}) == keys.digest("k", {"size": 3})


@pytest.mark.parametrize(
    ("text", "is_one"),
    [("ab" * 32, True), ("AB" * 32, False), ("ab" * 31, False), ("ab" * 32 + "\n", False), ("g" * 64, False)],
)
def test_a_digest_is_64_hex_digits(text: str, is_one: bool) -> None:
    assert keys.is_digest(text) == is_one


def test_kinds_are_apart() -> None:
    assert keys.digest("extract", {}) != keys.digest("head", {})


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"size": [float("nan")]}, r"spec\.size\[0\]: cannot key nan; use a finite number"),
        ({"x": object()}, r"spec\.x: cannot key a object; use str"),
        ({"x": np.float32(1)}, r"spec\.x: cannot key a float32"),
        ({"x": b"1"}, r"spec\.x: cannot key a bytes"),
        ({"x": {3: 1}}, r"spec\.x: cannot key a mapping with the key 3"),
    ],
)
def test_what_has_no_canonical_form_is_an_error(value: object, message: str) -> None:
    with pytest.raises(Unkeyable, match=message):
        keys.digest("spec", value)  # type: ignore[arg-type]


_scalars = st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False, allow_infinity=False)
_values = st.recursive(_scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=10)


@given(st.dictionaries(st.text(), _values))
def test_order_of_insertion_does_not_matter(value: dict[str, object]) -> None:
    backwards = dict(reversed(list(value.items())))
    assert keys.digest("k", value) == keys.digest("k", backwards)


@given(st.floats(allow_nan=False, allow_infinity=False), st.floats(allow_nan=False, allow_infinity=False))
def test_different_numbers_have_different_forms(a: float, b: float) -> None:
    assert (keys.canonical(a) == keys.canonical(b)) == (a == b)
