"""counted_words.py: one of a thing is not several."""

from stages.runtime.counted_words import count_of


def test_one_is_singular_and_thousands_are_set_apart() -> None:
    assert [count_of(n, "new image") for n in (0, 1, 2624)] == ["0 new images", "1 new image", "2,624 new images"]
