"""Wycheproof's JOSE vectors: what is valid is accepted, what is invalid is refused, deviations are reasoned one by one.

Each vector goes the way of a real token: its key is published in a JWK Set and read as such, then the compact JWS is
parsed and verified with the key that the set yields. A vector may be refused at any of these steps.
"""

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from ext_authz.errors import Refusal
from ext_authz.token.jose import parse_compact, verify_signature
from ext_authz.token.jwks import KeyMatch, KeySet

CORPORA = os.environ.get("EXT_AUTHZ_CORPORA")

SYMMETRIC = "HS* is refused: whoever can verify a symmetric signature can make one"
OTHER_ALGORITHM = "the JWK's `alg` is not the token's: a key that says what it is for verifies nothing else"
NOT_AN_ALGORITHM = "the JWK's `alg` is `ES521`, which names no algorithm"

ENCRYPTED = "a JWE (RFC 7516) is no access token here: nothing is decrypted"

DEVIATIONS: Mapping[tuple[str, int], str] = {
    ("json_web_crypto_test", 1): SYMMETRIC,
    ("json_web_crypto_test", 48): SYMMETRIC,
    ("json_web_crypto_test", 50): ENCRYPTED,
    ("json_web_crypto_test", 67): ENCRYPTED,
    ("json_web_key_test", 2): SYMMETRIC,
    ("json_web_key_test", 13): SYMMETRIC,
    ("json_web_key_test", 14): SYMMETRIC,
    ("json_web_key_test", 15): SYMMETRIC,
    ("json_web_signature_test", 1): SYMMETRIC,
    ("json_web_signature_test", 346): OTHER_ALGORITHM,
    ("json_web_signature_test", 347): NOT_AN_ALGORITHM,
    ("json_web_signature_test", 348): SYMMETRIC,
    ("json_web_signature_test", 350): OTHER_ALGORITHM,
    ("json_web_signature_test", 351): NOT_AN_ALGORITHM,
    ("json_web_signature_test", 352): SYMMETRIC,
    ("json_web_signature_test", 357): SYMMETRIC,
    ("json_web_signature_test", 358): SYMMETRIC,
    ("json_web_signature_test", 359): SYMMETRIC,
    (
        "json_web_signature_test",
        372,
    ): "a character outside the alphabet in the header: one text, one reading (and HS256)",
    (
        "json_web_signature_test",
        373,
    ): "a character outside the alphabet in the payload: one text, one reading (and HS256)",
    ("json_web_signature_test", 376): SYMMETRIC,
    ("json_web_signature_test", 377): SYMMETRIC,
}
"""Vectors called valid that are refused, each with the reason. No vector called invalid is accepted."""


def vectors() -> Iterator[Any]:
    if CORPORA is None:
        yield pytest.param("", 0, {}, {}, marks=pytest.mark.skip(reason="EXT_AUTHZ_CORPORA is not set"))
        return
    for name in ("json_web_crypto_test", "json_web_key_test", "json_web_signature_test"):
        document = json.loads((Path(CORPORA) / "wycheproof" / f"{name}.json").read_bytes())
        for group in document["testGroups"]:
            # groups with a symmetric key have no public one
            keys = group.get("public") or group["private"]
            for case in group["tests"]:
                number = case["tcId"]
                yield pytest.param(name, number, keys, case, id=f"{name}-{number}-{case['comment']}")


def is_accepted(keys: Mapping[str, Any], jws: object) -> bool:
    """Whether the JWS verifies with the key that these keys, published, yield for it; any error but ours fails."""
    published = keys if "keys" in keys else {"keys": [keys]}
    # the general and flattened JSON serializations of some vectors are no compact JWS
    text = jws if isinstance(jws, str) else json.dumps(jws)
    try:
        key_set = KeySet.from_json(json.dumps(published).encode())
        parsed = parse_compact(text)
        key = key_set.find(parsed.key_id, parsed.algorithm)
        if isinstance(key, KeyMatch):
            return False
        verify_signature(parsed, key.public_key)
    except Refusal:
        return False
    return True


@pytest.mark.parametrize(("name", "number", "keys", "case"), list(vectors()))
def test_wycheproof(name: str, number: int, keys: Mapping[str, Any], case: Mapping[str, Any]) -> None:
    expected = case["result"] == "valid"
    if (name, number) in DEVIATIONS:
        assert expected, "a deviation refuses what the corpus calls valid, never the other way round"
        expected = False
    assert is_accepted(keys, case["jws"] if "jws" in case else case["jwe"]) is expected


@pytest.mark.skipif(CORPORA is None, reason="EXT_AUTHZ_CORPORA is not set")
def test_every_deviation_is_of_a_vector_that_exists() -> None:
    existing = {(parameters.values[0], parameters.values[1]) for parameters in vectors()}
    assert set(DEVIATIONS) <= existing
    assert len(existing) == 510
