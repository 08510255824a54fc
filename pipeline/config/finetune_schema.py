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
    """Which flips."""
    turns: bool = False
    """Turns by 90, 180 and 270 degrees."""
    rotate: Annotated[Real, Field(ge=0, le=180)] = 0.0
    """Rotation by up to so many degrees."""
    shift: Share = 0.0
    """Shift by up to this share of the side."""
    scale: Share = 0.0
    """Scaling by a factor of 1 plus or minus up to this."""
    brightness: Share = 0.0
    """Brightness by up to this share of the range."""
    contrast: Fraction = 0.0
    """Contrast by a factor of 1 plus or minus up to this."""
    seed: Whole = 0
    """The seed of the views."""

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
    """The head that training starts from; its tap names base, size and the last layer."""
    unfreeze_from: str
    """The first block (of a model file: layer) that is trained; `pipeline bases NAME` lists them."""
    mode: Annotated[Literal["auto", "cached", "full"], Keyed("none")] = "auto"
    """Whether the maps before that block are cached, or computed in every epoch (full)."""
    optimizer: Literal["adam", "sgd"] = "adam"
    """The optimiser."""
    lr: Positive = 1e-5
    """The learning rate."""
    schedule: Literal["constant", "cosine"] = "constant"
    """The learning rate over the epochs: constant, or falling to 0 as a cosine."""
    weight_decay: Annotated[Real, Field(ge=0)] = 0.0
    """Decoupled weight decay."""
    class_weight: Literal["none", "balanced"] = "none"
    """`balanced` weighs each class by the inverse of its share."""
    batch: Count = 32
    """Images in a batch."""
    epochs: Count = 10
    """The most epochs."""
    patience: Count | None = 3
    """Epochs without a lower val loss after which training ends; null: it never ends early."""
    dtype: StoredDtype = "float32"
    """The type in which maps are stored."""
    augment: AugmentConfig | None = None
    """How augmented views differ from the image."""
    views: Count = 1
    """Views of each image of train, the plain one among them; an epoch sees one of each."""
    seeds: Annotated[list[Whole], Field(min_length=1), Different, Keyed("finetune", by_value=False)] = [0]
    """A model is trained for each of these seeds."""
    average: Annotated[bool, Keyed("finetune", by_value=False)] = False
    """Whether all seeds, and the flips and turns of an image, are averaged to one model more."""
    log_dir: Annotated[str | None, Keyed("none")] = None
    """A folder for logs of TensorBoard."""

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
