"""Key sets: which keys verify what, and which are left out and why."""

from collections.abc import Mapping
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from support.tokens import ALGORITHMS, OMIT, base64url, json_bytes, jwks, signing_key

from ext_authz.errors import Reason, Refusal
from ext_authz.token.jwk import MAX_RSA_BITS, KeyFault
from ext_authz.token.jwks import MAX_KEY_SET_BYTES, MAX_KEYS, KeyMatch, KeySet, VerificationKey

RSA = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")


def faults(*members: object) -> list[KeyFault]:
    return [refused.fault for refused in KeySet.from_json(json_bytes({"keys": list(members)})).refused]


def rsa(modulus: int, exponent: int = 65_537) -> dict[str, Any]:
    def octets(number: int) -> str:
        return base64url(number.to_bytes((number.bit_length() + 7) // 8 or 1))

    return {"kty": "RSA", "n": octets(modulus), "e": octets(exponent)}


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_key_with_an_algorithm_verifies_that_algorithm_alone(algorithm: str) -> None:
    key = signing_key(algorithm)
    key_set = KeySet.from_json(jwks(key))
    found = key_set.find(key.kid, algorithm)
    assert isinstance(found, VerificationKey)
    assert found.key_id == key.kid
    assert [other for other in ALGORITHMS if isinstance(key_set.find(key.kid, other), VerificationKey)] == [algorithm]
    assert key_set.refused == ()


@pytest.mark.parametrize(
    ("algorithm", "fitting"),
    [("RS256", RSA), ("ES256", ("ES256",)), ("ES384", ("ES384",)), ("ES512", ("ES512",)), ("EdDSA", ("EdDSA",))],
)
def test_a_key_without_an_algorithm_verifies_those_of_its_type_and_curve(
    algorithm: str, fitting: tuple[str, ...]
) -> None:
    key_set = KeySet.from_json(jwks(signing_key(algorithm).jwk(alg=OMIT, use=OMIT, kid="k")))
    assert tuple(a for a in ALGORITHMS if isinstance(key_set.find("k", a), VerificationKey)) == fitting


def test_an_unknown_key_id_may_be_fetched_and_a_known_one_that_does_not_fit_may_not() -> None:
    key_set = KeySet.from_json(jwks(signing_key("ES256", kid="a"), signing_key("RS256", kid="weak").jwk(use="enc")))
    assert key_set.find("b", "ES256") is KeyMatch.UNKNOWN
    assert key_set.find("a", "RS256") is KeyMatch.UNUSABLE
    assert key_set.find("weak", "RS256") is KeyMatch.UNUSABLE


def test_a_token_without_key_id_has_a_key_only_when_exactly_one_fits() -> None:
    one, two = signing_key("ES256", kid="a"), signing_key("ES256", kid="b", index=1)
    rs = signing_key("RS256", kid="c")
    found = KeySet.from_json(jwks(one, rs)).find(None, "ES256")
    assert isinstance(found, VerificationKey)
    assert found.key_id == "a"
    assert KeySet.from_json(jwks(one, two, rs)).find(None, "ES256") is KeyMatch.UNUSABLE
    assert KeySet.from_json(jwks(rs)).find(None, "ES256") is KeyMatch.UNKNOWN


def test_a_key_without_key_id_verifies_only_tokens_without_one() -> None:
    key_set = KeySet.from_json(jwks(signing_key().jwk(kid=OMIT)))
    assert isinstance(key_set.find(None, "ES256"), VerificationKey)
    assert key_set.find("", "ES256") is KeyMatch.UNKNOWN
    assert key_set.find("None", "ES256") is KeyMatch.UNKNOWN


def test_both_keys_of_a_duplicate_id_are_refused_and_the_others_serve() -> None:
    key_set = KeySet.from_json(
        jwks(signing_key(kid="a"), signing_key(kid="a", index=1), signing_key(kid="b", index=1)),
    )
    assert [(refused.position, refused.key_id, refused.fault) for refused in key_set.refused] == [
        (0, "a", KeyFault.DUPLICATE_KEY_ID),
        (1, "a", KeyFault.DUPLICATE_KEY_ID),
    ]
    assert key_set.find("a", "ES256") is KeyMatch.UNUSABLE
    assert isinstance(key_set.find("b", "ES256"), VerificationKey)


def test_an_id_shared_with_a_symmetric_key_names_nothing() -> None:
    oct_key = {"kty": "oct", "k": "AAAA", "kid": "a"}
    assert faults(oct_key, signing_key(kid="a").jwk()) == [KeyFault.DUPLICATE_KEY_ID] * 2


EC: Mapping[str, Any] = signing_key("ES256").jwk()
OKP: Mapping[str, Any] = signing_key("EdDSA").jwk()
RSA_2048: Mapping[str, Any] = signing_key("RS256").jwk()


@pytest.mark.parametrize(
    ("member", "fault"),
    [
        ({"kty": "oct", "k": "AAAA", "alg": "HS256"}, KeyFault.SYMMETRIC),
        ({"kty": "oct", "k": "AAAA", "alg": "ES256", "kid": "x"}, KeyFault.SYMMETRIC),
        ({**EC, "k": "AAAA"}, KeyFault.PRIVATE),
        (signing_key("ES256").private_jwk(), KeyFault.PRIVATE),
        (signing_key("RS256").private_jwk(), KeyFault.PRIVATE),
        (signing_key("EdDSA").private_jwk(), KeyFault.PRIVATE),
        ({**RSA_2048, "p": "AAAA"}, KeyFault.PRIVATE),
        ({**EC, "use": "enc"}, KeyFault.USE_NOT_SIGNATURE),
        ({**EC, "use": "jwt-svid"}, KeyFault.USE_NOT_SIGNATURE),
        ({**EC, "use": None}, KeyFault.USE_NOT_SIGNATURE),
        ({**EC, "key_ops": ["sign"]}, KeyFault.USE_NOT_SIGNATURE),
        ({**EC, "key_ops": []}, KeyFault.USE_NOT_SIGNATURE),
        ({**EC, "key_ops": "verify"}, KeyFault.MALFORMED),
        ({**EC, "use": "enc", "key_ops": ["verify"]}, KeyFault.USE_NOT_SIGNATURE),
        ({"kty": "PQK", "kid": "x"}, KeyFault.TYPE_NOT_SUPPORTED),
        ({"kty": "ec"}, KeyFault.TYPE_NOT_SUPPORTED),
        ({"kid": "x"}, KeyFault.MALFORMED),
        ({"kty": 1}, KeyFault.MALFORMED),
        ({**EC, "kid": 7}, KeyFault.MALFORMED),
        ({**EC, "kid": "a\nb"}, KeyFault.MALFORMED),
        ({**EC, "kid": ""}, KeyFault.MALFORMED),
        ("key", KeyFault.MALFORMED),
        (None, KeyFault.MALFORMED),
        ([], KeyFault.MALFORMED),
        ({**EC, "alg": "ES384"}, KeyFault.ALGORITHM_MISMATCH),
        ({**EC, "alg": "RS256"}, KeyFault.ALGORITHM_MISMATCH),
        ({**EC, "alg": "none"}, KeyFault.ALGORITHM_MISMATCH),
        ({**EC, "alg": "HS256"}, KeyFault.ALGORITHM_MISMATCH),
        ({**EC, "alg": None}, KeyFault.ALGORITHM_MISMATCH),
        ({**RSA_2048, "alg": "RSA-OAEP"}, KeyFault.ALGORITHM_MISMATCH),
        ({**OKP, "alg": "ES256"}, KeyFault.ALGORITHM_MISMATCH),
        ({**EC, "crv": "secp256k1"}, KeyFault.CURVE_NOT_SUPPORTED),
        ({**EC, "crv": None}, KeyFault.CURVE_NOT_SUPPORTED),
        ({**EC, "crv": ["P-256"]}, KeyFault.CURVE_NOT_SUPPORTED),
        ({**EC, "crv": "P-384"}, KeyFault.MALFORMED),
        ({**EC, "x": base64url(bytes(32))}, KeyFault.MALFORMED),
        ({**EC, "x": base64url(bytes(33))}, KeyFault.MALFORMED),
        ({**EC, "y": base64url(b"\xff" * 32)}, KeyFault.MALFORMED),
        ({**EC, "y": base64url(bytes(31))}, KeyFault.MALFORMED),
        ({**EC, "x": EC["x"] + "="}, KeyFault.MALFORMED),
        ({**EC, "x": 1}, KeyFault.MALFORMED),
        ({**EC, "x": ""}, KeyFault.MALFORMED),
        ({"kty": "EC", "crv": "P-256", "x": EC["x"]}, KeyFault.MALFORMED),
        ({**OKP, "crv": "Ed448"}, KeyFault.CURVE_NOT_SUPPORTED),
        ({**OKP, "crv": "X25519"}, KeyFault.CURVE_NOT_SUPPORTED),
        ({**OKP, "x": base64url(bytes(31))}, KeyFault.MALFORMED),
        ({**OKP, "x": "é"}, KeyFault.MALFORMED),
        ({"kty": "RSA", "n": RSA_2048["n"]}, KeyFault.MALFORMED),
        ({"kty": "RSA", "e": "AQAB"}, KeyFault.MALFORMED),
        (signing_key("RS256", bits=1024).jwk(), KeyFault.RSA_SIZE),
        (rsa(2**MAX_RSA_BITS + 1), KeyFault.RSA_SIZE),
        (rsa(2**65_535 + 1), KeyFault.RSA_SIZE),
        (rsa(2**2047 - 1), KeyFault.RSA_SIZE),
        (rsa(2**2047 + 1, exponent=0), KeyFault.RSA_EXPONENT),
        (rsa(2**2047 + 1, exponent=1), KeyFault.RSA_EXPONENT),
        (rsa(2**2047 + 1, exponent=3), KeyFault.RSA_EXPONENT),
        (rsa(2**2047 + 1, exponent=65_538), KeyFault.RSA_EXPONENT),
        (rsa(2**2047 + 1, exponent=2**32 + 1), KeyFault.RSA_EXPONENT),
        (rsa(2**2047 + 2), KeyFault.RSA_WEAK_PRIMES),
        (rsa(pow(65_537, 130)), KeyFault.RSA_WEAK_PRIMES),
    ],
)
def test_a_key_that_must_not_verify_is_refused_with_its_fault(member: object, fault: KeyFault) -> None:
    assert faults(member) == [fault]


def test_a_faulty_key_does_not_spoil_the_others() -> None:
    key_set = KeySet.from_json(json_bytes({"keys": [None, {"kty": "oct", "k": "AA"}, dict(EC)], "extra": 1}))
    assert [key.key_id for key in key_set.keys] == [EC["kid"]]
    assert [refused.position for refused in key_set.refused] == [0, 1]


def test_operations_that_include_verification_and_a_leading_zero_of_the_modulus_are_accepted() -> None:
    n = base64url(b"\0" + signing_key("RS256").private.public_key().public_numbers().n.to_bytes(256))  # type: ignore[union-attr]
    assert faults({**EC, "key_ops": ["verify"]}, {**RSA_2048, "n": n}) == []


def test_the_largest_rsa_key_is_accepted() -> None:
    assert faults(rsa(2**MAX_RSA_BITS - 1)) == []


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{}",
        b'{"keys":{}}',
        b'{"keys":null}',
        b'{"keys":[],"keys":[]}',
        b"<html>",
        b'{"keys":[]}' + b" " * MAX_KEY_SET_BYTES,
        json_bytes({"keys": [{}] * (MAX_KEYS + 1)}),
        b'{"keys":' + b"[" * 100_000,
    ],
)
def test_what_is_no_key_set_is_refused_whole(data: bytes) -> None:
    with pytest.raises(Refusal) as caught:
        KeySet.from_json(data)
    assert caught.value.reason is Reason.SIGNING_KEYS_UNAVAILABLE


