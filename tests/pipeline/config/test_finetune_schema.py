"""finetune_schema.py: which views are trained on, and which are averaged."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.config.finetune_schema import FineTune


def tuned(**fields: Any) -> FineTune:
    return FineTune.model_validate({"unfreeze_from": "block16", "average": True, "seeds": [0, 1], **fields})


@pytest.mark.parametrize(
    ("augment", "n"),
    [({"flip": "none", "scale": 0.1}, 0), ({}, 1), ({"flip": "both"}, 3), ({"flip": "both", "turns": True}, 7)],
)
def test_each_flip_and_turn_is_averaged_once(augment: dict[str, Any], n: int) -> None:
    assert len(tuned(augment=augment, views=2).averaged_views) == n
    assert tuned(augment=augment, views=2, average=False).averaged_views == []


def test_without_augmented_views_in_training_there_are_none_to_average() -> None:
    assert tuned().averaged_views == tuned(augment={"flip": "both"}).averaged_views == []
    with pytest.raises(ValueError, match="average: there is one seed, and no flip or turn in views"):
        tuned(augment={"flip": "both"}, seeds=[0])


def test_views_of_flips_and_turns_alone_are_those_of_training() -> None:
    spec = tuned(augment={"flip": "both", "seed": 3}, views=4)
    assert spec.averaged_views == spec.train_views
    fewer = tuned(augment={"flip": "both", "seed": 3}, views=2)
    assert fewer.averaged_views[:1] == fewer.train_views


def test_what_else_an_image_is_augmented_by_is_not_averaged() -> None:
    spec = tuned(augment={"flip": "both", "rotate": 3, "contrast": 0.1}, views=9)
    assert len(spec.averaged_views) == 3
    assert not set(spec.averaged_views) & set(spec.train_views)
    assert {(view.augment.rotate, view.augment.contrast) for view in spec.averaged_views} == {(0, 0)}


def test_keys_of_models_do_not_know_of_the_average() -> None:
    assert tuned().settings == tuned(average=False).settings
