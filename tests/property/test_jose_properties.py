"""Whatever text is presented as a token, the outcome is a value or a refusal."""

import base64
import json
import re
from collections.abc import Mapping
from unittest.mock import patch

from hypothesis import given
from hypothesis import strategies as st
from support.tokens import base64url, claims, compact, json_bytes, signing_key

from ext_authz.errors import Reason, Refusal
from ext_authz.principal import JsonValue
from ext_authz.token import i_json
from ext_authz.token.base64url import decode_base64url
from ext_authz.token.i_json import parse_object
from ext_authz.token.jose import CompactJws, parse_compact, verify_signature

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(max_size=8), children, max_size=4),
    max_leaves=12,
)
HEADERS = st.dictionaries(
    st.sampled_from(["alg", "typ", "kid", "crit", "b64", "jwk", "jku", "x5c", "zip", "cty", "x5t", "other"]),
    st.sampled_from(["ES256", "none", "HS256", "at+jwt", "k", ""]) | JSON,
)
SEGMENTS = st.binary(max_size=40).map(base64url) | st.text(max_size=40)


def parsed(text: str) -> CompactJws | Reason:
    try:
        return parse_compact(text)
    except Refusal as refusal:
        return refusal.reason


@given(st.text())
def test_any_text_is_parsed_or_refused(text: str) -> None:
    parsed(text)


@given(st.lists(SEGMENTS, max_size=6))
def test_any_segments_are_parsed_or_refused(segments: list[str]) -> None:
    parsed(".".join(segments))


@given(HEADERS, st.binary(max_size=64), st.binary(max_size=132))
def test_any_header_payload_and_signature_are_parsed_or_refused_and_never_verify(
    header: dict[str, object], payload: bytes, signature: bytes
) -> None:
    jws = parsed(compact(header, payload, signature))
    if isinstance(jws, CompactJws):
        assert jws.unverified_payload == payload
        try:
            verify_signature(jws, signing_key().private.public_key())
        except Refusal as refusal:
            assert refusal.reason is Reason.SIGNATURE_INVALID  # noqa: PT017 - a value is as right
        else:
            raise AssertionError("a signature nobody made verifies")


RIGHT = compact({"alg": "ES256", "typ": "at+jwt", "kid": "k"}, claims(), signing_key())


@given(st.integers(0, len(RIGHT) - 1), st.characters())
def test_no_token_with_another_character_in_it_verifies(position: int, character: str) -> None:
    text = RIGHT[:position] + character + RIGHT[position + 1 :]
    if text == RIGHT:
        return
    try:
        verify_signature(parse_compact(text), signing_key().private.public_key())
    except Refusal:
        return
    raise AssertionError("a token with another text verifies")


@given(st.binary())
def test_each_byte_string_has_one_text_and_each_text_at_most_one_byte_string(data: bytes) -> None:
    assert decode_base64url(base64url(data)) == data


@given(st.text(alphabet="ABQgwcYZaz019-_=+/ \n\u00e9", max_size=12))
def test_text_that_decodes_is_the_text_of_what_it_decodes_to(text: str) -> None:
    data = decode_base64url(text)
    assert data is None or base64url(data) == text
    if len(text) % 4 == 0 and text.isalnum() and text.isascii():
        assert data is not None


@given(st.binary(max_size=200))
def test_any_bytes_are_a_json_object_or_refused(data: bytes) -> None:
    try:
        parse_object(data, Reason.TOKEN_MALFORMED)
    except Refusal as refusal:
        assert refusal.reason is Reason.TOKEN_MALFORMED  # noqa: PT017 - a value is as right


def thawed(value: JsonValue) -> object:
    if isinstance(value, tuple):
        return [thawed(item) for item in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return {name: thawed(item) for name, item in value.items()}


@given(st.dictionaries(st.text(max_size=8), JSON, max_size=5))
def test_an_object_is_read_as_it_was_written(value: dict[str, object]) -> None:
    try:
        read = parse_object(json_bytes(value), Reason.TOKEN_MALFORMED)
    except Refusal:
        # too deep, or lone surrogates
        assert "\\ud" in json.dumps(value) or json.dumps(value).count("[") + json.dumps(value).count("{") > 16
        return
    assert thawed(read) == value


ALMOST_BASE64URL = st.text(alphabet=st.sampled_from("ABghwxyz0189-_-_+/= \n.é"), max_size=12)


@given(st.text() | ALMOST_BASE64URL)
def test_base64url_is_decoded_exactly_when_it_is_the_one_text_for_its_bytes(text: str) -> None:
    decoded = decode_base64url(text)
    if decoded is not None:
        assert base64.urlsafe_b64encode(decoded).rstrip(b"=").decode() == text
    elif re.fullmatch("[A-Za-z0-9_-]*", text) and len(text) % 4 != 1:
        lenient = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        assert base64.urlsafe_b64encode(lenient).rstrip(b"=").decode() != text


def strictly_read(data: bytes) -> object:
    """What the strict reader makes of it, alone."""
    with patch.object(i_json, "_read_canonical", return_value=None):
        return read(data)


def read(data: bytes) -> object:
    try:
        return described(parse_object(data, Reason.TOKEN_MALFORMED))
    except Refusal as refusal:
        return refusal.detail


def described(value: JsonValue) -> object:
    """The value with its types: `1`, `1.0` and `true` are three, and so are -0.0 and 0.0."""
    if isinstance(value, Mapping):
        return type(value), [(name, described(member)) for name, member in value.items()]
    if isinstance(value, tuple):
        return type(value), [described(member) for member in value]
    return type(value), repr(value)


# texts as servers write them, and what is nearly such a text: members twice, numbers in other forms, escapes
FRAGMENTS = st.sampled_from(
    [
        *('"a":1', '"a":2', '"\\u0061":3', '"b":{"a":1,"a":1}', '"b":[{"c":1,"c":2}]', '"é":"é"', '"x":"\\u00e9"'),
        *('"n":1.0', '"n":1e3', '"n":-0', '"n":-0.0', '"n":1E400', '"n":NaN', '"n":18446744073709551616', '"n":0.1'),
        *(
            '"n":100000000000000000000',
            '"s":"\\/"',
            '"s":"\\ud800"',
            '"s":"\x7f"',
            '"s":"<\\u003c"',
            '"s": 1',
            '"t":[[[]]]',
        ),
        *('"d":' + '{"d":' * 15 + "1" + "}" * 15, '"d":' + "[" * 16 + "]" * 16, '"o":[true,false,null]', '"a":"{[{["'),
        *('"n":9007199254740993', '"n":5e-324', '"n":1.7976931348623157e308', '"n":123456789012345678901234567890123'),
    ]
)
TEXTS = st.lists(FRAGMENTS, max_size=4).map(lambda members: "{" + ",".join(members) + "}")
COMPACT = st.dictionaries(st.text(max_size=6), JSON, max_size=4).map(
    lambda value: json.dumps(value, ensure_ascii=False, separators=(",", ":"))
)


@given(TEXTS | COMPACT | st.text())
def test_the_fast_reader_reads_what_the_strict_one_reads(text: str) -> None:
    data = text.encode(errors="surrogatepass")
    assert read(data) == strictly_read(data)
