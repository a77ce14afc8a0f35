"""Access tokens, from text to verified token: every step's refusal, and the order of the steps."""

import time
from types import MappingProxyType
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import HMACAlgorithm
from support.tokens import (
    ALGORITHMS,
    AUDIENCE,
    ISSUER,
    NOW,
    OMIT,
    SigningKey,
    access_token,
    base64url,
    claims,
    cnf_for,
    compact,
    issuer,
    json_bytes,
    jwks,
    signing_key,
)

from ext_authz.errors import Reason, Refusal
from ext_authz.need import KeysNeeded
from ext_authz.principal import Confirmation, VerifiedToken
from ext_authz.token.access_token import verify_access_token
from ext_authz.token.claims import MAX_AUDIENCES, MAX_NUMERIC_DATE, MAX_SCOPES, MAX_STRING_CHARACTERS
from ext_authz.token.issuer_directory import IssuerDirectory
from ext_authz.token.jwks import KeySet

OTHER = "https://other.example"
ALL = frozenset(ALGORITHMS)


def directory(*keys: SigningKey, **terms: Any) -> IssuerDirectory:
    """One issuer `corp` with these keys (ES256 by default) and terms."""
    return IssuerDirectory([issuer(**terms)], {"corp": KeySet.from_json(jwks(*(keys or (signing_key(),))))})


def verified(text: str, issuers: IssuerDirectory | None = None, now: float = NOW) -> VerifiedToken:
    token = verify_access_token(text, issuers or directory(), now)
    assert isinstance(token, VerifiedToken)
    return token


def one(name: str, value: object) -> dict[str, Any]:
    """One claim by a name that is a parameter."""
    return {name: value}


def refusal_of(text: str, issuers: IssuerDirectory | None = None, now: float = NOW) -> Reason:
    """Why it is refused; the second answer, from the cache or not, is the same."""
    issuers = issuers or directory()
    with pytest.raises(Refusal) as caught:
        verify_access_token(text, issuers, now)
    with pytest.raises(Refusal) as again:
        verify_access_token(text, issuers, now)
    assert (again.value.reason, again.value.detail) == (caught.value.reason, caught.value.detail)
    return caught.value.reason


def test_a_right_token_is_verified_with_all_it_says() -> None:
    token = verified(access_token(cnf=cnf_for(b"certificate"), nbf=NOW - 60))
    assert token.issuer_name == "corp"
    assert token.issuer == ISSUER
    assert token.subject == "alice"
    assert token.client_id == "website"
    assert token.audiences == (AUDIENCE,)
    assert token.scopes == {"invoices.read", "invoices.write"}
    assert token.token_id == "4f2a7c1e-token"
    assert token.issued_at == NOW - 60
    assert token.not_before == NOW - 60
    assert token.expires_at == NOW + 300
    assert token.skew == 30
    assert isinstance(token.confirmation, Confirmation)
    assert token.claims == claims(cnf=cnf_for(b"certificate"), nbf=NOW - 60)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_algorithm_that_the_issuer_may_use_is_verified(algorithm: str) -> None:
    key = signing_key(algorithm)
    assert verified(access_token(key), directory(key, algorithms=ALL)).subject == "alice"


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_an_algorithm_that_is_not_the_issuers_is_refused(algorithm: str) -> None:
    key = signing_key(algorithm)
    issuers = directory(key, algorithms=ALL - {algorithm})
    assert refusal_of(access_token(key), issuers) is Reason.TOKEN_ALGORITHM_NOT_ALLOWED


def test_claims_cannot_be_changed_at_any_depth() -> None:
    token = verified(access_token(roles=[{"name": "a", "on": ["x"]}], realm={"roles": ["r"]}))
    assert isinstance(token.claims, MappingProxyType)
    assert token.claims["roles"] == ({"name": "a", "on": ("x",)},)
    assert isinstance(token.claims["realm"], MappingProxyType)


# --- which issuer


