"""Owns what all sections of pipeline.yaml share: strict models, number types, the key that a field enters.

Not the sections (schema.py, head_schema.py, finetune_schema.py), nor how a key is computed.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    model_validator,
)
from pydantic_core import CoreSchema, PydanticCustomError
from pydantic_core.core_schema import no_info_before_validator_function

from pipeline.config import messages

Real = Annotated[float, BeforeValidator(messages.reject_bool), Field(allow_inf_nan=False)]
Whole = Annotated[int, BeforeValidator(messages.reject_bool)]
Positive = Annotated[Real, Field(gt=0)]
Count = Annotated[Whole, Field(ge=1)]
Fraction = Annotated[Real, Field(ge=0, lt=1)]


@dataclass(frozen=True)
class OneOf:
    """Metadata of a text that is a name in a table, which is read whenever a value is checked."""

    names: Callable[[], Collection[str]]

    def check(self, value: Any) -> Any:
        """Raises PydanticCustomError for another value."""
        if value not in self.names():
            expected = " or ".join(", ".join(map(repr, self.names())).rsplit(", ", 1))
            raise PydanticCustomError("literal_error", "input should be {expected}", {"expected": expected})
        return value

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return no_info_before_validator_function(self.check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"enum": list(self.names())}


def _different(values: list[Any]) -> list[Any]:
    twice = next((value for i, value in enumerate(values) if value in values[:i]), None)
    if twice is not None:
        text = f"expected each entry once; {twice} is there twice"
        raise PydanticCustomError("twice", "{text}", {"text": text})
    return values


Different = AfterValidator(_different)
"""Of a list whose entries are not to repeat."""

Stage = Literal["extract", "samples", "head", "finetune", "none"]
"""The first key that a field enters: of feature rows; of heads and fine-tuned models, by way of their labelled rows;
of a head; of a fine-tuned model; of nothing."""


@dataclass(frozen=True)
class Keyed:
    """Metadata of a field: `Annotated[str, Keyed("head")]`. by_value: False where what it refers to enters the key."""

    stage: Stage
    by_value: bool = True


class Section(BaseModel):
    """A group of fields; unknown ones are errors. A subclass names the stage of its fields: `keyed="extract"`.

    Each field is followed by a text on what it means, which `meanings` of json_schema.py reads.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)  # of heads, only the kinds in use
    keyed: ClassVar[Stage]
    short: ClassVar[str | None] = None
    """The field that is meant where a text stands in the place of the group: `base: vgg16`."""

    def __init_subclass__(cls, keyed: Stage | None = None, **options: Any) -> None:
        super().__init_subclass__(**options)
        if keyed is not None:
            cls.keyed = keyed

    @model_validator(mode="before")
    @classmethod
    def _text_alone(cls, written: Any) -> Any:
        return {cls.short: written} if cls.short is not None and isinstance(written, str) else written

    @classmethod
    def places(cls) -> dict[str, Keyed]:
        """Where each field enters keys: as its Keyed says, else as that of the section."""
        found = {}
        for name, info in cls.model_fields.items():
            own = [part for part in info.metadata if isinstance(part, Keyed)]
            found[name] = own[0] if own else Keyed(cls.keyed)
        return found

    @classmethod
    def not_by_value(cls) -> set[str]:
        """Fields whose values are not in the key of the section's stage."""
        return {name for name, place in cls.places().items() if place != Keyed(cls.keyed)}
