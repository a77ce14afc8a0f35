"""The shared words of every configuration document: strict models, names, texts and lists."""

import re
from collections.abc import Callable
from functools import lru_cache
from types import MappingProxyType
from typing import Annotated, Any, Literal, TypeAlias, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, PlainValidator, Strict, field_validator
from pydantic_core import PydanticCustomError
from pydantic_core.core_schema import ValidationInfo

from ext_authz.principal import JsonValue as ImmutableJson

__all__ = [
    "API_VERSION",
    "ApiVersion",
    "Items",
    "Metadata",
    "Name",
    "Scalar",
    "Text",
    "Written",
    "checked",
    "frozen_json",
    "refuse",
    "text_or_mapping",
]

API_VERSION: Literal["ext-authz/v1alpha1"] = "ext-authz/v1alpha1"
ApiVersion: TypeAlias = Literal["ext-authz/v1alpha1"]

_Item = TypeVar("_Item")

Items: TypeAlias = Annotated[tuple[_Item, ...], Strict(False)]
"""A YAML list. Only the list itself is lax (it becomes a tuple); its items stay strict."""


def refuse(wrong: str, *, at: str = "") -> PydanticCustomError:
    """A problem of a model, placed at its field `at`.

    Args:
        wrong: what is wrong and what to write instead.
        at: the field's name; the whole mapping when empty.
    """
    # the text is an argument of the template, so that braces in it stay as they are
    return PydanticCustomError("refused", "{text}", {"text": wrong, "at": at})


def checked(check: Callable[[str], object]) -> AfterValidator:
    """A validator that keeps a text for which `check` raises no ValueError."""
    # a thousand rules hold the same few patterns and templates
    check_once = lru_cache(maxsize=4096)(check)

    def keep(value: str) -> str:
        check_once(value)
        return value

    return AfterValidator(keep)


class Written(BaseModel):
    """Base of everything that is written in a file: nothing unknown, nothing converted, nothing changed later."""

    # built when something is first validated, and without reading sources for the schema's descriptions (`schema`): that
    # was a third of the server's start
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, defer_build=True)

    @field_validator("*", mode="before")
    @classmethod
    def _refuse_nothing(cls, value: object, info: ValidationInfo) -> object:
        """A key without a value would read as if it had not been written at all: `token:` would require no token."""
        if value is None:
            raise refuse(f"`{info.field_name}` has no value; write one (`{{}}` for an empty mapping) or remove the key")
        return value


def text_or_mapping(value: object) -> str:
    """Tells the two forms of a field apart; the tags never appear in a problem."""
    return "<text>" if isinstance(value, str) else "<mapping>"


_NAME_PATTERN = r"[a-z0-9](?:[a-z0-9._-]{0,251}[a-z0-9])?"
_NAME = re.compile(_NAME_PATTERN)


def _check_name(text: str) -> None:
    if not _NAME.fullmatch(text):
        raise ValueError(
            "a name is lowercase letters, digits, `-`, `_` and `.`, up to 253; write it like `billing-api`"
        )


Name: TypeAlias = Annotated[str, checked(_check_name), Field(json_schema_extra={"pattern": f"^{_NAME_PATTERN}$"})]


def _check_text(text: str) -> None:
    if not text or not text.isprintable():
        raise ValueError("the text is empty or holds a control character; write printable text")


Text: TypeAlias = Annotated[str, checked(_check_text), Field(json_schema_extra={"minLength": 1})]
"""Printable text of at least one character."""


def _scalar(value: Any) -> str | int | float | bool:  # noqa: ANN401 - whatever stands in the file
    if not isinstance(value, str | int | float | bool):
        raise ValueError("not a text, number, `true` or `false`; write one of these")  # noqa: TRY004 - pydantic's way
    return value


Scalar: TypeAlias = Annotated[
    str | int | float | bool, PlainValidator(_scalar, json_schema_input_type=str | int | float | bool)
]


def frozen_json(value: JsonValue) -> ImmutableJson:
    """A JSON value as the core holds it: lists as tuples, mappings read-only."""
    if isinstance(value, list):
        return tuple(frozen_json(item) for item in value)
    if isinstance(value, dict):
        return MappingProxyType({name: frozen_json(item) for name, item in value.items()})
    return value


class Metadata(Written):
    """What identifies a document."""

    name: Name
    """Unique among all documents of its kind; appears in the decision log."""

    description: str | None = Field(default=None, examples=["Who may read and pay invoices"])
    """For people; nothing reads it."""