@pytest.mark.parametrize(
    "iss",
    [
        ISSUER + "/",
        ISSUER.upper(),
        ISSUER.replace("https", "HTTPS"),
        ISSUER + ".evil.example",
        ISSUER + ":443",
        ISSUER + "?",
        " " + ISSUER,
        ISSUER + "\x00",
        ISSUER.removeprefix("https://"),
        "",
        OTHER,
    ],
)
def test_an_issuer_that_is_not_exactly_a_configured_one_is_unknown(iss: str) -> None:
    assert refusal_of(access_token(iss=iss)) is Reason.ISSUER_UNKNOWN


@pytest.mark.parametrize(
    ("iss", "reason"),
    [(OMIT, Reason.CLAIM_MISSING), (None, Reason.CLAIM_MISSING)]
    + [(value, Reason.CLAIM_MALFORMED) for value in (1, True, [ISSUER], {"a": 1})],
)
def test_an_issuer_that_is_missing_or_no_string_is_refused(iss: object, reason: Reason) -> None:
    assert refusal_of(access_token(iss=iss)) is reason


def two_issuers() -> IssuerDirectory:
    """`a` with ES256 key 0 and `b` with ES256 key 1; both publish a key of the id `shared`."""
    a = issuer("a")
    b = issuer("b", issuer=OTHER)
    return IssuerDirectory(
        [a, b],
        {
            "a": KeySet.from_json(jwks(signing_key(kid="a"), signing_key(kid="shared", index=2))),
            "b": KeySet.from_json(jwks(signing_key(kid="b", index=1), signing_key(kid="shared", index=3))),
        },
    )


def test_a_token_of_one_issuer_signed_by_another_is_refused() -> None:
    issuers = two_issuers()
    assert verified(access_token(signing_key(kid="b", index=1), iss=OTHER), issuers).issuer_name == "b"
    forged = access_token(signing_key(kid="b", index=1))
    assert verify_access_token(forged, issuers, NOW) == KeysNeeded("a", "b")
    same_name = access_token(signing_key(kid="shared", index=3))
    assert refusal_of(same_name, issuers) is Reason.SIGNATURE_INVALID
    foreign_key_under_own_name = access_token(signing_key(kid="a", index=1))
    assert refusal_of(foreign_key_under_own_name, issuers) is Reason.SIGNATURE_INVALID


# --- type


@pytest.mark.parametrize("typ", ["at+jwt", "AT+JWT", "application/at+jwt", "Application/AT+jwt"])
def test_the_access_token_type_is_a_media_type(typ: str) -> None:
    assert verified(access_token(header={"typ": typ})).subject == "alice"


@pytest.mark.parametrize(
    "typ",
    [
        "JWT",
        "jwt",
        "secevent+jwt",
        "dpop+jwt",
        "txntoken+jwt",
        "token-introspection+jwt",
        "logout+jwt",
        "wit+jwt",
        "at+jwt ",
        "at",
        "application/application/at+jwt",
        "text/at+jwt",
        "application/",
        "at+jwt;x=y",
        OMIT,
    ],
)
def test_another_kind_of_jwt_is_no_access_token(typ: object) -> None:
    assert refusal_of(access_token(header={"typ": typ})) is Reason.TOKEN_TYPE_NOT_ALLOWED


def test_an_issuer_may_be_configured_to_send_plain_or_absent_types() -> None:
    issuers = directory(types=frozenset({"jwt", ""}))
    for typ in ("JWT", OMIT):
        assert verified(access_token(header={"typ": typ}), issuers).subject == "alice"
    for typ in ("at+jwt", "application/"):
        assert refusal_of(access_token(header={"typ": typ}), issuers) is Reason.TOKEN_TYPE_NOT_ALLOWED


# --- header


def test_an_unknown_header_member_is_refused_unless_the_issuer_is_known_to_send_it() -> None:
    text = access_token(header={"pi.atm": "1"})
    assert refusal_of(text) is Reason.TOKEN_HEADER_NOT_ALLOWED
    assert verified(text, directory(ignored_headers=frozenset({"pi.atm"}))).subject == "alice"


@pytest.mark.parametrize("name", ["jwk", "jku", "x5u", "x5c", "crit", "b64", "zip"])
def test_no_configuration_lets_a_dangerous_header_member_pass(name: str) -> None:
    issuers = directory(ignored_headers=frozenset({name}))
    assert refusal_of(access_token(header={name: []}), issuers) is Reason.TOKEN_HEADER_NOT_ALLOWED


