"""`traceparent` by the grammar of W3C Trace Context, level 1, section 3.2; anything else is no trace at all.

    traceparent = version "-" trace-id "-" parent-id "-" trace-flags

of 2, 32, 16 and 2 digits of lowercase hexadecimal; neither id is all zero, and version `ff` is none.
"""

import re
from typing import NamedTuple

__all__ = ["HEADER", "LENGTH", "TraceParent", "parse_traceparent"]

HEADER = "traceparent"

LENGTH = 55
"""Characters of version 00. Later versions may only add to it, after a `-` (section 3.2.4)."""

_GRAMMAR = re.compile(
    r"(?!ff)(?P<version>[0-9a-f]{2})-(?!0{32})(?P<trace>[0-9a-f]{32})-(?!0{16})(?P<parent>[0-9a-f]{16})-(?P<flags>[0-9a-f]{2})"
)
_SAMPLED = 0x01


class TraceParent(NamedTuple):
    """Where in which trace a request comes from.

    Attributes:
        trace_id: 32 lowercase hexadecimal digits.
        parent_id: of the span that called, 16 of them.
        sampled: whether the caller records.
    """

    trace_id: str
    parent_id: str
    sampled: bool


def parse_traceparent(text: str) -> TraceParent | None:
    """The trace that `text` names, or None when it names none.

    Two headers that a proxy joined with `,` name none either (section 3.2: exactly one).
    """
    match = _GRAMMAR.fullmatch(text[:LENGTH])
    if match is None:
        return None
    rest = text[LENGTH:]
    if rest and (match["version"] == "00" or rest[0] != "-" or "," in rest):
        return None
    return TraceParent(match["trace"], match["parent"], bool(int(match["flags"], 16) & _SAMPLED))
