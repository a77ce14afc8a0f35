"""The attack list, each attempt as a whole CheckRequest: bytes in, CheckResponse out."""

import time
from dataclasses import replace
from typing import Any

import pytest
from support.deployment import (
    BILLING,
    BOUND,
    CALLER,
    CLIENT_CERT,
    PEM_HEADER,
    POLICIES,
    ROOT,
    THIEF,
    WEBSITE,
    XFCC_ONLY,
    Answer,
    Deployment,
    bound_token,
    rule,
)
from support.pki import authority, self_signed, xfcc
from support.tokens import AUDIENCE, ISSUER, NOW, access_token, claims, compact, issuer, json_bytes, signing_key

from ext_authz.errors import Reason
from ext_authz.evidence.settings import EvidenceSettings, XfccSource
from ext_authz.need import KeysNeeded
from ext_authz.policy.model import NO_PRINCIPAL, HeaderMatch, PathMatch, RouteMatch, RoutePolicy, Rule, Target
from ext_authz.policy.requirements import PeerRequirement, Requirement
from ext_authz.token.issuer import KeyUrl

DEPLOYMENT = Deployment()
BY = "spiffe://cluster.local/ns/billing/sa/api"
GATEWAY = "spiffe://cluster.local/ns/istio-system/sa/gateway"


def denied(answer: Answer, status: int, reason: Reason) -> None:
    """The request is denied, in the way Envoy reads as a denial, for this reason."""
    assert (answer.reason, answer.status) == (reason, status)
    assert not answer.allowed
    assert answer.response.HasField("status")
    assert answer.response.status.code != 0


def test_the_right_token_on_the_right_connection_passes() -> None:
    answer = DEPLOYMENT.request(token=bound_token())
    assert answer.allowed
    assert answer.upstream_headers == {"x-subject": "alice", "x-caller": WEBSITE}


# evidence: attacks 1 to 8, 31, 32


def test_01_a_clients_xfcc_without_mutual_tls_is_no_identity_where_xfcc_is_not_trusted() -> None:
    deployment = Deployment(evidence=PEM_HEADER)
    answer = deployment.request(
        token=bound_token(), leaf=None, headers={"x-forwarded-client-cert": xfcc(CALLER, by=BY)}
    )
    denied(answer, 401, Reason.BINDING_CERTIFICATE_MISSING)


def test_02_a_forged_element_to_the_left_of_the_proxys_own_does_not_count() -> None:
    deployment = Deployment(evidence=XFCC_ONLY)
    forged = f"{xfcc(CALLER, by=BY)},{xfcc(THIEF, by=BY)}"
    denied(
        deployment.request(token=bound_token(), leaf=None, headers={"x-forwarded-client-cert": forged}),
        401,
        Reason.XFCC_BY_MISMATCH,
    )
    elsewhere = f"{xfcc(CALLER, by='spiffe://elsewhere/x')},{xfcc(THIEF, by=BY)}"
    denied(
        deployment.request(token=bound_token(), leaf=None, headers={"x-forwarded-client-cert": elsewhere}),
        401,
        Reason.BINDING_THUMBPRINT_MISMATCH,
    )


def test_the_hash_alone_proves_possession_in_a_sidecar() -> None:
    deployment = Deployment(evidence=XFCC_ONLY)
    answer = deployment.request(
        token=bound_token(), leaf=None, headers={"x-forwarded-client-cert": xfcc(CALLER, by=BY)}
    )
    assert answer.allowed
    assert answer.upstream_headers["x-caller"] == WEBSITE


@pytest.mark.parametrize("by", [(), (GATEWAY,)])
@pytest.mark.parametrize("by_proxy", [True, False])
def test_02_a_workload_that_goes_round_the_gateway_cannot_write_the_gateways_element(
    by: tuple[str, ...], by_proxy: bool
) -> None:
    source = XfccSource(2, by, via=(GATEWAY,))
    deployment = Deployment(evidence=EvidenceSettings(certificate_sources=(source,), chain_verified_by_proxy=by_proxy))
    forged = xfcc(CALLER, by=GATEWAY, with_cert=True)
    headers = {"x-forwarded-client-cert": f"{forged},{xfcc(THIEF, by=BY)}"}
    denied(deployment.request(token=bound_token(), leaf=None, headers=headers), 401, Reason.XFCC_VIA_MISMATCH)
    headers = {"x-forwarded-client-cert": f"{forged},{xfcc(ROOT.svid(GATEWAY), by=BY)}"}
    assert deployment.request(token=bound_token(), leaf=None, headers=headers).allowed


