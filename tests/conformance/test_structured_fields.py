"""The corpus of httpwg/structured-field-tests behind RFC 9440: byte sequences, items, lists, and parameters.

We read items whose value is a byte sequence, and lists of them. Where a case is about something else (numbers in a
list, strings) the thing that is not under test is replaced by a byte sequence, or the value becomes a parameter's.
"""

import base64
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from ext_authz.errors import Reason, Refusal
from ext_authz.evidence.structured_fields import MAX_FIELD_LENGTH, parse_byte_sequence, parse_byte_sequences

CORPORA = os.environ.get("EXT_AUTHZ_CORPORA")

# the corpus lets a parser refuse these (`can_fail`), and we do
STRICTER = {
    "bad padding": "one certificate has one text: RFC 8941 §4.2.7 allows to refuse missing padding",
    "non-zero pad bits": "likewise: stray bits behind the last byte",
}


def cases(name: str, *, header_type: str) -> list[Any]:
    if CORPORA is None:
        return [pytest.param(None, marks=pytest.mark.skip("EXT_AUTHZ_CORPORA does not name the third-party vectors"))]
    path = Path(CORPORA) / "structured-field-tests" / f"{name}.json"
    found = [case for case in json.loads(path.read_text()) if case["header_type"] == header_type]
    assert found
    return [pytest.param(case, id=case["name"]) for case in found]


def refuses(text: str, *, as_list: bool = False) -> bool:
    try:
        if as_list:
            parse_byte_sequences(text)
        else:
            parse_byte_sequence(text)
    except Refusal as refusal:
        reason = refusal.reason
    else:
        return False
    assert reason is Reason.CERTIFICATE_HEADER_MALFORMED
    return True


def must_refuse(case: dict[str, Any]) -> bool:
    if case.get("can_fail"):
        assert case["name"] in STRICTER, "a case where the corpus leaves a choice has a reason for ours"
        return True
    return bool(case.get("must_fail"))


@pytest.mark.parametrize("case", cases("binary", header_type="item"))
def test_a_byte_sequence_is_read_or_refused(case: dict[str, Any]) -> None:
    (raw,) = case["raw"]
    assert refuses(raw) == must_refuse(case)
    if not must_refuse(case):
        assert parse_byte_sequence(raw) == base64.b32decode(case["expected"][0]["value"])
        assert parse_byte_sequences(f"{raw}, {raw}") == (base64.b32decode(case["expected"][0]["value"]),) * 2


@pytest.mark.parametrize("case", cases("item", header_type="item"))
def test_the_space_around_an_item_is_spaces_only(case: dict[str, Any]) -> None:
    (raw,) = case["raw"]
    assert refuses(raw.replace("1", ":AQ==:")) == must_refuse(case)


@pytest.mark.parametrize("case", cases("list", header_type="list"))
def test_a_list_is_read_or_refused(case: dict[str, Any]) -> None:
    # numbers become byte sequences of as many bytes
    text = re.sub(r"\d+", lambda number: f":{base64.b64encode(bytes(int(number[0]))).decode()}:", ",".join(case["raw"]))
    assert refuses(text, as_list=True) == must_refuse(case)
    if not must_refuse(case):
        assert [len(value) for value in parse_byte_sequences(text)] == [member for member, _ in case["expected"]]


@pytest.mark.parametrize("case", cases("string", header_type="item"))
def test_a_string_is_read_or_refused_as_a_parameter(case: dict[str, Any]) -> None:
    # "two lines string" (`can_fail`): lines reach us joined, so a string over two lines is a string with a comma
    text = ",".join(case["raw"])
    assert refuses(f":AQ==:;a={text}") == case.get("must_fail", False)
    assert refuses(text)  # not a byte sequence


@pytest.mark.parametrize("case", cases("examples", header_type="item"))
def test_the_items_of_the_specification_are_read_when_their_value_is_a_byte_sequence(case: dict[str, Any]) -> None:
    (raw,) = case["raw"]
    value = case["expected"][0]
    if isinstance(value, dict) and value["__type"] == "binary":
        assert parse_byte_sequence(raw) == base64.b32decode(value["value"])
    else:
        assert refuses(raw)
    bare, semicolon, parameters = raw.partition(";")
    assert bare
    assert parse_byte_sequence(f":AQ==:{semicolon}{parameters}") == b"\x01"


@pytest.mark.parametrize("case", cases("examples", header_type="list"))
def test_the_lists_of_the_specification_hold_no_byte_sequences_and_are_refused(case: dict[str, Any]) -> None:
    assert refuses(",".join(case["raw"]), as_list=True)


@pytest.mark.parametrize(
    "parameters",
    [
        ";a",
        "; a",
        ";  a;b",
        ";a=1",
        ";a=-1.125",
        ";a=999999999999999",
        ";a=?1",
        ";a=tok:en/*",
        ";a=:AA==:",
        ";a=::",
        ";*a.b-c_d*=x",
        ";a=1;a=2",
        ';a="\\"\\\\"',
    ],
)
def test_parameters_of_every_type_are_ignored(parameters: str) -> None:
    assert parse_byte_sequence(f":AQ==:{parameters}") == b"\x01"
    assert parse_byte_sequences(f":AQ==:{parameters},:Ag==:{parameters}") == (b"\x01", b"\x02")


@pytest.mark.parametrize(
    "parameters",
    [
        ";",
        ";;a",
        " ;a",
        ";\ta",
        ";A",
        ";1",
        ";a=",
        ";a =1",
        ";a= 1",
        ";a=-",
        ";a=1.",
        ";a=1.1234",
        ";a=1234567890123.1",
        ";a=1000000000000000",
        ";a=?2",
        ";a=?",
        ";a=(1)",
        ";a=@1",
        ';a=%"x"',
        ";a=:A",
        ';a="\\x"',
        ";ä",
        "\x00",
    ],
)
def test_parameters_outside_the_grammar_are_refused(parameters: str) -> None:
    assert refuses(f":AQ==:{parameters}")
    assert refuses(f":AQ==:{parameters},:Ag==:", as_list=True)


def test_a_byte_sequence_in_a_parameter_is_no_member_of_the_list() -> None:
    assert parse_byte_sequences(':AQ==:;a=":Aw==:, :BA==:", :Ag==:;b=:BQ==:') == (b"\x01", b"\x02")


def test_an_empty_list_has_no_members() -> None:
    assert parse_byte_sequences("") == parse_byte_sequences("  ") == ()


def test_a_field_has_a_greatest_length() -> None:
    padded = ":AQ==:" + " " * (MAX_FIELD_LENGTH - 6)
    assert parse_byte_sequence(padded) == b"\x01"
    assert parse_byte_sequences(padded) == (b"\x01",)
    assert refuses(padded + " ")
    assert refuses(padded + " ", as_list=True)
