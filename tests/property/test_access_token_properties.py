"""Whatever a token says, the outcome is a value or a refusal; and the cache never changes it."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from support.tokens import NOW, OMIT, access_token, claims, cnf_for, compact, issuer, jwks, signing_key

from ext_authz.errors import Reason, Refusal
from ext_authz.need import KeysNeeded
from ext_authz.principal import VerifiedToken
from ext_authz.token.access_token import verify_access_token
from ext_authz.token.issuer_directory import IssuerDirectory
from ext_authz.token.jwks import KeySet
from ext_authz.token.token_cache import TokenCache

KEY = signing_key()
KEYS = KeySet.from_json(jwks(KEY))
VALUES: st.SearchStrategy[Any] = (
    st.sampled_from([OMIT, cnf_for(b"x"), {"x5t#S256": "x"}, 10**30, -1, 1e300, "a b", " ", "\x00", [], {}, [["a"]]])
    | st.none()
    | st.booleans()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=10)
    | st.lists(st.text(max_size=5) | st.integers(), max_size=3)
    | st.integers(int(NOW) - 400, int(NOW) + 400)
)
NAMES = st.sampled_from(["iss", "sub", "aud", "exp", "nbf", "iat", "jti", "client_id", "scope", "cnf", "other"])


def directory(cache: TokenCache | None = None) -> IssuerDirectory:
    return IssuerDirectory([issuer(maximum_lifetime=600.0)], {"corp": KEYS}, cache=cache)


def outcome(text: str, issuers: IssuerDirectory, now: float) -> VerifiedToken | KeysNeeded | Reason:
    try:
        return verify_access_token(text, issuers, now)
    except Refusal as refusal:
        return refusal.reason


@given(st.text())
def test_any_text_is_verified_needed_or_refused(text: str) -> None:
    assert isinstance(outcome(text, directory(), NOW), Reason)


@given(st.dictionaries(NAMES, VALUES, max_size=4), st.floats(NOW - 1000, NOW + 1000))
def test_any_signed_claims_are_a_token_in_its_time_or_refused(changes: dict[str, Any], now: float) -> None:
    result = outcome(access_token(KEY, **changes), directory(), now)
    if isinstance(result, VerifiedToken):
        assert result.subject
        assert now < result.expires_at + result.skew
        assert result.not_before is None or now >= result.not_before - result.skew
        assert all(isinstance(scope, str) and scope for scope in result.scopes)
    else:
        assert isinstance(result, Reason)


@given(st.binary(max_size=100))
def test_any_signed_payload_is_refused_unless_it_is_a_token(payload: bytes) -> None:
    text = compact({"alg": "ES256", "typ": "at+jwt", "kid": KEY.kid}, payload, KEY)
    assert isinstance(outcome(text, directory(), NOW), Reason)


@given(
    st.lists(
        st.tuples(st.integers(0, 4), st.floats(NOW - 500, NOW + 500)),
        max_size=12,
    )
)
def test_the_cache_never_changes_an_answer(uses: list[tuple[int, float]]) -> None:
    issuers = directory(TokenCache(capacity=2, refusal_capacity=2))
    for number, now in uses:
        assert outcome(TEXTS[number], issuers, now) == outcome(TEXTS[number], directory(), now)


TEXTS = [
    access_token(KEY),
    access_token(KEY, nbf=NOW + 100, exp=NOW + 200),
    access_token(KEY, aud="https://other.example"),
    access_token(signing_key(index=1, kid=KEY.kid)),
    compact({"alg": "ES256", "typ": "at+jwt", "kid": "other"}, claims(), KEY),
]
