"""JSON values to `google.protobuf.Struct`, for dynamic metadata."""

from collections.abc import Mapping
from math import isfinite
from typing import assert_never

from google.protobuf.struct_pb2 import ListValue, Struct, Value

from ext_authz.principal import JsonValue

__all__ = ["MAX_DEPTH", "struct_bytes"]

MAX_DEPTH = 16
"""Objects and arrays inside each other. Protobuf parsers stop at 100 nested messages, some encoders at 64, and each level
here is up to three: a deeper answer would be unreadable, and Envoy takes an unreadable answer for a failed check."""

_MAX_EXACT = 2**53
"""Up to here every integer is a double (RFC 8259 §6); larger ones travel as decimal text, as protobuf JSON writes int64."""


def struct_bytes(values: Mapping[str, JsonValue]) -> bytes:
    """`values` as a serialized Struct.

    Raises:
        ValueError: deeper than `MAX_DEPTH`, a number that is not finite, an integer of thousands of digits, a lone
            surrogate.
    """
    struct = Struct()
    _fill_struct(struct, values, 1)
    return struct.SerializeToString()


def _fill_struct(struct: Struct, values: Mapping[str, JsonValue], depth: int) -> None:
    if depth > MAX_DEPTH:
        raise ValueError("metadata is nested too deeply")
    fields = struct.fields
    for name, value in values.items():
        _fill(fields[name], value, depth)


def _fill_list(target: ListValue, values: tuple[JsonValue, ...], depth: int) -> None:
    if depth > MAX_DEPTH:
        raise ValueError("metadata is nested too deeply")
    # present even if empty
    target.SetInParent()
    for value in values:
        _fill(target.values.add(), value, depth)


def _fill_number(target: Value, number: float) -> None:
    if isinstance(number, int) and abs(number) > _MAX_EXACT:
        target.string_value = str(number)
    elif isfinite(number):
        target.number_value = number
    else:
        raise ValueError("a number in metadata is not finite")


def _fill(target: Value, value: JsonValue, depth: int) -> None:
    match value:
        case str():
            target.string_value = value
        case None:
            target.null_value = 0  # type: ignore[assignment]  # the stub lacks the enum's int form
        case bool():
            target.bool_value = value
        case int() | float():
            _fill_number(target, value)
        case tuple():
            _fill_list(target.list_value, value, depth + 1)
        case Mapping():
            # present even if empty
            target.struct_value.SetInParent()
            _fill_struct(target.struct_value, value, depth + 1)
        case _:
            assert_never(value)