def test_an_empty_key_set_verifies_nothing() -> None:
    key_set = KeySet.from_json(b'{"keys":[]}')
    assert key_set.keys == ()
    assert key_set.find(None, "ES256") is KeyMatch.UNKNOWN


def test_the_most_keys_allowed_are_read() -> None:
    assert len(KeySet.from_json(json_bytes({"keys": [{}] * MAX_KEYS})).refused) == MAX_KEYS


def test_the_fingerprint_is_that_of_the_keys_whatever_their_order_and_form() -> None:
    one, two = signing_key(kid="a"), signing_key("RS256", kid="b")
    original = KeySet.from_json(jwks(one, two)).fingerprint
    assert KeySet.from_json(b" " + jwks(two, one.jwk(x5t="AAAA"))).fingerprint == original
    for other in (
        jwks(one),
        jwks(one, two, signing_key(kid="c")),
        jwks(one.jwk(kid="c"), two),
        jwks(one.jwk(kid=OMIT), two),
        jwks(one, two.jwk(alg="RS512")),
        jwks(one, two.jwk(alg=OMIT)),
        jwks(signing_key(kid="a", index=1), two),
        jwks(one, two, {"kty": "oct", "k": "AA", "kid": "x"}),
    ):
        assert KeySet.from_json(other).fingerprint != original


def test_keys_are_public_key_objects_of_the_published_numbers() -> None:
    key = signing_key()
    found = KeySet.from_json(jwks(key)).find(key.kid, "ES256")
    assert isinstance(found, VerificationKey)
    assert isinstance(found.public_key, EllipticCurvePublicKey)
    assert found.public_key == key.private.public_key()
