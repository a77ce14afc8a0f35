"""Generated messages: every field of a protobuf message, filled at random."""

from typing import Any, TypeVar

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from hypothesis import strategies as st

__all__ = ["messages"]

# Descriptors and containers come from either implementation of protobuf, without a common public type: hence `Any`.

_M = TypeVar("_M", bound=Message)

_MAX_DEPTH = 9  # deep enough for each field of a check request; Struct recurses for ever
_TEXT = st.text(st.characters(codec="utf-8"), max_size=8)
_SCALARS: dict[int, st.SearchStrategy[object]] = {
    FieldDescriptor.TYPE_STRING: _TEXT,
    FieldDescriptor.TYPE_BYTES: st.binary(max_size=8),
    FieldDescriptor.TYPE_BOOL: st.booleans(),
    FieldDescriptor.TYPE_INT32: st.integers(-(2**31), 2**31 - 1),
    FieldDescriptor.TYPE_INT64: st.integers(-(2**63), 2**63 - 1),
    FieldDescriptor.TYPE_UINT32: st.integers(0, 2**32 - 1),
    FieldDescriptor.TYPE_DOUBLE: st.floats(allow_nan=False),
}


@st.composite
def messages(draw: st.DrawFn, kind: type[_M]) -> _M:
    """A message of `kind` in which each field is present or not, nested messages alike.

    `google.protobuf.Timestamp` is kept within the years that a `datetime` can name, and at microseconds.
    """
    message = kind()
    _fill(draw, message, 0)
    return message


def _fill(draw: st.DrawFn, message: Message, depth: int) -> None:
    descriptor = message.DESCRIPTOR
    if descriptor.full_name == "google.protobuf.Timestamp":
        message.seconds = draw(st.integers(1, 4_000_000_000))  # type: ignore[attr-defined]  # known by its name
        message.nanos = 1000 * draw(st.integers(0, 999_999))  # type: ignore[attr-defined]
        return
    for field in descriptor.fields:
        if field.message_type is not None and depth >= _MAX_DEPTH:
            continue
        if not draw(st.booleans()):
            continue
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            _fill_map(draw, getattr(message, field.name), field.message_type, depth)
        elif field.is_repeated:
            for _ in range(draw(st.integers(1, 2))):
                if field.message_type is None:
                    getattr(message, field.name).append(draw(_scalar(field)))
                else:
                    _fill(draw, getattr(message, field.name).add(), depth + 1)
        elif field.message_type is not None:
            inner = getattr(message, field.name)
            inner.SetInParent()
            _fill(draw, inner, depth + 1)
        else:
            setattr(message, field.name, draw(_scalar(field)))


def _fill_map(draw: st.DrawFn, entries: Any, entry: Any, depth: int) -> None:
    value = entry.fields_by_name["value"]
    for key in draw(st.lists(_TEXT, max_size=2, unique=True)):
        if value.message_type is None:
            entries[key] = draw(_scalar(value))
        else:
            _fill(draw, entries[key], depth + 1)


def _scalar(field: Any) -> st.SearchStrategy[object]:
    if field.enum_type is not None:
        return st.sampled_from([value.number for value in field.enum_type.values])
    return _SCALARS[field.type]
