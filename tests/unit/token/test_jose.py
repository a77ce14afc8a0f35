"""Compact JWS: form, header and signature."""

import base64
import time

import pytest
from jwt import utils as pyjwt_utils
from support.tokens import (
    ALGORITHMS,
    base64url,
    claims,
    compact,
    json_bytes,
    signing_key,
)

from ext_authz.errors import Reason, Refusal
from ext_authz.token.jose import (
    MAX_KEY_ID_CHARACTERS,
    MAX_TOKEN_CHARACTERS,
    is_key_id,
    parse_compact,
    verify_signature,
)

HEADER = {"alg": "ES256", "typ": "at+jwt", "kid": "k"}


def refusal_of(text: str) -> Reason:
    with pytest.raises(Refusal) as caught:
        parse_compact(text)
    return caught.value.reason


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_signature_of_each_algorithm_verifies_with_its_key_and_with_no_other(algorithm: str) -> None:
    key = signing_key(algorithm)
    jws = parse_compact(compact({"alg": algorithm, "kid": key.kid}, claims(), key))

    verify_signature(jws, key.private.public_key())

    assert jws.key_id == key.kid
    assert jws.type is None
    with pytest.raises(Refusal) as caught:
        verify_signature(jws, signing_key(algorithm, index=1).private.public_key())
    assert caught.value.reason is Reason.SIGNATURE_INVALID


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_changed_bit_anywhere_spoils_the_signature(algorithm: str) -> None:
    key = signing_key(algorithm)
    head, body, signature = compact({"alg": algorithm}, claims(), key).split(".")
    raw = bytearray(base64.urlsafe_b64decode(signature + "=="))
    raw[len(raw) // 2] ^= 1
    for text in (
        f"{head}.{body}.{base64url(bytes(raw))}",
        f"{head}.{base64url(json_bytes(claims(sub='mallory')))}.{signature}",
        f"{base64url(json_bytes({'alg': algorithm, 'typ': 'x'}))}.{body}.{signature}",
        f"{head}.{body}.",
        f"{head}.{body}.{signature}AAAA",
    ):
        with pytest.raises(Refusal) as caught:
            verify_signature(parse_compact(text), key.private.public_key())
        assert caught.value.reason is Reason.SIGNATURE_INVALID


@pytest.mark.parametrize(("algorithm", "size"), [("ES256", 64), ("ES384", 96), ("ES512", 132)])
def test_an_ecdsa_signature_of_zeros_in_der_or_of_another_length_is_refused(algorithm: str, size: int) -> None:
    key = signing_key(algorithm)
    message = compact({"alg": algorithm}, claims(), b"").rstrip(".")
    raw = key.sign(message.encode())
    der = pyjwt_utils.raw_to_der_signature(raw, key.private.curve)  # type: ignore[union-attr]
    half = size // 2
    for signature in (
        bytes(size),
        bytes(half) + raw[half:],
        raw[:half] + bytes(half),
        der,
        b"",
        raw[:-1],
        raw + b"\0",
        b"\xff" * size,
    ):
        with pytest.raises(Refusal) as caught:
            verify_signature(parse_compact(f"{message}.{base64url(signature)}"), key.private.public_key())
        assert caught.value.reason is Reason.SIGNATURE_INVALID
    verify_signature(parse_compact(f"{message}.{base64url(raw)}"), key.private.public_key())


@pytest.mark.parametrize(
    ("algorithm", "other"), [("RS256", "ES256"), ("ES256", "ES384"), ("ES256", "RS256"), ("EdDSA", "RS256")]
)
def test_a_key_of_another_family_or_curve_verifies_nothing(algorithm: str, other: str) -> None:
    jws = parse_compact(compact({"alg": algorithm}, claims(), signing_key(algorithm)))
    with pytest.raises(Refusal) as caught:
        verify_signature(jws, signing_key(other).private.public_key())
    assert caught.value.reason is Reason.SIGNATURE_INVALID


def test_a_token_of_a_megabyte_is_refused_before_it_is_parsed() -> None:
    started = time.perf_counter()
    assert refusal_of("a" * 1_000_000) is Reason.TOKEN_TOO_LARGE
    assert time.perf_counter() - started < 0.005


def test_the_longest_token_is_parsed_and_one_character_more_is_too_large() -> None:
    empty = compact(HEADER, b"", b"1234")
    # segments grow by four characters for three bytes
    room = (MAX_TOKEN_CHARACTERS - len(empty)) // 4 * 3
    assert parse_compact(compact(HEADER, b"x" * room, b"1234")).unverified_payload == b"x" * room
    assert refusal_of("." * (MAX_TOKEN_CHARACTERS + 1)) is Reason.TOKEN_TOO_LARGE
    assert refusal_of("." * MAX_TOKEN_CHARACTERS) is Reason.TOKEN_MALFORMED


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "..",
        "a.b",
        "a.b.c.d",
        "a.b.c.d.e",
        compact(HEADER, {}) + ".x",
        compact(HEADER, {}).rpartition(".")[0],
    ],
)
def test_anything_but_three_segments_is_malformed(text: str) -> None:
    assert refusal_of(text) is Reason.TOKEN_MALFORMED


HEAD = base64url(json_bytes(HEADER))


