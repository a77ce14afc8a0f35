"""Whatever an issuer publishes, the outcome is a key set or a refusal, and no faulty key is ever in use."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from support.tokens import json_bytes, signing_key

from ext_authz.errors import Reason, Refusal
from ext_authz.token.jose import SUPPORTED_ALGORITHMS
from ext_authz.token.jwks import KeySet

KEYS = [signing_key(algorithm).jwk() for algorithm in ("RS256", "ES256", "ES384", "EdDSA")]
VALUES = st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.lists(st.text(max_size=6), max_size=3)
NAMES = st.sampled_from(
    ["kty", "crv", "x", "y", "n", "e", "kid", "use", "key_ops", "alg", "d", "k", "p", "x5c"],
)
MEMBERS = st.sampled_from(["RSA", "EC", "OKP", "oct", "P-256", "Ed25519", "AQAB", "sig", "verify", "ES256", "a"])


@st.composite
def changed_key(draw: st.DrawFn) -> dict[str, Any]:
    """A right key with up to three members changed."""
    key: dict[str, Any] = dict(draw(st.sampled_from(KEYS)))
    return key | draw(st.dictionaries(NAMES, MEMBERS | VALUES, max_size=3))


@given(st.binary(max_size=200))
def test_any_bytes_are_a_key_set_or_refused(data: bytes) -> None:
    try:
        KeySet.from_json(data)
    except Refusal as refusal:
        assert refusal.reason is Reason.SIGNING_KEYS_UNAVAILABLE  # noqa: PT017 - a value is as right


@given(st.lists(changed_key() | st.dictionaries(NAMES, MEMBERS | VALUES) | VALUES, max_size=6))
def test_every_member_is_a_usable_key_or_recorded_as_refused(members: list[Any]) -> None:
    try:
        key_set = KeySet.from_json(json_bytes({"keys": members}))
    except Refusal as refusal:
        # the document as a whole: a number that is too long, a nesting that is too deep
        assert refusal.reason is Reason.SIGNING_KEYS_UNAVAILABLE  # noqa: PT017 - a value is as right
        return
    assert len(key_set.keys) + len(key_set.refused) == len(members)
    refused = {entry.position for entry in key_set.refused}
    for position, member in enumerate(members):
        if position in refused:
            continue
        assert not {"d", "k", "p"} & set(member)
        assert member["kty"] in {"RSA", "EC", "OKP"}
        assert member.get("use", "sig") == "sig"
        assert "verify" in member.get("key_ops", ["verify"])
    for key in key_set.keys:
        assert key.algorithms
        assert key.algorithms <= SUPPORTED_ALGORITHMS
    names = [key.key_id for key in key_set.keys if key.key_id is not None]
    assert len(names) == len(set(names))
