"""Our messages against `envoy-data-plane`, an independent codec generated from Envoy's own API."""

import dataclasses
import typing
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from enum import IntEnum
from typing import Any

import betterproto2
import pytest
from google.protobuf import wrappers_pb2
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from hypothesis import HealthCheck, given, settings
from support.wire_messages import messages

from ext_authz.wire._pb.envoy.service.auth.v3.external_auth_pb2 import CheckRequest, CheckResponse

# importing the whole of Envoy's API takes seconds: only this module pays for it
v3 = pytest.importorskip("envoy_data_plane.envoy.service.auth.v3", reason="envoy-data-plane is not installed")

# they warn at every use of a field that Envoy calls deprecated
pytestmark = pytest.mark.filterwarnings("ignore:.* is deprecated:DeprecationWarning")

# Descriptors come from either implementation of protobuf, without a common public type: hence `Any`.

SETTINGS = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
PAIRS = ((CheckRequest, v3.CheckRequest), (CheckResponse, v3.CheckResponse))

TYPE_NAMES = {
    FieldDescriptor.TYPE_STRING: "string",
    FieldDescriptor.TYPE_BYTES: "bytes",
    FieldDescriptor.TYPE_BOOL: "bool",
    FieldDescriptor.TYPE_INT32: "int32",
    FieldDescriptor.TYPE_INT64: "int64",
    FieldDescriptor.TYPE_UINT32: "uint32",
    FieldDescriptor.TYPE_DOUBLE: "double",
    FieldDescriptor.TYPE_ENUM: "enum",
    FieldDescriptor.TYPE_MESSAGE: "message",
}
# They unwrap these into Python values, so there is no class of theirs to compare.
UNWRAPPED = {"google.protobuf.Timestamp", "google.protobuf.BoolValue"}


def class_in(hint: object) -> type | None:
    """The message or enum class inside a type hint such as `list[X]`, `X | None` or `dict[str, X]`."""
    if isinstance(hint, type) and (dataclasses.is_dataclass(hint) or issubclass(hint, IntEnum)):
        return hint
    return next(filter(None, map(class_in, typing.get_args(hint))), None)


def fields_of(theirs: type) -> dict[str, tuple[betterproto2.FieldMetadata, type | None]]:
    hints = typing.get_type_hints(theirs)
    return {
        field.name: (next(iter(field.metadata.values())), class_in(hints[field.name]))
        for field in dataclasses.fields(theirs)
    }


def is_map(field: Any) -> bool:
    return bool(field.message_type is not None and field.message_type.GetOptions().map_entry)


def pairs_below(ours: Any, theirs: type, seen: set[str]) -> Iterator[tuple[Any, type]]:
    """Every message that can be inside, in both codecs."""
    if ours.full_name in seen:
        return
    seen.add(ours.full_name)
    yield ours, theirs
    fields = fields_of(theirs)
    for field in ours.fields:
        inner = field.message_type.fields_by_name["value"].message_type if is_map(field) else field.message_type
        if inner is not None and inner.full_name not in UNWRAPPED:
            cls = fields[field.name][1]
            assert cls is not None
            yield from pairs_below(inner, cls, seen)


STRUCTURE = [pair for ours, theirs in PAIRS for pair in pairs_below(ours.DESCRIPTOR, theirs, set())]


@pytest.mark.parametrize(("ours", "theirs"), STRUCTURE, ids=lambda value: getattr(value, "name", ""))
def test_every_field_has_their_name_number_type_and_oneof(ours: Any, theirs: type) -> None:
    def described(field: Any) -> tuple[object, ...]:
        oneof = field.containing_oneof.name if field.containing_oneof else None
        kind = "map" if is_map(field) else TYPE_NAMES[field.type]
        return field.number, kind, field.is_repeated and not is_map(field), oneof

    expected = {name: (m.number, m.proto_type, m.repeated, m.group) for name, (m, _) in fields_of(theirs).items()}
    # nothing they have is missing here, and nothing here is unknown to them
    assert {field.name: described(field) for field in ours.fields} == expected


def test_the_structure_covers_every_message_that_we_compile() -> None:
    covered = {ours.full_name for ours, _ in STRUCTURE}
    compiled: set[str] = set()
    files: list[Any] = [CheckRequest.DESCRIPTOR.file]
    while files:
        file = files.pop()
        files += file.dependencies
        if file.name.startswith("ext_authz/"):
            waiting: list[Any] = list(file.message_types_by_name.values())
            while waiting:
                descriptor = waiting.pop()
                if not descriptor.GetOptions().map_entry:
                    compiled.add(descriptor.full_name)
                    waiting += descriptor.nested_types
    assert compiled <= covered