def test_03_a_hash_that_is_not_of_the_certificate_beside_it_is_denied() -> None:
    mixed = xfcc(CALLER, by=BY, with_cert=True).replace(CALLER.thumbprint.hex(), THIEF.thumbprint.hex())
    answer = Deployment(evidence=XFCC_ONLY).request(
        token=bound_token(THIEF), leaf=None, headers={"x-forwarded-client-cert": mixed}
    )
    denied(answer, 401, Reason.XFCC_HASH_MISMATCH)


def test_04_xfcc_in_its_json_form_is_denied_where_text_is_expected() -> None:
    answer = Deployment(evidence=XFCC_ONLY).request(
        token=bound_token(), leaf=None, headers={"x-forwarded-client-cert": '[{"hash":"00"}]'}
    )
    denied(answer, 401, Reason.XFCC_JSON_NOT_SUPPORTED)


@pytest.mark.parametrize("path", ["/invoices/1", "/healthz", "/public-clients/1"])
def test_05_a_client_never_supplies_a_header_that_some_rule_injects(path: str) -> None:
    forged = {"x-subject": "root", "x-caller": "spiffe://cluster.local/root", "x_subject": "root"}
    answer = DEPLOYMENT.request(path, token=bound_token(), headers=forged)
    assert answer.allowed
    for name in forged:
        assert answer.upstream_headers.get(name, "") not in forged.values()
        assert name in answer.upstream_headers or name in answer.removed_headers


def test_06_a_client_cert_header_is_ignored_where_it_is_not_a_source() -> None:
    answer = DEPLOYMENT.request(token=bound_token(), leaf=None, headers={"client-cert": CALLER.client_cert})
    denied(answer, 401, Reason.BINDING_CERTIFICATE_MISSING)


@pytest.mark.parametrize(
    "raw", [[CALLER.client_cert, CALLER.client_cert], [f"{CALLER.client_cert}, {CALLER.client_cert}"]]
)
def test_07_client_cert_twice_or_as_a_list_is_denied(raw: list[str]) -> None:
    headers = [("client-cert", value) for value in raw] + [("authorization", f"Bearer {bound_token()}")]
    answer = Deployment(evidence=CLIENT_CERT).request(leaf=None, raw_headers=headers)
    denied(answer, 401, Reason.CERTIFICATE_HEADER_MALFORMED)


@pytest.mark.parametrize(
    ("leaf", "reason"),
    [
        (self_signed(uri_sans=[WEBSITE]), Reason.CERTIFICATE_UNTRUSTED),
        (authority("cluster.local impostor").svid(WEBSITE), Reason.CERTIFICATE_UNTRUSTED),
        (ROOT.svid("spiffe://partner.example/ns/applications/sa/website"), Reason.TRUST_DOMAIN_UNKNOWN),
        (ROOT.svid(WEBSITE, not_after=NOW - 1), Reason.CERTIFICATE_EXPIRED),
        (ROOT.svid(WEBSITE, not_before=NOW + 1000), Reason.CERTIFICATE_NOT_YET_VALID),
        (None, Reason.PEER_MISSING),
    ],
    ids=["self-signed", "another CA", "another trust domain", "expired", "not yet valid", "none"],
)
def test_08_a_certificate_nobody_vouches_for_is_no_identity(leaf: Any, reason: Reason) -> None:
    denied(DEPLOYMENT.request("/workloads", leaf=leaf), 403, reason)


def test_a_self_signed_certificate_binds_and_never_identifies() -> None:
    mine, other = self_signed(subject="mine"), self_signed(subject="other")
    assert DEPLOYMENT.request("/public-clients", token=bound_token(mine), leaf=mine).allowed
    denied(
        DEPLOYMENT.request("/public-clients", token=bound_token(mine), leaf=other),
        401,
        Reason.BINDING_THUMBPRINT_MISMATCH,
    )
    denied(DEPLOYMENT.request("/invoices", token=bound_token(mine), leaf=mine), 401, Reason.SPIFFE_ID_MISSING)


# presenting a token: attacks 9 to 17


def test_09_two_authorization_headers_are_denied() -> None:
    token = bound_token()
    headers = [("authorization", f"Bearer {token}"), ("authorization", f"Bearer {token}")]
    denied(DEPLOYMENT.request(raw_headers=headers), 400, Reason.MULTIPLE_CREDENTIALS)