def test_a_key_in_the_header_is_not_used_even_when_it_verifies() -> None:
    own = signing_key(kid="own", index=5)
    text = access_token(own, header={"jwk": own.jwk(), "kid": OMIT})
    assert refusal_of(text) is Reason.TOKEN_HEADER_NOT_ALLOWED


def test_an_hmac_keyed_with_the_public_key_is_refused() -> None:
    key = signing_key("RS256")
    public = key.private.public_key()
    message = compact({"alg": "HS256", "typ": "at+jwt", "kid": key.kid}, claims()).rstrip(".")
    for secret in (
        public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        json_bytes(key.jwk()),
    ):
        signature = HMACAlgorithm(HMACAlgorithm.SHA256).sign(message.encode(), secret)
        text = f"{message}.{base64url(signature)}"
        assert refusal_of(text, directory(key)) is Reason.TOKEN_ALGORITHM_NOT_ALLOWED


@pytest.mark.parametrize("alg", ["none", "None", "nOnE", "NONE"])
def test_an_unsigned_token_is_refused(alg: str) -> None:
    for signature in (b"", b"x"):
        text = compact({"alg": alg, "typ": "at+jwt"}, claims(), signature)
        assert refusal_of(text) is Reason.TOKEN_ALGORITHM_NOT_ALLOWED


# --- key


def test_an_unknown_key_and_a_missing_key_set_are_needs() -> None:
    text = access_token(signing_key(kid="new"))
    assert verify_access_token(text, directory(), NOW) == KeysNeeded("corp", "new")
    nothing = IssuerDirectory([issuer()], {})
    assert verify_access_token(text, nothing, NOW) == KeysNeeded("corp", "new")
    assert not nothing.has_keys("corp")
    assert directory().has_keys("corp")
    assert not directory().has_keys("other")


def test_a_need_is_not_remembered() -> None:
    text = access_token(signing_key(kid="new"))
    before = directory()
    assert isinstance(verify_access_token(text, before, NOW), KeysNeeded)
    after = IssuerDirectory([issuer()], {"corp": KeySet.from_json(jwks(signing_key(kid="new")))}, previous=before)
    assert verified(text, after).subject == "alice"


@pytest.mark.parametrize("kid", ["../../etc/passwd", "' OR 1=1 --", "%00", "https://evil.example/key"])
def test_a_hostile_key_id_is_an_unknown_name(kid: str) -> None:
    need = verify_access_token(access_token(header={"kid": kid}), directory(), NOW)
    assert need == KeysNeeded("corp", kid)


@pytest.mark.parametrize("kid", ["\x00", "a\r\nb", 7, "x" * 10_240])
def test_a_key_id_that_is_no_name_is_malformed(kid: object) -> None:
    assert refusal_of(access_token(header={"kid": kid})) is Reason.TOKEN_MALFORMED


def test_a_key_of_another_algorithm_or_a_refused_one_is_not_fetched_again() -> None:
    rs = signing_key("RS256", kid="k")
    assert refusal_of(access_token(signing_key("ES256", kid="k")), directory(rs)) is Reason.SIGNING_KEY_UNKNOWN
    twice = directory(signing_key(kid="k"), signing_key(kid="k", index=1))
    assert refusal_of(access_token(signing_key(kid="k")), twice) is Reason.SIGNING_KEY_UNKNOWN


def test_a_token_without_key_id_is_verified_by_the_one_key_that_fits() -> None:
    text = access_token(header={"kid": OMIT})
    assert verified(text, directory(signing_key(), signing_key("RS256"))).subject == "alice"
    ambiguous = directory(signing_key(), signing_key(kid="b", index=1))
    assert refusal_of(text, ambiguous) is Reason.SIGNING_KEY_UNKNOWN
    assert verify_access_token(text, directory(signing_key("RS256")), NOW) == KeysNeeded("corp", None)