@pytest.mark.parametrize(("ours", "theirs"), STRUCTURE, ids=lambda value: getattr(value, "name", ""))
def test_every_enum_has_their_values(ours: Any, theirs: type) -> None:
    fields = fields_of(theirs)
    for field in ours.fields:
        if field.enum_type is not None and field.enum_type.file.name.startswith("ext_authz/"):
            cls = fields[field.name][1]
            assert cls is not None
            assert issubclass(cls, IntEnum)
            assert {value.name: value.number for value in field.enum_type.values} == {
                member.name: member.value for member in cls
            }


def converted(ours: Message, theirs: type) -> object:
    """`ours` as an object of their class, built through their constructor."""
    values: dict[str, object] = {}
    fields = fields_of(theirs)
    for field, value in ours.ListFields():
        cls = fields[field.name][1]
        if is_map(field):
            values[field.name] = {key: single(item, cls) for key, item in value.items()}
        elif field.is_repeated:
            values[field.name] = [single(item, cls) for item in value]
        else:
            values[field.name] = single(value, cls)
    return theirs(**values)


def single(value: object, cls: type | None) -> object:
    if isinstance(value, wrappers_pb2.BoolValue):
        return value.value
    if isinstance(value, Message):
        if value.DESCRIPTOR.full_name == "google.protobuf.Timestamp":
            seconds: int = value.seconds  # type: ignore[attr-defined]  # a Timestamp, as its name says
            nanos: int = value.nanos  # type: ignore[attr-defined]
            return datetime.fromtimestamp(seconds, UTC) + timedelta(microseconds=nanos // 1000)
        assert cls is not None
        return converted(value, cls)
    if cls is not None:
        return cls(value)
    return value


@pytest.mark.parametrize(("ours", "theirs"), PAIRS, ids=["CheckRequest", "CheckResponse"])
def test_bytes_of_either_codec_mean_the_same_in_the_other(ours: type[Message], theirs: type) -> None:
    @SETTINGS
    @given(messages(ours))
    def both_directions(message: Message) -> None:
        counterpart = converted(message, theirs)
        assert theirs.parse(message.SerializeToString()) == counterpart  # type: ignore[attr-defined]
        assert ours.FromString(bytes(counterpart)) == message  # type: ignore[call-overload]

    both_directions()


def each_field_alone(ours: Message) -> Iterator[str]:
    """Set one field, all the way down, then clear it; Struct is entered once."""
    yield from _each(ours, (), 0)


def _each(at: Any, path: tuple[str, ...], depth: int) -> Iterator[str]:
    for field in at.DESCRIPTOR.fields:
        here = (*path, field.name)
        if is_map(field):
            value = field.message_type.fields_by_name["value"]
            if value.message_type is None:
                getattr(at, field.name)["key"] = "value"
            else:
                getattr(at, field.name)["key"].SetInParent()
            yield ".".join(here)
        elif field.is_repeated and field.message_type is None:
            getattr(at, field.name).append("value")
            yield ".".join(here)
        elif field.message_type is not None:
            inner = getattr(at, field.name).add() if field.is_repeated else getattr(at, field.name)
            inner.SetInParent()
            yield ".".join(here)
            if depth < 7:
                yield from _each(inner, here, depth + 1)
        else:
            setattr(at, field.name, b"b" if field.type == FieldDescriptor.TYPE_BYTES else sample(field))
            yield ".".join(here)
        at.ClearField(field.name)


def sample(field: Any) -> object:
    if field.enum_type is not None:
        return field.enum_type.values[-1].number
    return {"string": "s", "bool": True, "double": 0.5}.get(TYPE_NAMES[field.type], 1000)


@pytest.mark.parametrize(("ours", "theirs"), PAIRS, ids=["CheckRequest", "CheckResponse"])
def test_each_field_alone_means_the_same_in_both_codecs(ours: type[Message], theirs: type) -> None:
    message = ours()
    for path in each_field_alone(message):
        counterpart = converted(message, theirs)
        assert theirs.parse(message.SerializeToString()) == counterpart, path  # type: ignore[attr-defined]
        assert ours.FromString(bytes(counterpart)) == message, path  # type: ignore[call-overload]