def test_10_two_authorization_headers_merged_by_envoy_are_denied() -> None:
    merged = {"authorization": f"Bearer {bound_token()},Bearer {bound_token()}"}
    denied(DEPLOYMENT.request(headers=merged), 400, Reason.MULTIPLE_CREDENTIALS)


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", "bEaReR"])
def test_11_the_scheme_is_compared_without_case(scheme: str) -> None:
    assert DEPLOYMENT.request(headers={"authorization": f"{scheme} {bound_token()}"}).allowed


@pytest.mark.parametrize("form", ["Bearer\t{}", "Bearer  {}", "Bearer {} ", "Bearer", "Bearer ", "{}"])
def test_12_anything_but_one_space_is_malformed(form: str) -> None:
    answer = DEPLOYMENT.request(headers={"authorization": form.format(bound_token())})
    assert not answer.allowed
    assert (answer.reason, answer.status) in {
        (Reason.AUTHORIZATION_MALFORMED, 400),
        (Reason.AUTHORIZATION_SCHEME_NOT_SUPPORTED, 401),
    }


@pytest.mark.parametrize("name", ["access_token", "access%5Ftoken", "%61ccess_token"])
def test_13_a_token_in_the_query_is_denied(name: str) -> None:
    denied(DEPLOYMENT.request(f"/invoices?{name}={bound_token()}"), 401, Reason.TOKEN_IN_QUERY)


def test_14_a_token_in_header_and_query_is_denied() -> None:
    answer = DEPLOYMENT.request(f"/invoices?access_token={bound_token()}", token=bound_token())
    denied(answer, 400, Reason.MULTIPLE_CREDENTIALS)


def test_15_a_token_in_a_cookie_is_not_looked_at() -> None:
    answer = DEPLOYMENT.request(headers={"cookie": f"access_token={bound_token()}"})
    denied(answer, 401, Reason.TOKEN_MISSING)


def test_16_another_scheme_gets_a_plain_challenge() -> None:
    answer = DEPLOYMENT.request(headers={"authorization": "Basic dXNlcjpwYXNz"})
    denied(answer, 401, Reason.AUTHORIZATION_SCHEME_NOT_SUPPORTED)
    assert answer.denied_header("www-authenticate") == "Bearer"


@pytest.mark.parametrize("size", [16_385, 60_000])
def test_17_a_huge_token_is_denied_before_it_is_parsed(size: int) -> None:
    started = time.process_time()
    answer = DEPLOYMENT.request(token="a" * size)
    assert not answer.allowed
    assert answer.reason in {Reason.TOKEN_TOO_LARGE, Reason.HEADER_TOO_LARGE}
    assert time.process_time() - started < 0.1


def test_17_a_token_of_a_megabyte_is_denied() -> None:
    assert not DEPLOYMENT.request(token="a" * 1_000_000).allowed


# the token itself: attacks 18 to 30

KEY = signing_key("RS256")
RSA = Deployment(issuers=(issuer("corp", KEY),))
_RSA_PUBLIC = KEY.jwk()


@pytest.mark.parametrize("token", ["a.b", "a.b.c.d", "a.b.c.d.e", "..", "a..c", ".b.", "a.b.c"])
def test_18_anything_but_three_segments_is_malformed(token: str) -> None:
    answer = DEPLOYMENT.request(token=token)
    assert (answer.allowed, answer.status) == (False, 401)
    assert answer.reason is Reason.TOKEN_MALFORMED


@pytest.mark.parametrize("alg", ["none", "None", "NONE", "nOnE", "", None, "HS256", "HS512", "RS1", "ES256K"])
def test_19_20_unsigned_and_symmetric_algorithms_are_denied(alg: object) -> None:
    header = {"alg": alg, "typ": "at+jwt", "kid": signing_key().kid}
    for signature in (b"", b"\0" * 64):
        answer = DEPLOYMENT.request(token=compact(header, claims(), signature))
        assert not answer.allowed
        assert answer.status == 401
        assert answer.reason in {
            Reason.TOKEN_ALGORITHM_NOT_ALLOWED,
            Reason.TOKEN_MALFORMED,
            Reason.TOKEN_HEADER_NOT_ALLOWED,
        }


@pytest.mark.parametrize(
    "member",
    [{"jwk": _RSA_PUBLIC}, {"jku": "https://evil.example/jwks"}, {"x5u": "https://evil.example/c"}, {"x5c": ["AA=="]}],
    ids=lambda member: next(iter(member)),
)
def test_21_a_key_named_by_the_token_itself_is_denied_without_a_look_up(member: dict[str, object]) -> None:
    deployment = Deployment()
    denied(deployment.request(token=bound_token(header=member)), 401, Reason.TOKEN_HEADER_NOT_ALLOWED)
    assert deployment.needs == []


