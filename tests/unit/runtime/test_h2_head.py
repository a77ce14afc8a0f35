"""Heads of requests: what their fields say, and that a remembered block says nothing of another call."""

import pytest
from hpack import Encoder

from ext_authz.runtime.grpc_frame import CallRefused, Status
from ext_authz.runtime.h2_frame import ConnectionFault, ErrorCode
from ext_authz.runtime.h2_head import (
    HEADER_LIST_BYTES,
    MAX_REMEMBERED,
    MAX_REMEMBERED_BYTES,
    MAX_TRACEPARENT_BYTES,
    Head,
    HeadDecoder,
    Malformed,
)
from ext_authz.runtime.transport import CHECK_METHOD
from ext_authz.telemetry.traceparent import LENGTH

FIELDS = [
    (":method", "POST"),
    (":scheme", "http"),
    (":path", CHECK_METHOD),
    ("content-type", "application/grpc"),
    ("te", "trailers"),
]
ONE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
OTHER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"


def head(*more: tuple[str, str], sensitive: bool = False) -> Head:
    """Of a call with `more` fields; sensitive ones are not indexed."""
    fields = [(name, value, sensitive) for name, value in [*FIELDS, *more]]
    return HeadDecoder().head(Encoder().encode(fields))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ((), None),
        ((ONE,), ONE),
        ((ONE, OTHER), OTHER),
        (("", ONE), ONE),
        ((ONE, ""), ""),
        ((ONE.upper(),), ""),
        ((ONE + "-more",), ""),
        (("cc" + ONE[2:] + "-more",), "cc" + ONE[2:] + "-more"),
        (("00-" + "0" * 32 + ONE[35:],), ""),
        (("\xe4" + ONE,), ""),
        (("cc" + ONE[2:] + "-" + "x" * (MAX_TRACEPARENT_BYTES - LENGTH - 1),), ...),
        (("cc" + ONE[2:] + "-" + "x" * (MAX_TRACEPARENT_BYTES - LENGTH),), ""),
    ],
    ids=[
        "none",
        "one",
        "two",
        "empty first",
        "empty last",
        "capitals",
        "longer",
        "later",
        "zero",
        "latin-1",
        "longest",
        "too long",
    ],
)
def test_the_last_traceparent_counts_if_it_names_a_trace(values: tuple[str, ...], expected: object) -> None:
    found = head(*(("traceparent", value) for value in values)).traceparent
    assert found == (values[0] if expected is ... else expected)


def test_each_call_has_its_own_traceparent_and_a_block_that_changes_no_table_is_decoded_once() -> None:
    encoder, decoder = Encoder(), HeadDecoder()
    decoder.head(encoder.encode(FIELDS))
    plain = encoder.encode(FIELDS)
    first = decoder.head(plain)
    assert decoder.head(plain) is first
    assert first.traceparent is None
    # indexed, as encoders do with what they have not seen, and not indexed
    for sensitive in (False, True):
        for value in (ONE, OTHER, ONE):
            block = encoder.encode([*((name, text, False) for name, text in FIELDS), ("traceparent", value, sensitive)])
            assert decoder.head(block).traceparent == value
    assert decoder.head(encoder.encode(FIELDS)) == first


def test_no_more_is_remembered_than_an_envoy_needs() -> None:
    encoder, decoder = Encoder(), HeadDecoder()

    def again(value: str) -> bool:
        """Whether the block of a call with this field, which is in no table, is decoded once."""
        block = encoder.encode([*((name, text, False) for name, text in FIELDS), ("x", value, True)], huffman=False)
        return decoder.head(block) is decoder.head(block)

    encoder.encode(FIELDS)
    decoder.head(Encoder().encode(FIELDS))
    overhead = len(encoder.encode([*((name, text, False) for name, text in FIELDS), ("x", "", True)], huffman=False))
    assert again("a" * (MAX_REMEMBERED_BYTES - overhead - 2))
    assert not again("a" * (MAX_REMEMBERED_BYTES - overhead - 1))
    first = [encoder.encode([*((name, text, False) for name, text in FIELDS), ("x", f"{n}", True)]) for n in range(200)]
    heads = [decoder.head(block) for block in first]
    assert len(decoder._remembered) <= MAX_REMEMBERED
    assert decoder.head(first[-1]) is heads[-1]
    assert decoder.head(first[0]) is not heads[0]


def test_a_traceparent_does_not_excuse_what_is_malformed() -> None:
    with pytest.raises(Malformed):
        head(("traceparent", "a\nb"))
    with pytest.raises(Malformed):
        head(("traceparent", ONE), (":late", "x"))


@pytest.mark.parametrize(
    ("fields", "refusal"),
    [
        (FIELDS, None),
        ([*FIELDS[:2], (":path", "relative"), *FIELDS[3:]], Malformed),
        ([*FIELDS[:2], *FIELDS[3:]], Malformed),
        ([(":method", "GET"), *FIELDS[1:]], 405),
        ([*FIELDS[:3], ("te", "trailers")], 415),
        ([*FIELDS[:3], ("content-type", "text/plain"), ("te", "trailers")], 415),
        ([*FIELDS[:4]], Status.INTERNAL),
        ([*FIELDS[:4], ("te", "gzip")], Malformed),
        ([*FIELDS, ("te", "trailers")], Malformed),
        ([*FIELDS, ("content-length", "5")], None),
        ([*FIELDS, ("content-length", "+5")], Malformed),
        ([*FIELDS, ("content-length", "1" * 19)], Malformed),
        ([*FIELDS, ("connection", "close")], Malformed),
        ([*FIELDS, ("X-Capital", "x")], Malformed),
        ([*FIELDS, ("x", " padded")], Malformed),
        ([*FIELDS, (":path", "/again")], Malformed),
        ([(":unknown", "x"), *FIELDS], Malformed),
        ([*FIELDS, ("grpc-timeout", "1S")], None),
        ([*FIELDS, ("grpc-timeout", "soon")], Status.INTERNAL),
        ([*FIELDS, ("grpc-timeout", "1S"), ("grpc-timeout", "1S")], Status.INTERNAL),
        ([*FIELDS, ("x", "y" * HEADER_LIST_BYTES)], 431),
    ],
)
def test_a_head_is_a_call_or_says_how_it_ends(fields: list[tuple[str, str]], refusal: object) -> None:
    block = Encoder().encode(fields)
    if refusal is Malformed:
        with pytest.raises(Malformed):
            HeadDecoder().head(block)
        return
    found = HeadDecoder().head(block).refusal
    assert (found.status if isinstance(found, CallRefused) else found) == refusal


def test_a_block_that_cannot_be_decoded_ends_the_connection() -> None:
    with pytest.raises(ConnectionFault) as fault:
        HeadDecoder().head(b"\xff\xff\xff\xff\xff\xff")
    assert fault.value.code is ErrorCode.COMPRESSION_ERROR
