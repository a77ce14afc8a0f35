"""The JOSE cookbook: RFC 7520 signatures and keys, RFC 8037 Ed25519, and RFC 7797, which must be refused."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from ext_authz.errors import Reason, Refusal
from ext_authz.token.jose import parse_compact, verify_signature
from ext_authz.token.jwk import KeyFault
from ext_authz.token.jwks import KeySet, VerificationKey

CORPORA = os.environ.get("EXT_AUTHZ_CORPORA")

pytestmark = pytest.mark.skipif(CORPORA is None, reason="EXT_AUTHZ_CORPORA is not set")


def example(path: str) -> Any:
    return json.loads((Path(CORPORA or "") / "jose-cookbook" / path).read_bytes())


def public(jwk: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in jwk.items() if name not in {"d", "p", "q", "dp", "dq", "qi"}}


def key_set(*keys: dict[str, Any]) -> KeySet:
    return KeySet.from_json(json.dumps({"keys": keys}).encode())


def refusal_of(text: str) -> Reason:
    with pytest.raises(Refusal) as caught:
        parse_compact(text)
    return caught.value.reason


@pytest.mark.parametrize(
    "path",
    [
        "jws/4_1.rsa_v15_signature.json",
        "jws/4_2.rsa-pss_signature.json",
        "jws/4_3.ecdsa_signature.json",
        "curve25519/jws.json",
    ],
)
def test_a_signature_of_the_cookbook_verifies(path: str) -> None:
    case = example(path)
    jws = parse_compact(case["output"]["compact"])
    key = key_set(public(case["input"]["key"])).find(jws.key_id, jws.algorithm)
    assert isinstance(key, VerificationKey)
    verify_signature(jws, key.public_key)
    assert jws.unverified_payload.decode() == case["input"]["payload"]


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        # HS256
        ("jws/4_4.hmac-sha2_integrity_protection.json", Reason.TOKEN_ALGORITHM_NOT_ALLOWED),
        # HS256 again; a detached payload reads as an empty one
        ("jws/4_5.signature_with_detached_content.json", Reason.TOKEN_ALGORITHM_NOT_ALLOWED),
        # `b64: false` with `crit`
        ("rfc7797/hmac-sha2_b64_false.json", Reason.TOKEN_MALFORMED),
        ("rfc7797/4.2.hmac-sha2_b64_false.json", Reason.TOKEN_MALFORMED),
    ],
)
def test_a_symmetric_detached_or_unencoded_jws_of_the_cookbook_is_refused(path: str, reason: Reason) -> None:
    output = example(path)["output"]
    text = output.get("compact") or json.dumps(output)
    assert refusal_of(text) is reason


@pytest.mark.parametrize(
    "path",
    [
        "jws/4_6.protecting_specific_header_fields.json",
        "jws/4_7.protecting_content_only.json",
        "jws/4_8.multiple_signatures.json",
    ],
)
def test_a_jws_that_has_no_compact_form_is_refused(path: str) -> None:
    output = example(path)["output"]
    assert "compact" not in output
    for form in output.values():
        assert refusal_of(json.dumps(form)) is Reason.TOKEN_MALFORMED


@pytest.mark.parametrize(
    ("path", "fault"),
    [
        ("jwk/3_1.ec_public_key.json", None),
        ("jwk/3_2.ec_private_key.json", KeyFault.PRIVATE),
        ("jwk/3_3.rsa_public_key.json", None),
        ("jwk/3_4.rsa_private_key.json", KeyFault.PRIVATE),
        ("jwk/3_5.symmetric_key_mac_computation.json", KeyFault.SYMMETRIC),
        ("jwk/3_6.symmetric_key_encryption.json", KeyFault.SYMMETRIC),
    ],
)
def test_public_keys_of_the_cookbook_are_read_and_the_others_refused(path: str, fault: KeyFault | None) -> None:
    read = key_set(example(path))
    assert [refused.fault for refused in read.refused] == ([] if fault is None else [fault])
    assert len(read.keys) == (1 if fault is None else 0)


def test_a_key_agreement_key_of_the_cookbook_verifies_nothing() -> None:
    key = {"kty": "OKP", "crv": "X25519", "x": "hSDwCYkwp1R0i33ctD73Wg2_Og0mOBr066SpjqqbTmo"}
    assert [refused.fault for refused in key_set(key).refused] == [KeyFault.CURVE_NOT_SUPPORTED]
