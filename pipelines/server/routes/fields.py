"""Fields of requests: their types, and which of a body's fields nobody here knows.

Editors and SDKs send fields for other servers by default, so an unknown one is ignored and named in the answer
(admission.py). `null` means: not given, as the SDKs of typed languages write it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Annotated, Any, ClassVar, TypeAlias

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from pipelines.server.routes.neutral import NEUTRAL, Neutral

MOST = 2**31 - 1
# What JavaScript writes for "as many as there are".
MOST_TOKENS = 2**53
# In a list: token ids, more than any sequence holds; and texts or objects.
MOST_IDS = 1 << 17
MOST_ITEMS = 2048


def _text(value: str) -> str:
    """JSON can carry half a surrogate pair, which is no text."""
    if value.isascii():
        return value
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(f"holds a lone surrogate at position {error.start}; expected text") from None
    return value


def _integral(value: Any) -> Any:
    """Languages with one kind of number write 16 as 16.0."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


INTEGRAL = BeforeValidator(_integral)
Text: TypeAlias = Annotated[str, AfterValidator(_text)]
TokenId: TypeAlias = Annotated[int, Field(ge=0, le=MOST, strict=True)]
# For every list: without it one of wrong items costs a complaint for each of them, and for each type it might be.
FIRST_FAULT = Field(fail_fast=True)
Ids: TypeAlias = Annotated[list[TokenId], FIRST_FAULT]
Texts: TypeAlias = Annotated[list[Text], FIRST_FAULT]
Flag: TypeAlias = Annotated[bool, Field(strict=True)]
Number: TypeAlias = Annotated[float, Field(strict=True)]
# -1: no limit. llama.cpp's clients also know -2, until the context is full, which is the same here.
NewTokens: TypeAlias = Annotated[int, Field(ge=-2, le=MOST_TOKENS, strict=True), INTEGRAL]
Whole: TypeAlias = Annotated[int, Field(ge=-MOST, le=MOST, strict=True), INTEGRAL]
Count: TypeAlias = Annotated[int, Field(ge=0, le=MOST, strict=True), INTEGRAL]
LastN: TypeAlias = Annotated[int, Field(ge=-1, le=MOST, strict=True), INTEGRAL]
Seed: TypeAlias = Annotated[int, Field(ge=-(2**63), le=2**64 - 1, strict=True), INTEGRAL]


def check_items(name: str, value: list[Any]) -> None:
    """Raises an error for lists that only take time: validating an id takes a microsecond, an object ten."""
    most = MOST_IDS if value and isinstance(value[0], (int, float)) else MOST_ITEMS
    if len(value) > most:
        told = {"field": name[:60], "found": len(value), "most": most}
        raise PydanticCustomError("too_many_items", "{field} has {found} items; expected at most {most}", told)


class Fields(BaseModel):
    """An object of a request. What it does not know is kept aside, see `unknown_fields`."""

    model_config = ConfigDict(extra="allow", allow_inf_nan=False, protected_namespaces=())
    neutral: ClassVar[dict[str, Neutral]] = NEUTRAL

    def without_effect(self) -> Iterable[str]:
        """Its own fields that others of the request leave without effect: they are told like those not known."""
        return ()

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        usual = True
        for name, value in data.items():
            if isinstance(value, list):
                check_items(name, value)
            usual = usual and value is not None and name.isascii()
        if usual:  # without a copy: a chat has thousands of objects
            return data
        # A name that is no text, which JSON can carry, would be refused before it could be ignored.
        return {name.encode(errors="replace").decode(): value for name, value in data.items() if value is not None}


class ModelFields(Fields):
    """A request that names a model."""

    model: Text | None = Field(None, description="Any name; checked with --check-model only.")


def unknown_fields(body: Fields, path: str = "") -> Iterator[tuple[str, Any]]:
    """The fields of a body that its type does not know, with their values; `a.b` for one inside another."""
    for name, value in (body.model_extra or {}).items():
        yield path + name, value
    for name, value in body.__dict__.items():  # its own fields; pydantic's tables of them take ten times as long
        parts = value if isinstance(value, list) else () if isinstance(value, str) else (value,)
        for part in parts:
            if isinstance(part, Fields):
                yield from unknown_fields(part, f"{path}{name}.")