@pytest.mark.parametrize("crit", [["exp"], [], ["b64"], ["exp", "exp"], "exp", None])
def test_22_critical_extensions_are_denied(crit: object) -> None:
    denied(DEPLOYMENT.request(token=bound_token(header={"crit": crit})), 401, Reason.TOKEN_HEADER_NOT_ALLOWED)


@pytest.mark.parametrize(
    "kid", ["../../etc/passwd", "' OR 1=1 --", "a\0b", "a\r\nb", 7, None, "k" * 10_240, "", "ключ"]
)
def test_23_a_hostile_kid_is_denied(kid: object) -> None:
    answer = DEPLOYMENT.request(token=bound_token(header={"kid": kid}))
    assert not answer.allowed
    assert answer.status == 401
    assert str(kid) not in str(answer.decision.diagnostics) or kid in {"", None, 7}


@pytest.mark.parametrize(
    "literal", ['"1800000300"', "true", "1e400", "NaN", "-1", "1" + "0" * 10_000, "null", "[1]", "{}"]
)
@pytest.mark.parametrize("claim", ["exp", "iat", "nbf"])
def test_24_a_time_that_is_no_finite_number_is_denied(claim: str, literal: str) -> None:
    payload = json_bytes(claims(**{claim: "MARK"}, cnf={"x5t#S256": CALLER.x5t_s256})).replace(
        b'"MARK"', literal.encode()
    )
    token = compact({"alg": "ES256", "typ": "at+jwt", "kid": signing_key().kid}, payload, signing_key())
    answer = DEPLOYMENT.request(token=token)
    assert (answer.allowed, answer.status) == (False, 401)


@pytest.mark.parametrize("opening", ["[", '{"a":'])
def test_25_deep_nesting_is_denied_in_no_time(opening: str) -> None:
    payload = (opening * 2_000).encode()
    token = compact({"alg": "ES256", "typ": "at+jwt", "kid": signing_key().kid}, payload, b"\0" * 64)
    started = time.process_time()
    answer = DEPLOYMENT.request(token=token)
    assert time.process_time() - started < 0.005
    assert not answer.allowed
    assert answer.status == 401


@pytest.mark.parametrize(
    "typ",
    [
        "JWT",
        "secevent+jwt",
        "dpop+jwt",
        "txntoken+jwt",
        "token-introspection+jwt",
        "logout+jwt",
        "",
        None,
        "at+jwt ",
        5,
    ],
)
def test_26_a_token_of_another_kind_is_no_access_token(typ: object) -> None:
    answer = DEPLOYMENT.request(token=bound_token(header={"typ": typ}))
    assert (answer.allowed, answer.status) == (False, 401)


@pytest.mark.parametrize("typ", ["at+jwt", "AT+JWT", "application/at+jwt"])
def test_the_type_of_access_tokens_is_a_media_type(typ: str) -> None:
    assert DEPLOYMENT.request(token=bound_token(header={"typ": typ})).allowed


@pytest.mark.parametrize(
    "iss", [f"{ISSUER}/", ISSUER.upper(), f"{ISSUER}.evil.example", f" {ISSUER}", ISSUER[:-1], "", [ISSUER]]
)
def test_27_an_issuer_is_compared_exactly(iss: object) -> None:
    answer = DEPLOYMENT.request(token=bound_token(iss=iss))
    assert (answer.allowed, answer.status) == (False, 401)
    assert answer.reason in {Reason.ISSUER_UNKNOWN, Reason.CLAIM_MALFORMED}


def test_28_one_issuers_token_signed_with_anothers_key_is_denied() -> None:
    other = signing_key(index=7, kid="other")
    deployment = Deployment(issuers=(issuer(), issuer("partner", other, issuer="https://partner.example")))
    answer = deployment.request(token=bound_token(key=other))
    denied(answer, 401, Reason.SIGNING_KEY_UNKNOWN)
    forged = bound_token(key=other, header={"kid": signing_key().kid})
    denied(deployment.request(token=forged), 401, Reason.SIGNATURE_INVALID)


@pytest.mark.parametrize(
    "scope", ["invoices.reader", "invoices", "INVOICES.READ", "invoices.read:all", "a\tinvoices.read"]
)
def test_29_scopes_are_compared_exactly(scope: str) -> None:
    answer = DEPLOYMENT.request(token=bound_token(scope=scope))
    assert not answer.allowed
    assert (answer.status, answer.reason) in {(403, Reason.SCOPE_INSUFFICIENT), (401, Reason.CLAIM_MALFORMED)}


