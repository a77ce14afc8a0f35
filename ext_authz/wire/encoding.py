"""Protobuf's length-delimited fields, written by hand where building messages would cost more than the decision.

Source: the protobuf encoding specification, "Length-Delimited Records".
"""

from google.protobuf.message import Message

__all__ = ["delimited", "tag_of"]

_LENGTH_DELIMITED = 2
_ONE_BYTE = tuple(bytes((number,)) for number in range(0x80))


def tag_of(message: type[Message], field: str) -> bytes:
    """The tag of a length-delimited `field` of `message`."""
    return _varint(message.DESCRIPTOR.fields_by_name[field].number << 3 | _LENGTH_DELIMITED)


def delimited(field_tag: bytes, payload: bytes) -> bytes:
    """One field: its tag, the length of `payload` in bytes, `payload`."""
    size = len(payload)
    return b"%b%b%b" % (field_tag, _ONE_BYTE[size] if size < 0x80 else _varint(size), payload)


def _varint(number: int) -> bytes:
    groups = bytearray()
    while number >= 0x80:
        groups.append(number & 0x7F | 0x80)
        number >>= 7
    groups.append(number)
    return bytes(groups)
