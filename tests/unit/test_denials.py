"""What a denied client sees, for every reason there is."""

import json

import pytest

from ext_authz.denials import Denials, DenialSettings, Kind, kind_of
from ext_authz.errors import Reason

DENYING = [reason for reason in Reason if reason not in {Reason.OK, Reason.PUBLIC_ROUTE}]


@pytest.mark.parametrize("reason", DENYING)
def test_every_denying_reason_has_an_answer_that_never_names_it(reason: Reason) -> None:
    deny = Denials(DenialSettings()).deny(reason)
    assert deny.reason is reason
    assert deny.http_status in {400, 401, 403, 500, 503}
    assert reason.value not in deny.body
    assert all(reason.value not in value for _, value in deny.headers)


@pytest.mark.parametrize("reason", [Reason.OK, Reason.PUBLIC_ROUTE])
def test_a_reason_that_allows_has_no_denial(reason: Reason) -> None:
    with pytest.raises(KeyError):
        kind_of(reason)


@pytest.mark.parametrize("reason", DENYING)
def test_every_401_carries_a_challenge(reason: Reason) -> None:
    deny = Denials(DenialSettings()).deny(reason)
    assert (deny.http_status != 401) or dict(deny.headers)["www-authenticate"].startswith("Bearer")


@pytest.mark.parametrize(
    ("reason", "status", "challenge"),
    [
        (Reason.TOKEN_MISSING, 401, 'Bearer realm="api", resource_metadata="https://api/.well-known/x"'),
        (
            Reason.TOKEN_EXPIRED,
            401,
            'Bearer realm="api", error="invalid_token", resource_metadata="https://api/.well-known/x"',
        ),
        (
            Reason.SCOPE_INSUFFICIENT,
            403,
            (
                'Bearer realm="api", error="insufficient_scope", scope="a b", '
                'resource_metadata="https://api/.well-known/x"'
            ),
        ),
        (
            Reason.MULTIPLE_CREDENTIALS,
            400,
            'Bearer realm="api", error="invalid_request", resource_metadata="https://api/.well-known/x"',
        ),
        (Reason.NO_RULE, 403, None),
        (Reason.PATH_AMBIGUOUS, 400, None),
        (Reason.SIGNING_KEYS_UNAVAILABLE, 503, None),
        (Reason.INTERNAL_ERROR, 500, None),
    ],
)
def test_the_answer_follows_the_standards(reason: Reason, status: int, challenge: str | None) -> None:
    denials = Denials(DenialSettings(realm="api", resource_metadata="https://api/.well-known/x"))
    deny = denials.deny(reason, scopes=("a", "b"))
    assert deny.http_status == status
    assert dict(deny.headers).get("www-authenticate") == challenge


def test_an_unknown_issuer_an_unknown_key_and_a_bad_signature_look_the_same() -> None:
    denials = Denials(DenialSettings())
    answers = {
        (deny.http_status, deny.headers, deny.body)
        for deny in map(denials.deny, (Reason.ISSUER_UNKNOWN, Reason.SIGNING_KEY_UNKNOWN, Reason.SIGNATURE_INVALID))
    }
    assert len(answers) == 1


def test_the_body_is_problem_json_by_default() -> None:
    deny = Denials(DenialSettings()).deny(Reason.NO_RULE)
    assert dict(deny.headers)["content-type"] == "application/problem+json"
    assert json.loads(deny.body) == {
        "type": "about:blank",
        "title": "Forbidden",
        "status": 403,
        "detail": Kind.FORBIDDEN.detail,
    }


def test_the_body_is_the_operators_template_when_there_is_one() -> None:
    settings = DenialSettings(body_template="<h1>${status} ${title}</h1> ${unknown} $5", content_type="text/html")
    deny = Denials(settings).deny(Reason.TOKEN_MISSING)
    assert deny.body == "<h1>401 Unauthorized</h1> ${unknown} $5"
    assert dict(deny.headers)["content-type"] == "text/html"


def test_a_missing_peer_is_403_where_the_rule_takes_no_token() -> None:
    denials = Denials(DenialSettings())
    assert denials.deny(Reason.PEER_MISSING, takes_token=False).http_status == 403
    assert denials.deny(Reason.PEER_MISSING, takes_token=True).http_status == 401


def test_a_realm_is_quoted() -> None:
    deny = Denials(DenialSettings(realm='a"b\\c')).deny(Reason.TOKEN_MISSING)
    assert dict(deny.headers)["www-authenticate"] == 'Bearer realm="a\\"b\\\\c"'


def test_denials_are_never_cached_by_the_client() -> None:
    assert dict(Denials(DenialSettings()).deny(Reason.NO_RULE).headers)["cache-control"] == "no-store"