def test_29_a_missing_scope_is_named_in_the_challenge() -> None:
    answer = DEPLOYMENT.request(token=bound_token(scope="other"))
    denied(answer, 403, Reason.SCOPE_INSUFFICIENT)
    assert answer.denied_header("www-authenticate") == 'Bearer error="insufficient_scope", scope="invoices.read"'


def test_29_an_array_of_scopes_is_malformed_unless_the_issuer_is_said_to_send_it() -> None:
    token = bound_token(scope=["invoices.read"])
    assert not DEPLOYMENT.request(token=token).allowed
    assert Deployment(issuers=(issuer(scope_array=True),)).request(token=token).allowed


@pytest.mark.parametrize("signature", [b"", b"\0" * 64, b"\0" * 63, b"\xff" * 64, b"0D\x02 " + b"\1" * 68])
def test_30_a_zero_short_or_der_signature_is_denied(signature: bytes) -> None:
    token = compact({"alg": "ES256", "typ": "at+jwt", "kid": signing_key().kid}, claims(), signature)
    answer = DEPLOYMENT.request(token=token)
    assert (answer.allowed, answer.status) == (False, 401)
    assert answer.reason in {Reason.SIGNATURE_INVALID, Reason.TOKEN_MALFORMED}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"aud": "https://other.example"}, Reason.AUDIENCE_MISMATCH),
        ({"aud": f"{AUDIENCE}/"}, Reason.AUDIENCE_MISMATCH),
        ({"aud": []}, None),
        ({"exp": NOW - 31}, Reason.TOKEN_EXPIRED),
        ({"nbf": NOW + 31}, Reason.TOKEN_NOT_YET_VALID),
        ({"iat": NOW + 31}, Reason.TOKEN_NOT_YET_VALID),
    ],
)
def test_claims_are_held_to_the_issuers_terms(changes: dict[str, Any], reason: Reason | None) -> None:
    answer = DEPLOYMENT.request(token=bound_token(**changes))
    assert (answer.allowed, answer.status) == (False, 401)
    assert reason is None or answer.reason is reason


# binding: attacks 31 to 33


def test_31_a_bound_token_without_a_certificate_is_denied() -> None:
    denied(DEPLOYMENT.request(token=bound_token(), leaf=None), 401, Reason.BINDING_CERTIFICATE_MISSING)
    denied(DEPLOYMENT.request("/lenient", token=bound_token(), leaf=None), 401, Reason.BINDING_CERTIFICATE_MISSING)


def test_32_another_clients_certificate_is_denied() -> None:
    answer = DEPLOYMENT.request(token=bound_token(CALLER), leaf=THIEF)
    denied(answer, 401, Reason.BINDING_THUMBPRINT_MISMATCH)


@pytest.mark.parametrize(
    ("cnf", "reason"),
    [
        ({"jkt": "0" * 43}, Reason.BINDING_METHOD_NOT_SUPPORTED),
        ({}, Reason.BINDING_METHOD_NOT_SUPPORTED),
        ({"x5t#S256": CALLER.x5t_s256, "jkt": "0" * 43}, Reason.BINDING_METHOD_NOT_SUPPORTED),
        ({"x5t#S256": CALLER.x5t_s256 + "="}, Reason.BINDING_MALFORMED),
        ({"x5t#S256": CALLER.thumbprint.hex()}, Reason.BINDING_MALFORMED),
        ({"x5t#S256": None}, Reason.BINDING_MALFORMED),
        ({"x5t#S256": ""}, Reason.BINDING_MALFORMED),
        ({"X5T#S256": CALLER.x5t_s256}, Reason.BINDING_METHOD_NOT_SUPPORTED),
        ("x", Reason.BINDING_MALFORMED),
        (None, Reason.BINDING_MALFORMED),
    ],
)
@pytest.mark.parametrize("path", ["/invoices", "/lenient", "/rotating"])
def test_33_a_confirmation_that_cannot_be_checked_always_denies(path: str, cnf: object, reason: Reason) -> None:
    answer = DEPLOYMENT.request(path, token=access_token(cnf=cnf, client_spiffe_id=WEBSITE))
    denied(answer, 401, reason)


def test_an_unbound_token_passes_only_where_that_is_chosen_by_name() -> None:
    denied(DEPLOYMENT.request(token=access_token()), 401, Reason.BINDING_MISSING)
    assert DEPLOYMENT.request("/lenient", token=access_token()).allowed