def test_a_bad_signature_is_refused() -> None:
    assert refusal_of(access_token(signing_key(index=1, kid="es256-0"))) is Reason.SIGNATURE_INVALID
    head, _, signature = access_token().split(".")
    assert refusal_of(f"{head}.{base64url(json_bytes(claims(sub='eve')))}.{signature}") is Reason.SIGNATURE_INVALID


# --- form


@pytest.mark.parametrize(
    "payload",
    [b"", b"foo", b"[]", b'{"iss":"a","iss":"b"}', b"\xff", '{"iss":"a"}'.encode("utf-16"), b'{"iss":"\\ud800"}'],
)
def test_a_payload_that_is_no_strict_json_object_is_malformed(payload: bytes) -> None:
    key = signing_key()
    text = compact({"alg": "ES256", "typ": "at+jwt", "kid": key.kid}, payload, key)
    assert refusal_of(text) is Reason.TOKEN_MALFORMED


@pytest.mark.parametrize(
    "text", ["", "a", "a.b.c.d", "\u00e9", "\ud800", "a b", access_token() + ".x", "x" + access_token()]
)
def test_text_that_is_no_token_is_malformed(text: str) -> None:
    assert refusal_of(text) is Reason.TOKEN_MALFORMED


def test_a_huge_token_and_a_deep_one_are_refused_at_once() -> None:
    key = signing_key()
    header = {"alg": "ES256", "typ": "at+jwt", "kid": key.kid}
    issuers = directory()
    deep = compact(header, b'{"iss":' + b"[" * 100_000, b"x" * 64)
    fitting = compact(header, b'{"iss":' + b"[" * 11_000, b"x" * 64)
    for text, reason in (
        ("a" * 1_000_000, Reason.TOKEN_TOO_LARGE),
        (deep, Reason.TOKEN_TOO_LARGE),
        (fitting, Reason.TOKEN_MALFORMED),
    ):
        quickest = 1.0
        for _ in range(3):
            started = time.process_time()
            with pytest.raises(Refusal) as caught:
                verify_access_token(text, issuers, NOW)
            quickest = min(quickest, time.process_time() - started)
            assert caught.value.reason is reason
        assert quickest < 0.005


# --- claims


@pytest.mark.parametrize("name", ["exp", "aud", "sub", "client_id", "iat", "jti"])
@pytest.mark.parametrize("value", [OMIT, None])
def test_each_claim_of_rfc_9068_is_required(name: str, value: object) -> None:
    assert refusal_of(access_token(**one(name, value))) is Reason.CLAIM_MISSING


@pytest.mark.parametrize("name", ["exp", "aud", "sub"])
def test_expiry_audience_and_subject_are_required_whatever_the_terms(name: str) -> None:
    issuers = directory(required_claims=frozenset())
    assert refusal_of(access_token(**one(name, OMIT)), issuers) is Reason.CLAIM_MISSING


def test_terms_may_require_fewer_or_other_claims() -> None:
    issuers = directory(required_claims=frozenset({"tenant"}))
    token = verified(access_token(client_id=OMIT, iat=OMIT, jti=OMIT, scope=OMIT, tenant="t"), issuers)
    assert (token.client_id, token.issued_at, token.token_id, token.scopes) == (None, None, None, frozenset())
    assert refusal_of(access_token(), issuers) is Reason.CLAIM_MISSING
    assert refusal_of(access_token(tenant=None), issuers) is Reason.CLAIM_MISSING


def test_the_client_may_be_named_by_another_claim() -> None:
    issuers = directory(client_id_claim="azp")
    assert verified(access_token(azp="spa", client_id=OMIT), issuers).client_id == "spa"
    assert verified(access_token(azp="spa", client_id="other"), issuers).client_id == "spa"
    assert refusal_of(access_token(), issuers) is Reason.CLAIM_MISSING


@pytest.mark.parametrize("name", ["exp", "iat", "nbf"])
@pytest.mark.parametrize(
    "number",
    ['"1800000300"', "true", "false", "-1", "-0.5", "1e300", "[1800000300]", "{}", '"NaN"', str(MAX_NUMERIC_DATE)],
)
def test_a_date_that_is_no_bounded_number_is_malformed(name: str, number: str) -> None:
    key = signing_key()
    payload = json_bytes(claims(nbf=0) | {name: "@"}).replace(b'"@"', number.encode())
    text = compact({"alg": "ES256", "typ": "at+jwt", "kid": key.kid}, payload, key)
    assert refusal_of(text) is Reason.CLAIM_MALFORMED