@pytest.mark.parametrize(
    "segment",
    [
        "eA==",
        "eA=",
        "A",
        "AAAAA",
        "eB",  # loose bits: `eA` is the one text of that byte
        "eHh",
        "e A",
        "eA\n",
        "eHh4\n",
        "\neHh4",
        "eHh+",
        "eHh/",
        "eHh\u00e9",
        "\uff21AAA",
        "eHh\x00",
        "*",
    ],
)
def test_a_segment_that_is_not_canonical_unpadded_base64url_is_malformed(segment: str) -> None:
    assert refusal_of(f"{segment}.e30.AAAA") is Reason.TOKEN_MALFORMED
    assert refusal_of(f"{HEAD}.{segment}.AAAA") is Reason.TOKEN_MALFORMED
    assert refusal_of(f"{HEAD}.e30.{segment}") is Reason.TOKEN_MALFORMED


@pytest.mark.parametrize(
    "algorithm", ["none", "None", "NONE", "nOnE", "", "HS256", "HS384", "HS512", "ES256K", "es256"]
)
def test_no_algorithm_and_symmetric_and_unknown_algorithms_are_refused(algorithm: str) -> None:
    assert refusal_of(compact({**HEADER, "alg": algorithm}, {})) is Reason.TOKEN_ALGORITHM_NOT_ALLOWED


@pytest.mark.parametrize("algorithm", [None, 1, True, ["ES256"], {"ES256": 1}])
def test_an_algorithm_that_is_no_string_is_malformed(algorithm: object) -> None:
    assert refusal_of(compact({**HEADER, "alg": algorithm}, {})) is Reason.TOKEN_MALFORMED


def test_a_header_without_algorithm_is_malformed() -> None:
    assert refusal_of(compact({"typ": "at+jwt"}, {})) is Reason.TOKEN_MALFORMED


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("jwk", signing_key().jwk()),
        ("jwk", None),
        ("jku", "https://evil.example/jwks"),
        ("x5u", "https://evil.example/cert"),
        ("x5c", ["MIIB"]),
        ("crit", ["b64"]),
        ("crit", ["exp"]),
        ("crit", []),
        ("crit", ["x", "x"]),
        ("crit", None),
        ("b64", False),
        ("b64", True),
        ("zip", "DEF"),
        ("zip", "NONE"),
        ("cty", "JWT"),
    ],
)
def test_a_header_that_brings_a_key_or_changes_the_reading_is_refused(name: str, value: object) -> None:
    key = signing_key()
    assert refusal_of(compact({**HEADER, name: value}, claims(), key)) is Reason.TOKEN_HEADER_NOT_ALLOWED


def test_certificate_thumbprints_in_the_header_are_passed_over_and_other_members_are_named() -> None:
    jws = parse_compact(compact({**HEADER, "x5t": "AAAA", "x5t#S256": "BBBB", "pi.atm": "1", "JKU": "x"}, {}))
    assert jws.other_headers == {"pi.atm", "JKU"}


@pytest.mark.parametrize(
    "kid",
    [
        "",
        "\x00",
        "a\x00b",
        "a\r\nb",
        "a\tb",
        "\x7f",
        "é",
        "x" * 10240,
        "x" * (MAX_KEY_ID_CHARACTERS + 1),
        7,
        None,
        ["k"],
        {"k": 1},
        True,
    ],
)
def test_a_key_id_that_is_not_a_bounded_printable_string_is_malformed(kid: object) -> None:
    assert refusal_of(compact({**HEADER, "kid": kid}, {})) is Reason.TOKEN_MALFORMED


@pytest.mark.parametrize("kid", ["k", "../../etc/passwd", "' OR 1=1 --", "a b", "x" * MAX_KEY_ID_CHARACTERS])
def test_a_printable_key_id_is_only_a_name(kid: str) -> None:
    assert is_key_id(kid)
    assert parse_compact(compact({**HEADER, "kid": kid}, {})).key_id == kid


@pytest.mark.parametrize("typ", [None, 1, "", True, ["at+jwt"]])
def test_a_type_that_is_not_a_string_is_malformed(typ: object) -> None:
    assert refusal_of(compact({**HEADER, "typ": typ}, {})) is Reason.TOKEN_MALFORMED


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"[]",
        b"1",
        b"null",
        b'"x"',
        b"{",
        b'{"alg":"ES256"} x',
        b'{"alg":"none","alg":"ES256"}',
        b'{"alg":"ES256","kid":"a","kid":"a"}',
        b'\xef\xbb\xbf{"alg":"ES256"}',
        '{"alg":"ES256"}'.encode("utf-16"),
        b'{"alg":"ES256","x":"\xff"}',
        b'{"alg":"ES256","x":"\xed\xa0\x80"}',
        b'{"alg":"ES256","x":"\\ud800"}',
        b'{"alg":"ES256","x":NaN}',
        b"{'alg':'ES256'}",
        b'{"alg":"ES256",}',
    ],
)
def test_a_header_that_is_not_a_strict_json_object_is_malformed(header: bytes) -> None:
    assert refusal_of(compact(header, {})) is Reason.TOKEN_MALFORMED


def test_white_space_in_the_header_is_json() -> None:
    assert parse_compact(compact(b' {\n "alg" :\t"ES256"\r} ', {})).algorithm == "ES256"


def test_an_empty_payload_is_a_matter_for_whoever_reads_it() -> None:
    assert parse_compact(compact(HEADER, b"")).unverified_payload == b""


def test_what_is_signed_is_the_text_as_sent() -> None:
    text = compact(b' {"alg":"ES256"}', b'{"a" : 1}', signing_key())
    jws = parse_compact(text)
    assert jws.signing_input.decode() == text.rpartition(".")[0]
    verify_signature(jws, signing_key().private.public_key())
