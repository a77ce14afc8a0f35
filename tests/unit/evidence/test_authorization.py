"""How a token is presented."""

import pytest

from ext_authz.errors import Reason, Refusal
from ext_authz.evidence.authorization import MAX_TOKEN_LENGTH, find_token
from ext_authz.evidence.settings import TokenSource
from ext_authz.facts import Headers

BEARER = (TokenSource(),)
BARE = (TokenSource("x-access-token", None),)
BOTH = BEARER + BARE


def authorization(*values: str) -> Headers:
    return Headers.raw(("authorization", value.encode()) for value in values)


def reason_for(headers: Headers, query: str = "", sources: tuple[TokenSource, ...] = BEARER) -> Reason:
    with pytest.raises(Refusal) as refused:
        find_token(headers, query, sources)
    return refused.value.reason


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", "bEaReR"])
def test_the_scheme_is_compared_without_case(scheme: str) -> None:
    assert find_token(Headers.merged({"authorization": f"{scheme} a.b-c_~+/=="}), "", BEARER) == "a.b-c_~+/=="


def test_a_request_without_credential_presents_no_token() -> None:
    assert find_token(Headers.merged({"accept": "*/*"}), "a=b&token=c", BOTH) is None


def test_a_token_is_read_from_a_header_of_the_operators_choice() -> None:
    assert find_token(Headers.merged({"x-access-token": "a.b.c"}), "", BOTH) == "a.b.c"


def test_only_configured_headers_are_read() -> None:
    headers = Headers.merged({"x-access-token": "a", "authorization": "Bearer b", "cookie": "access_token=c"})
    assert find_token(headers, "", (TokenSource("x-token", None),)) is None
    assert find_token(headers, "", BEARER) == "b"


@pytest.mark.parametrize(
    "value",
    [
        "",
        " ",
        "Bearer",
        "Bearer ",
        "Bearer  a",
        "Bearer\ta",
        "Bearer \ta",
        "Bearer a ",
        "Bearer a\t",
        " Bearer a",
        "Bearer a b",
        "Bearer =",
        "Bearer a=b",
        "Bearer a\n",
        "Bearer a\x00",
        'Bearer "a"',
        "Bearer ä",
        "Bearer: a",
        "a/b c",
        '"Bearer" a',
    ],
)
def test_a_credential_that_is_not_one_scheme_one_space_and_one_token_is_malformed(value: str) -> None:
    assert reason_for(Headers.merged({"authorization": value})) is Reason.AUTHORIZATION_MALFORMED


@pytest.mark.parametrize("value", ["", " ", "Bearer a", "a b", "a\n", "ä"])
def test_a_bare_token_that_is_not_one_token_is_malformed(value: str) -> None:
    assert reason_for(Headers.merged({"x-access-token": value}), sources=BARE) is Reason.AUTHORIZATION_MALFORMED


@pytest.mark.parametrize(
    "value",
    ["Basic dXNlcjpwYXNz", "DPoP a.b.c", "Negotiate", "Digest username=x, realm=y", "BearerX a", "Basic x,bearer"],
)
def test_another_scheme_is_not_supported(value: str) -> None:
    assert reason_for(Headers.merged({"authorization": value})) is Reason.AUTHORIZATION_SCHEME_NOT_SUPPORTED


@pytest.mark.parametrize(
    "value",
    [
        "Bearer a,Bearer b",
        "Bearer a, Bearer a",
        "Bearer a,b",
        "Basic x,Bearer b",
        "Basic x, bearer\tb",
        "DPoP a,  BEARER b",
    ],
)
def test_two_headers_that_envoy_joined_are_two_credentials(value: str) -> None:
    assert reason_for(Headers.merged({"authorization": value})) is Reason.MULTIPLE_CREDENTIALS


def test_two_raw_headers_are_two_credentials_even_when_they_are_the_same() -> None:
    assert reason_for(authorization("Bearer a", "Bearer b")) is Reason.MULTIPLE_CREDENTIALS
    assert reason_for(authorization("Bearer a", "Bearer a")) is Reason.MULTIPLE_CREDENTIALS
    assert reason_for(authorization("Basic a", "Bearer a")) is Reason.MULTIPLE_CREDENTIALS


def test_a_token_in_two_places_is_two_credentials() -> None:
    headers = Headers.merged({"authorization": "Bearer a", "x-access-token": "a"})
    assert reason_for(headers, sources=BOTH) is Reason.MULTIPLE_CREDENTIALS


def test_a_bare_header_with_two_tokens_is_two_credentials() -> None:
    assert reason_for(Headers.merged({"x-access-token": "a,b"}), sources=BARE) is Reason.MULTIPLE_CREDENTIALS


@pytest.mark.parametrize(
    "query",
    [
        "access_token=a",
        "access_token=",
        "access_token",
        "a=b&access_token=c",
        "a=b;access_token=c",
        "access%5Ftoken=a",
        "%61ccess_token=a",
        "%61%63%63%65%73%73%5f%74%6f%6b%65%6e=a",
        "ACCESS_TOKEN=a",
        "&&access_token=a",
    ],
)
def test_a_token_in_the_query_is_refused(query: str) -> None:
    assert reason_for(Headers.merged({}), query) is Reason.TOKEN_IN_QUERY
    assert reason_for(Headers.merged({"authorization": "Bearer a"}), query) is Reason.MULTIPLE_CREDENTIALS
    assert reason_for(Headers.merged({"authorization": "\x00"}), query) is Reason.MULTIPLE_CREDENTIALS


@pytest.mark.parametrize(
    "query",
    ["", "a=access_token", "xaccess_token=a", "access_token_x=a", "a=%ff%", "a=%61ccess_token", "%=access_token"],
)
def test_a_query_without_the_parameter_presents_no_token(query: str) -> None:
    assert find_token(Headers.merged({}), query, BEARER) is None


def test_a_token_that_is_too_long_is_refused_before_it_is_read() -> None:
    longest = "a" * (MAX_TOKEN_LENGTH - len("Bearer "))
    assert find_token(Headers.merged({"authorization": f"Bearer {longest}"}), "", BEARER) == longest
    assert reason_for(Headers.merged({"authorization": f"Bearer {longest}a"})) is Reason.TOKEN_TOO_LARGE
    # a megabyte that would be malformed in every other way as well
    assert reason_for(Headers.merged({"authorization": "\x00, " * 262_144})) is Reason.TOKEN_TOO_LARGE
    assert reason_for(Headers.merged({"x-access-token": "," * 1_000_000}), sources=BARE) is Reason.TOKEN_TOO_LARGE


def test_a_header_that_is_not_utf_8_is_refused() -> None:
    assert reason_for(Headers.raw([("authorization", b"Bearer \xff")])) is Reason.HEADER_MALFORMED
