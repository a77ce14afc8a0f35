"""A `traceparent` is exactly what W3C Trace Context says, or none."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ext_authz.telemetry.traceparent import TraceParent, parse_traceparent

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
GOOD = f"00-{TRACE}-{PARENT}-01"


@pytest.mark.parametrize(
    ("text", "sampled"),
    [
        (GOOD, True),
        (GOOD[:-2] + "00", False),
        (GOOD[:-2] + "03", True),
        (GOOD[:-2] + "02", False),
        ("01" + GOOD[2:], True),
        ("cc" + GOOD[2:] + "-what-the-future-will-be-like", True),
    ],
)
def test_a_trace_is_read(text: str, sampled: bool) -> None:
    assert parse_traceparent(text) == TraceParent(TRACE, PARENT, sampled)


@pytest.mark.parametrize(
    "text",
    [
        "",
        GOOD[:-1],
        GOOD + "-",
        GOOD + "-more",
        GOOD + "\n",
        " " + GOOD,
        GOOD.upper(),
        f"{GOOD},{GOOD}",
        "ff" + GOOD[2:],
        "0x" + GOOD[2:],
        "01" + GOOD[2:] + "more",
        f"01{GOOD[2:]}-more,01{GOOD[2:]}",
        f"00-{'0' * 32}-{PARENT}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE}-{PARENT}-0g",
        GOOD.replace("-", "_"),
        "\u0660" * 55,
    ],
)
def test_anything_else_is_no_trace(text: str) -> None:
    assert parse_traceparent(text) is None


@given(st.one_of(st.text(), st.from_regex(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}.*", fullmatch=True)))
def test_any_text_is_a_trace_with_usable_ids_or_none(text: str) -> None:
    trace = parse_traceparent(text)
    if trace is not None:
        assert int(trace.trace_id, 16) > 0
        assert int(trace.parent_id, 16) > 0
        assert text.startswith(f"{text[:2]}-{trace.trace_id}-{trace.parent_id}-")