@pytest.mark.parametrize("number", ["1e400", "NaN", "Infinity", "-Infinity", "1" + "0" * 4000, "9" * 4400])
def test_a_date_that_is_no_number_is_malformed(number: str) -> None:
    key = signing_key()
    payload = json_bytes(claims(exp="@")).replace(b'"@"', number.encode())
    text = compact({"alg": "ES256", "typ": "at+jwt", "kid": key.kid}, payload, key)
    assert refusal_of(text) is Reason.TOKEN_MALFORMED


def test_not_before_null_is_malformed() -> None:
    assert refusal_of(access_token(nbf=None)) is Reason.CLAIM_MALFORMED


def test_a_date_may_have_a_fraction() -> None:
    assert verified(access_token(exp=NOW + 0.5)).expires_at == NOW + 0.5


@pytest.mark.parametrize("name", ["sub", "client_id", "jti"])
@pytest.mark.parametrize(
    "value",
    [
        "",
        "a\x00b",
        "a\nb",
        "a\u202eb",
        "a\u2028b",
        "\x7f",
        7,
        True,
        ["alice"],
        {"a": 1},
        "x" * (MAX_STRING_CHARACTERS + 1),
    ],
)
def test_an_identifier_that_is_not_a_bounded_printable_string_is_malformed(name: str, value: object) -> None:
    assert refusal_of(access_token(**one(name, value))) is Reason.CLAIM_MALFORMED


def test_an_identifier_may_be_long_and_in_any_script() -> None:
    assert verified(access_token(sub="ü" * MAX_STRING_CHARACTERS)).subject == "ü" * MAX_STRING_CHARACTERS
    assert verified(access_token(sub="CN=王 小明, O=例")).subject == "CN=王 小明, O=例"


@pytest.mark.parametrize("aud", [AUDIENCE, [AUDIENCE], [OTHER, AUDIENCE], [AUDIENCE] * MAX_AUDIENCES])
def test_a_token_for_us_among_others_is_for_us(aud: object) -> None:
    assert AUDIENCE in verified(access_token(aud=aud)).audiences


def test_an_issuer_may_be_configured_to_have_any_audience_accepted() -> None:
    accepting = IssuerDirectory(
        [issuer(any_audience=True, audiences=frozenset())], {"corp": KeySet.from_json(jwks(signing_key()))}
    )
    token = verify_access_token(access_token(aud=OTHER), accepting, NOW)
    assert isinstance(token, VerifiedToken)
    assert token.audiences == (OTHER,)


@pytest.mark.parametrize("aud", [OTHER, [OTHER], AUDIENCE + "/", AUDIENCE.upper(), [AUDIENCE + " "], "api.example"])
def test_a_token_for_others_is_refused(aud: object) -> None:
    assert refusal_of(access_token(aud=aud)) is Reason.AUDIENCE_MISMATCH


@pytest.mark.parametrize(
    "aud",
    [
        1,
        True,
        {},
        {AUDIENCE: 1},
        [],
        [1, AUDIENCE],
        [[AUDIENCE]],
        [None],
        "",
        [AUDIENCE, ""],
        [AUDIENCE, "a\nb"],
        [AUDIENCE] * (MAX_AUDIENCES + 1),
    ],
)
def test_an_audience_that_is_no_string_and_no_array_of_strings_is_malformed(aud: object) -> None:
    assert refusal_of(access_token(aud=aud)) is Reason.CLAIM_MALFORMED


@pytest.mark.parametrize(
    ("scope", "scopes"),
    [
        ("read", {"read"}),
        ("read read:all", {"read", "read:all"}),
        ("a a b", {"a", "b"}),
        ("!#[]~", {"!#[]~"}),
        ("", set()),
    ],
)
def test_scopes_are_exact_tokens_between_single_spaces(scope: str, scopes: set[str]) -> None:
    assert verified(access_token(scope=scope)).scopes == scopes