def test_a_rotated_certificate_passes_only_where_the_spiffe_id_is_accepted() -> None:
    rotated = ROOT.svid(WEBSITE, serial=4711)
    token = bound_token(CALLER, client_spiffe_id=WEBSITE)
    denied(DEPLOYMENT.request("/invoices", token=token, leaf=rotated), 401, Reason.BINDING_THUMBPRINT_MISMATCH)
    assert DEPLOYMENT.request("/rotating", token=token, leaf=rotated).allowed
    assert not DEPLOYMENT.request("/rotating", token=token, leaf=THIEF).allowed


# where the request goes: attacks 38 to 48, 62, 63


@pytest.mark.parametrize(
    "path",
    [
        "/public/../admin",
        "/public/%2e%2e/admin",
        "/public/.%2e/admin",
        "/public/..;x/admin",
        "/public/..;/admin",
        "//admin",
        "/admin//",
        "/public\\..\\admin",
        "/public/%5c../admin",
        "/public%2fadmin",
        "/public%2Fadmin",
        "/public%252fadmin",
        "/public/%c0%af",
        "/public/%00",
        "/public/\0",
        "/public/%ff",
        "/public#/admin",
        "/public/%",
        "/public/%zz",
        "*",
        "",
        "http://lax.example.com/public",
        "public",
        "?",
        "/public/\x7f",
        "/public/%0d%0aX",
    ],
)
def test_38_to_44_a_path_that_two_parsers_could_read_differently_is_400(path: str) -> None:
    answer = DEPLOYMENT.request(path)
    assert not answer.allowed
    assert answer.status == 400
    assert answer.reason in {Reason.PATH_AMBIGUOUS, Reason.PATH_MALFORMED, Reason.REQUEST_MALFORMED}


@pytest.mark.parametrize("path", ["/public/..!/admin", "/public/!", "/publi!c"])
def test_43_a_mark_that_may_stand_for_a_byte_we_cannot_see_is_400(path: str) -> None:
    """Envoy writes `!` for bytes that are not UTF-8 in `headers`, and sends the bytes themselves upstream."""
    denied(DEPLOYMENT.request(path), 400, Reason.PATH_AMBIGUOUS)
    lenient = Deployment(leniencies=frozenset({"allow_exclamation_mark"}))
    assert lenient.request(path).reason is not Reason.PATH_AMBIGUOUS


def test_a_mark_is_itself_where_bytes_are_shown_as_they_are() -> None:
    assert DEPLOYMENT.request("/public/wow!", raw_headers=[]).allowed
    assert DEPLOYMENT.request("/public/wow!", protocol="HTTP/1.1").allowed
    assert DEPLOYMENT.request("/public/?q=wow!").allowed
    assert DEPLOYMENT.request("/public/%21").allowed


@pytest.mark.parametrize("path", ["/ADMIN", "/Admin/users", "/aDMIN"])
def test_42_another_letter_case_is_under_no_laxer_rule(path: str) -> None:
    deployment = Deployment(
        policies=(
            RoutePolicy(
                "p",
                (
                    rule("admin", "/admin", Requirement(peer=PeerRequirement(service_accounts=("admin",)))),
                    rule("rest", "/", public=True),
                ),
            ),
        )
    )
    denied(deployment.request(path), 400, Reason.PATH_AMBIGUOUS)
    denied(deployment.request("/admin"), 403, Reason.PEER_SERVICE_ACCOUNT_NOT_ALLOWED)
    assert deployment.request("/Anything").allowed


@pytest.mark.parametrize(
    "name", ["x-http-method-override", "x-http-method", "x-method-override", "x_http_method_override"]
)
def test_45_a_method_override_is_ignored_and_stripped(name: str) -> None:
    answer = DEPLOYMENT.request("/healthz", headers={name: "DELETE"})
    assert answer.allowed
    assert name in answer.removed_headers


@pytest.mark.parametrize("method", ["get", "Get", "CONNECT", "TRACE", "PROPFIND", "GET ", "", "G\0T"])
def test_46_other_methods_are_denied(method: str) -> None:
    denied(DEPLOYMENT.request("/public", method=method), 403, Reason.METHOD_NOT_SUPPORTED)


def test_46_connect_without_a_path_is_denied() -> None:
    assert not DEPLOYMENT.request("", method="CONNECT", pseudo_headers=False).allowed


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS"])
def test_47_head_and_options_are_not_implied_by_get(method: str) -> None:
    assert DEPLOYMENT.request("/healthz").allowed
    denied(DEPLOYMENT.request("/healthz", method=method), 401, Reason.TOKEN_MISSING)


