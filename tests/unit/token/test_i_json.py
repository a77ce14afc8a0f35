"""Strict JSON objects."""

import json
import time
from collections.abc import Mapping
from types import MappingProxyType

import pytest

from ext_authz.errors import Reason, Refusal
from ext_authz.token.i_json import MAX_DEPTH, MAX_NUMBER_CHARACTERS, parse_object

REASON = Reason.TOKEN_MALFORMED


def refusal_of(data: bytes) -> Refusal:
    with pytest.raises(Refusal) as caught:
        parse_object(data, REASON)
    assert caught.value.reason is REASON
    return caught.value


def test_an_object_becomes_read_only_values_at_any_depth() -> None:
    value = parse_object(b'{"a":[1,[2,{"b":[]}],"x"],"c":{"d":null,"e":true},"f":1.5}', REASON)
    assert value == {"a": (1, (2, {"b": ()}), "x"), "c": {"d": None, "e": True}, "f": 1.5}
    assert isinstance(value, MappingProxyType)
    assert isinstance(value["c"], MappingProxyType)
    assert isinstance(value["a"], tuple)
    inner = value["a"][1]
    assert isinstance(inner, tuple)
    assert isinstance(inner[1], Mapping)
    assert not isinstance(inner[1], dict)


@pytest.mark.parametrize(
    "data",
    [
        b'{"a":1,"a":2}',
        b'{"x":{"a":1,"a":1}}',
        b'{"x":[[{"a":1,"\\u0061":2}]]}',
    ],
)
def test_a_member_name_that_appears_twice_is_refused_at_any_depth(data: bytes) -> None:
    assert "twice" in refusal_of(data).detail


@pytest.mark.parametrize(
    "data",
    [
        '{"a":1}'.encode("utf-16"),
        '{"a":1}'.encode("utf-16-le"),
        '{"a":1}'.encode("utf-32"),
        '{"a":"é"}'.encode("latin-1"),
        b'{"a":"\xc0\xaf"}',
        b'{"a":"\xed\xb0\x80"}',
        b"\xef\xbb\xbf{}",
        b"",
        b"{}{}",
        b"{} x",
        b'{"a":"\x01"}',
        b'{"a":"\n"}',
        b'{"a":01}',
        b'{"a":+1}',
        b'{"a":.5}',
        b'{"a":0x1}',
        b"{a:1}",
        b'{"a":1}//',
        b"[]",
        b"[{}]",
        b"null",
        b"7",
        b'"x"',
    ],
)
def test_what_is_not_one_json_object_in_utf8_is_refused(data: bytes) -> None:
    refusal_of(data)


@pytest.mark.parametrize(
    "number",
    [
        "NaN",
        "Infinity",
        "-Infinity",
        "1e400",
        "-1e400",
        "1" + "0" * 4000,
        "9" * 5000,
        "0." + "1" * 4000,
        "1" * (MAX_NUMBER_CHARACTERS + 1),
        "1E+999999999",
    ],
)
def test_a_number_that_is_not_bounded_and_finite_is_refused(number: str) -> None:
    refusal_of(f'{{"exp":{number}}}'.encode())


@pytest.mark.parametrize(
    "number", ["0", "-1", "18446744073709551615", "1.5", "1e10", "-0.0", "1" * MAX_NUMBER_CHARACTERS]
)
def test_a_bounded_number_is_read(number: str) -> None:
    assert parse_object(f'{{"n":{number}}}'.encode(), REASON)["n"] == json.loads(number)


@pytest.mark.parametrize(
    "data",
    [
        rb'{"a":"\ud800"}',
        rb'{"a":"\uDC00\uD800"}',
        rb'{"a":["x",{"b":"\udfff"}]}',
        rb'{"a":{"\ud800":1}}',
    ],
)
def test_a_lone_surrogate_is_refused_wherever_it_is(data: bytes) -> None:
    assert "surrogate" in refusal_of(data).detail


def test_a_surrogate_pair_and_an_escaped_backslash_are_text() -> None:
    value = parse_object(rb'{"a":"\ud83d\ude00","b":"\\ud800","c":[1,null,"\u00e9"]}', REASON)
    assert value == {"a": "\U0001f600", "b": "\\ud800", "c": (1, None, "é")}


def nested(depth: int, opening: str = "[", closing: str = "]") -> bytes:
    return ('{"a":' + opening * (depth - 1) + closing * (depth - 1) + "}").encode()


def test_the_deepest_allowed_object_is_read_and_one_level_more_is_not() -> None:
    parse_object(b'{"a":' * MAX_DEPTH + b"1" + b"}" * MAX_DEPTH, REASON)
    refusal_of(b'{"a":' * (MAX_DEPTH + 1) + b"1" + b"}" * (MAX_DEPTH + 1))
    parse_object(nested(MAX_DEPTH), REASON)
    assert "deeper" in refusal_of(nested(MAX_DEPTH + 1)).detail


def test_many_brackets_side_by_side_or_in_strings_are_not_depth() -> None:
    wide = {"a": [[] for _ in range(100)], "b": "[" * 100, "c\\": '"[{' * 50, '"[[[[': [{"\\": "{"}] * 30}
    assert len(parse_object(json.dumps(wide).encode(), REASON)) == 4
    # a string that ends in an escaped backslash, and one that does not end at a quote behind one
    ends = {"a": "\\", "b": "[" * 20, "c": '\\"' + "[" * 20, "d": '\\\\"' + "{" * 20}
    assert len(parse_object(json.dumps(ends).encode(), REASON)) == 4
    assert "deeper" in refusal_of(b'{"a":"\\\\","b":' + b"[" * MAX_DEPTH + b"]" * MAX_DEPTH + b"}").detail


@pytest.mark.parametrize(
    "data",
    [
        nested(100_000),
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"}" * 100_000,
        b'{"a":' + b"[]," * 30_000,
    ],
)
def test_a_depth_of_a_hundred_thousand_costs_next_to_nothing(data: bytes) -> None:
    started = time.process_time()
    refusal_of(data)
    assert time.process_time() - started < 0.5


def test_an_unterminated_string_of_escaped_quotes_is_read_once() -> None:
    started = time.process_time()
    refusal_of(b"[" * 20 + b'"' + b'\\"' * 6_000)
    refusal_of(b"{" * 20 + b'"\\')
    refusal_of(b"[]" * 20 + b'"' + b'\\"' * 6_000)
    assert time.process_time() - started < 0.5