@pytest.mark.parametrize(
    "scope",
    [
        " ",
        " a",
        "a ",
        "a  b",
        "a\tb",
        "a\nb",
        "a,\x00",
        'a"b',
        "a\\b",
        "é",
        7,
        None,
        True,
        {},
        {"a": 1},
        ["a"],
        [],
        "a" * 8193,
    ],
)
def test_a_scope_that_is_not_of_the_grammar_is_malformed(scope: object) -> None:
    assert refusal_of(access_token(scope=scope)) is Reason.CLAIM_MALFORMED


def test_an_array_of_scopes_is_accepted_only_where_configured() -> None:
    issuers = directory(scope_claim="scp", scope_array=True)
    assert verified(access_token(scp=["read", "read:all"]), issuers).scopes == {"read", "read:all"}
    assert verified(access_token(scp=[]), issuers).scopes == frozenset()
    assert verified(access_token(scp="read write"), issuers).scopes == {"read", "write"}
    assert verified(access_token(), issuers).scopes == frozenset()
    for scp in (["a b"], [""], [1], [["a"]], [None], ["a"] * (MAX_SCOPES + 1), {"a": 1}, 7):
        assert refusal_of(access_token(scp=scp), issuers) is Reason.CLAIM_MALFORMED


# --- confirmation


@pytest.mark.parametrize(
    ("cnf", "reason"),
    [
        (None, Reason.BINDING_MALFORMED),
        ("x", Reason.BINDING_MALFORMED),
        ([], Reason.BINDING_MALFORMED),
        ({"x5t#S256": None}, Reason.BINDING_MALFORMED),
        ({"x5t#S256": ""}, Reason.BINDING_MALFORMED),
        ({"x5t#S256": "A" * 42}, Reason.BINDING_MALFORMED),
        ({"x5t#S256": "A" * 43 + "="}, Reason.BINDING_MALFORMED),
        ({"x5t#S256": "A" * 44}, Reason.BINDING_MALFORMED),
        ({"x5t#S256": "A" * 42 + "B"}, Reason.BINDING_MALFORMED),
        ({"x5t#S256": "A" * 42 + "+"}, Reason.BINDING_MALFORMED),
        ({"x5t#S256": "a" * 64}, Reason.BINDING_MALFORMED),
        ({"x5t#S256": 43}, Reason.BINDING_MALFORMED),
        ({}, Reason.BINDING_METHOD_NOT_SUPPORTED),
        ({"jkt": "A" * 43}, Reason.BINDING_METHOD_NOT_SUPPORTED),
        ({"kid": "x"}, Reason.BINDING_METHOD_NOT_SUPPORTED),
        ({"jwk": {}}, Reason.BINDING_METHOD_NOT_SUPPORTED),
        ({"x5t": "A" * 27}, Reason.BINDING_METHOD_NOT_SUPPORTED),
        ({"X5T#S256": "A" * 43}, Reason.BINDING_METHOD_NOT_SUPPORTED),
        ({"x5t#S256": "A" * 43, "jkt": "A" * 43}, Reason.BINDING_METHOD_NOT_SUPPORTED),
    ],
)
def test_a_confirmation_that_we_cannot_check_refuses_the_token(cnf: object, reason: Reason) -> None:
    assert refusal_of(access_token(cnf=cnf)) is reason


def test_a_token_without_confirmation_has_none() -> None:
    assert verified(access_token()).confirmation is None


# --- times


@pytest.mark.parametrize("fresh", [True, False])
def test_a_token_is_valid_up_to_its_expiry_and_skew_and_no_longer(fresh: bool) -> None:
    issuers = directory(skew=30.0)
    text = access_token(exp=NOW + 300)
    if not fresh:
        verified(text, issuers)
    assert verified(text, issuers if not fresh else directory(), NOW + 329.999)
    assert refusal_of(text, issuers, NOW + 330) is Reason.TOKEN_EXPIRED
    assert refusal_of(text, issuers, NOW + 1e6) is Reason.TOKEN_EXPIRED