def test_48_a_host_other_than_the_sni_is_denied_where_the_sni_chose_the_policy() -> None:
    arguments: dict[str, Any] = {"sni": "tenant.example.com", "destination_principal": ""}
    assert DEPLOYMENT.request("/", host="tenant.example.com", **arguments).allowed
    denied(DEPLOYMENT.request("/", host="other.example.com", **arguments), 403, Reason.HOST_SNI_MISMATCH)


def test_54_a_token_verified_on_one_route_is_judged_anew_on_another() -> None:
    deployment = Deployment()
    token = bound_token()
    assert deployment.request("/invoices", token=token).allowed
    denied(deployment.request("/admin", token=token), 403, Reason.PEER_SERVICE_ACCOUNT_NOT_ALLOWED)
    denied(deployment.request("/invoices", token=token, leaf=THIEF), 401, Reason.BINDING_THUMBPRINT_MISMATCH)
    assert deployment.request("/invoices", token=token).allowed


def test_55_a_cached_token_ends_when_it_expires() -> None:
    deployment = Deployment()
    token = bound_token(exp=NOW + 10)
    assert deployment.request(token=token, now=NOW).allowed
    assert deployment.request(token=token, now=NOW + 39.999).allowed
    denied(deployment.request(token=token, now=NOW + 40), 401, Reason.TOKEN_EXPIRED)


def test_56_a_clock_set_back_revives_what_was_expired_and_nothing_else() -> None:
    deployment = Deployment()
    token = bound_token(nbf=NOW, iat=NOW)
    assert deployment.request(token=token, now=NOW).allowed
    denied(deployment.request(token=token, now=NOW - 31), 401, Reason.TOKEN_NOT_YET_VALID)
    assert deployment.request(token=token, now=NOW - 30).allowed


def test_55_a_cached_certificate_ends_when_it_expires() -> None:
    deployment = Deployment()
    short = ROOT.svid(WEBSITE, not_after=NOW + 10)
    assert deployment.request("/workloads", leaf=short, now=NOW).allowed
    denied(deployment.request("/workloads", leaf=short, now=NOW + 11), 403, Reason.CERTIFICATE_EXPIRED)


@pytest.mark.parametrize("host", ["lax.example.com", "LAX.example.com", "lax.example.com:443", "lax.example.com."])
def test_62_the_host_of_a_laxer_policy_does_not_loosen_a_targeted_workload(host: str) -> None:
    answer = DEPLOYMENT.request("/", host=host)
    assert not answer.allowed
    gateway = "spiffe://cluster.local/ns/istio-system/sa/gateway"
    assert DEPLOYMENT.request("/", host="lax.example.com", destination_principal=gateway).allowed


def test_62_a_plaintext_connection_to_a_workload_does_not_fall_under_the_policies_of_the_gateway() -> None:
    """In Istio's PERMISSIVE mode a connection without mTLS has no destination.principal."""
    answer = DEPLOYMENT.request("/invoices/1", leaf=None, destination_principal="", host="lax.example.com")
    denied(answer, 403, Reason.NO_POLICY)
    plain = replace(POLICIES[1], name="plain", targets=(Target(destination_principal=NO_PRINCIPAL),))
    deployment = Deployment(policies=(*POLICIES, plain))
    assert deployment.request("/", leaf=None, destination_principal="", host="lax.example.com").allowed


@pytest.mark.parametrize("values", [("admin", "admin"), ("user", "admin"), ("admin", "user")])
@pytest.mark.parametrize("is_raw", [True, False])
def test_a_header_sent_twice_does_not_lead_to_the_laxer_rule(values: tuple[str, str], *, is_raw: bool) -> None:
    match = RouteMatch(PathMatch(), None, (HeaderMatch("x-mode", "admin"),))
    strict = Rule("strict", (match,), (Requirement(peer=PeerRequirement(service_accounts=("admin",))),))
    deployment = Deployment(policies=(RoutePolicy("p", (strict, rule("lax", "/", public=True))),))
    sent = {"raw_headers": [("x-mode", one) for one in values]} if is_raw else {"headers": {"x-mode": ",".join(values)}}
    denied(deployment.request("/", **sent), 400, Reason.HEADER_MALFORMED)
    assert deployment.request("/", headers={"x-mode": "user"}).allowed


