"""Owns the settings of fine-tuning as pipeline.yaml has them. Not the work, nor what a base's blocks are called."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from pipeline.config.head_schema import Count, Fraction, Positive, Real, Whole
from stages.bases.recipe import StoredDtype
from stages.data.augment import Augment

NOT_KEYED = frozenset({"head", "mode", "seeds", "log_dir"})
"""Fields that are not in a model's key as they stand: head and seed are there by themselves."""

Share = Annotated[Real, Field(ge=0, le=0.5)]


class AugmentConfig(BaseModel):
    """How views of an image differ from it; see stages/data/augment.py."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    flip: Literal["none", "horizontal", "vertical", "both"] = "horizontal"
    turns: bool = False
    rotate: Annotated[Real, Field(ge=0, le=180)] = 0.0
    shift: Share = 0.0
    scale: Share = 0.0
    brightness: Share = 0.0
    contrast: Fraction = 0.0
    seed: Whole = 0

    @property
    def augment(self) -> Augment:
        return Augment(**self.model_dump(exclude={"seed"}))

    @property
    def different(self) -> int | None:
        """How many views of an image there are, the plain one among them; None where there is no end of them."""
        drawn = self.rotate or self.shift or self.scale or self.brightness or self.contrast
        return None if drawn else len(self.augment.elements())


class FineTune(BaseModel):
    """Train `unfreeze_from` and all blocks after it, from where `head` stands."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    head: str = "logistic"
    unfreeze_from: str
    mode: Literal["auto", "cached", "full"] = "auto"
    optimizer: Literal["adam", "sgd"] = "adam"
    lr: Positive = 1e-5
    schedule: Literal["constant", "cosine"] = "constant"
    weight_decay: Annotated[Real, Field(ge=0)] = 0.0
    class_weight: Literal["none", "balanced"] = "none"
    batch: Count = 32
    epochs: Count = 10
    patience: Count | None = 3
    dtype: StoredDtype = "float32"
    augment: AugmentConfig | None = None
    views: Count = 1
    seeds: Annotated[list[Whole], Field(min_length=1)] = [0]
    log_dir: str | None = None

    @model_validator(mode="after")
    def _views_differ(self) -> FineTune:
        if self.views > 1 and self.augment is None:
            raise ValueError(f"views: {self.views} views of an image differ by augment, which is not set")
        different = 1 if self.augment is None else self.augment.different
        if different is not None and self.views > different:
            raise ValueError(
                f"views: augment makes {different} different views of an image; {self.views} were asked for"
            )
        return self

    @property
    def settings(self) -> dict[str, Any]:
        """What of it enters a key; where rows come from, and how many seeds there are, does not."""
        return self.model_dump(exclude=set(NOT_KEYED))
