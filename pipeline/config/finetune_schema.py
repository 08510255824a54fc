"""Owns the fields of fine-tuning in pipeline.yaml. Not training (finetuning.py), nor names of blocks (blocks.py)."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from pipeline.config.fields import Count, Different, Fraction, Keyed, Positive, Real, Section, Whole
from stages.bases.recipe import StoredDtype
from stages.data.augment import Augment, View

Share = Annotated[Real, Field(ge=0, le=0.5)]


class AugmentConfig(Section, keyed="finetune"):
    """How views of an image differ from it; see stages/data/augment.py."""

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
        """How many different views of an image there are, the original included; None: no limit."""
        drawn = self.rotate or self.shift or self.scale or self.brightness or self.contrast
        return None if drawn else len(self.augment.elements())


class FineTune(Section, keyed="finetune"):
    """Train `unfreeze_from`, all blocks after it, and the head, which starts from `head`."""

    head: Annotated[str, Keyed("finetune", by_value=False)] = "logistic"
    unfreeze_from: str
    mode: Annotated[Literal["auto", "cached", "full"], Keyed("none")] = "auto"
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
    seeds: Annotated[list[Whole], Field(min_length=1), Different, Keyed("finetune", by_value=False)] = [0]
    average: Annotated[bool, Keyed("finetune", by_value=False)] = False
    log_dir: Annotated[str | None, Keyed("none")] = None

    @model_validator(mode="after")
    def _views_differ(self) -> FineTune:
        if self.views > 1 and self.augment is None:
            raise ValueError(f"views: {self.views} views of an image differ by augment, which is not set")
        different = 1 if self.augment is None else self.augment.different
        if different is not None and self.views > different:
            raise ValueError(
                f"views: augment makes {different} different views of an image; {self.views} were asked for"
            )
        if self.average and len(self.seeds) == 1 and not self.averaged_views:
            raise ValueError("average: there is one seed, and no flip or turn in views: nothing to average over")
        return self

    @property
    def train_views(self) -> list[View]:
        """The augmented views of images of train; the plain one is not among them."""
        augment = self.augment or AugmentConfig()  # without it there is one view
        return [View(augment.augment, augment.seed, number) for number in range(1, self.views)]

    @property
    def averaged_views(self) -> list[View]:
        """The views that an averaged model sees each image in, beside the plain one: each flip and turn once.

        Where augment has flips and turns alone, these are views that train has too. A model that was trained on the
        plain view alone is not averaged over others: it made a frozen head worse (docs/benchmarks.md).
        """
        if not self.average or self.augment is None or self.views == 1:
            return []
        exact = Augment(flip=self.augment.flip, turns=self.augment.turns)
        return [View(exact, self.augment.seed, number) for number in range(1, len(exact.elements()))]

    @property
    def settings(self) -> dict[str, Any]:
        """The fields that enter a model's key by value; head and seed of each model enter apart."""
        return self.model_dump(exclude=self.not_by_value())