@pytest.mark.parametrize("host", ["lax.example.com.", "lax.example.com:81", "lax.example.com:"])
def test_62_a_host_that_the_proxy_routes_elsewhere_does_not_choose_the_laxer_policy(host: str) -> None:
    admin = rule("any", "/", Requirement(peer=PeerRequirement(service_accounts=("admin",))))
    rest = RoutePolicy("rest", (admin,))
    deployment = Deployment(policies=(POLICIES[1], rest))
    assert deployment.request("/", host="lax.example.com", destination_principal="").allowed
    denied(deployment.request("/", host=host, destination_principal=""), 400, Reason.HOST_MALFORMED)


@pytest.mark.parametrize("host", ["api.example.com", "tenant.example.com", "", "*", "lax.example.com.evil.example"])
def test_63_a_destination_that_no_policy_covers_is_denied_whatever_the_host(host: str) -> None:
    deployment = Deployment(policies=POLICIES[:1])
    answer = deployment.request("/healthz", host=host, destination_principal="spiffe://cluster.local/ns/other/sa/x")
    assert not answer.allowed
    assert answer.status in {400, 403}


def test_no_result_of_one_connection_is_served_to_another() -> None:
    deployment = Deployment()
    leaves = [ROOT.svid(f"spiffe://cluster.local/ns/applications/sa/w{index}") for index in range(8)]
    for _ in range(2):
        for index, leaf in enumerate(leaves):
            for other, presented in enumerate(leaves):
                answer = deployment.request(token=bound_token(leaf, sub=f"user-{index}"), leaf=presented)
                assert answer.allowed == (index == other)
                if answer.allowed:
                    assert answer.upstream_headers["x-subject"] == f"user-{index}"
                    assert answer.upstream_headers["x-caller"].endswith(f"/w{index}")


def test_49_an_unknown_key_is_one_need_and_known_keys_are_not_affected() -> None:
    deployment = Deployment()
    for index in range(100):
        answer = deployment.request(token=bound_token(header={"kid": f"unknown-{index}"}))
        denied(answer, 401, Reason.SIGNING_KEY_UNKNOWN)
    assert deployment.needs == [KeysNeeded("corp", f"unknown-{index}") for index in range(100)]
    assert deployment.request(token=bound_token()).allowed


def test_what_the_client_sees_never_depends_on_which_check_of_the_signature_failed() -> None:
    key = signing_key(index=9, kid="none-of-ours")
    answers = {
        (answer.status, answer.response.denied_response.body, answer.denied_header("www-authenticate"))
        for answer in (
            DEPLOYMENT.request(token=bound_token(iss="https://unknown.example")),
            DEPLOYMENT.request(token=bound_token(key=key)),
            DEPLOYMENT.request(token=bound_token(key=key, header={"kid": signing_key().kid})),
        )
    }
    assert len(answers) == 1


def test_a_source_address_outside_the_blocks_is_denied() -> None:
    assert DEPLOYMENT.request("/nearby", leaf=None, source_address="10.1.2.3").allowed
    assert DEPLOYMENT.request("/nearby", leaf=None, source_address="::ffff:10.1.2.3").allowed
    for address in ("192.0.2.1", "", "/run/socket", "10.0.0.1.evil", "::ffff:192.0.2.1"):
        denied(DEPLOYMENT.request("/nearby", leaf=None, source_address=address), 403, Reason.SOURCE_IP_NOT_ALLOWED)


@pytest.mark.parametrize("forwarded", ["10.0.0.1", "10.0.0.1, 192.0.2.1"])
def test_x_forwarded_for_is_never_an_address(forwarded: str) -> None:
    answer = DEPLOYMENT.request("/nearby", source_address="192.0.2.1", headers={"x-forwarded-for": forwarded})
    denied(answer, 403, Reason.SOURCE_IP_NOT_ALLOWED)


def test_keys_that_could_not_be_fetched_are_503() -> None:
    deployment = Deployment(issuers=(issuer(keys=KeyUrl("https://issuer.example/jwks")),))
    denied(deployment.request(token=bound_token()), 503, Reason.SIGNING_KEYS_UNAVAILABLE)


def test_targets_of_one_policy_do_not_leak_to_another_destination() -> None:
    strict = RoutePolicy("strict", (rule("all", "/", Requirement(token=BOUND)),), targets=(Target(BILLING),))
    open_ = RoutePolicy(
        "open", (rule("all", "/", public=True),), targets=(Target("spiffe://cluster.local/ns/web/sa/*"),)
    )
    deployment = Deployment(policies=(strict, open_))
    denied(deployment.request("/", leaf=None), 401, Reason.TOKEN_MISSING)
    assert deployment.request("/", leaf=None, destination_principal="spiffe://cluster.local/ns/web/sa/a").allowed