@pytest.mark.parametrize("name", ["nbf", "iat"])
@pytest.mark.parametrize("fresh", [True, False])
def test_a_token_is_valid_from_its_start_less_skew_and_not_before(name: str, fresh: bool) -> None:
    issuers = directory(skew=30.0)
    text = access_token(**one(name, NOW + 100))
    if not fresh:
        verified(text, issuers, NOW + 100)
    assert refusal_of(text, issuers, NOW + 69.999) is Reason.TOKEN_NOT_YET_VALID
    assert verified(text, issuers, NOW + 70)


def test_a_clock_set_back_changes_the_answer_with_it() -> None:
    issuers = directory()
    text = access_token()
    assert refusal_of(text, issuers, NOW + 1_000) is Reason.TOKEN_EXPIRED
    assert verified(text, issuers, NOW)
    assert refusal_of(text, issuers, NOW - 1_000) is Reason.TOKEN_NOT_YET_VALID
    assert verified(text, issuers, NOW)


def test_no_skew_is_exact() -> None:
    issuers = directory(skew=0.0)
    text = access_token(exp=NOW + 1, iat=NOW, nbf=NOW)
    assert verified(text, issuers, NOW)
    assert refusal_of(text, issuers, NOW + 1) is Reason.TOKEN_EXPIRED
    assert refusal_of(text, issuers, NOW - 0.001) is Reason.TOKEN_NOT_YET_VALID


def test_a_token_without_start_is_valid_at_any_time_before_its_end() -> None:
    issuers = directory(required_claims=frozenset())
    text = access_token(iat=OMIT)
    assert verified(text, issuers, 0.0)
    assert verified(text, issuers, -1_000.0)
    assert verified(text, issuers, -1_000.0)


def test_a_token_that_lives_too_long_is_refused() -> None:
    issuers = directory(maximum_lifetime=360.0)
    assert verified(access_token(iat=NOW - 60, exp=NOW + 300), issuers)
    assert refusal_of(access_token(iat=NOW - 60, exp=NOW + 301), issuers) is Reason.TOKEN_LIFETIME_TOO_LONG
    unlimited = directory(maximum_lifetime=360.0, required_claims=frozenset())
    assert refusal_of(access_token(iat=OMIT), unlimited) is Reason.CLAIM_MISSING


# --- order


def test_the_signature_is_verified_before_any_claim_is_believed() -> None:
    for name, value in (("exp", 1), ("aud", OTHER), ("sub", OMIT), ("cnf", {})):
        changes = one(name, value)
        forged = access_token(signing_key(kid="es256-0", index=1), **changes)
        assert refusal_of(forged) is Reason.SIGNATURE_INVALID


def test_type_and_algorithm_are_checked_before_a_key_is_asked_for() -> None:
    for header, reason in (
        ({"typ": "JWT", "kid": "new"}, Reason.TOKEN_TYPE_NOT_ALLOWED),
        ({"alg": "RS384", "kid": "new"}, Reason.TOKEN_ALGORITHM_NOT_ALLOWED),
        ({"nonce": "x", "kid": "new"}, Reason.TOKEN_HEADER_NOT_ALLOWED),
    ):
        assert refusal_of(access_token(header=header)) is reason


def test_no_refusal_repeats_what_the_token_says() -> None:
    secret = "s3cr3t-value"
    texts: list[tuple[str, IssuerDirectory]] = [
        (access_token(iss=secret), directory()),
        (access_token(aud=secret), directory()),
        (access_token(header={"typ": secret}), directory()),
        (access_token(header={"alg": secret}), directory()),
        (access_token(header={secret: 1}), directory()),
        (access_token(scope=secret + '"'), directory()),
        (access_token(cnf={secret: secret}), directory()),
        (access_token(sub=secret + "\n"), directory()),
        (compact({"alg": "ES256"}, f'{{"{secret}":1,"{secret}":2}}'.encode()), directory()),
        (secret, directory()),
    ]
    for text, issuers in texts:
        with pytest.raises(Refusal) as caught:
            verify_access_token(text, issuers, NOW)
        assert secret not in str(caught.value)
        assert caught.value.__cause__ is None
