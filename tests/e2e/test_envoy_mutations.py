"""What each Envoy makes of the changes we ask for: headers overwritten and removed, queries, metadata, denials."""

import json
import urllib.parse
from collections.abc import Callable
from typing import Any

import pytest
from e2e.client import Header
from e2e.services import CALLER, WEBSITE, Services, token_for
from e2e.stack import Stack

pytestmark = [pytest.mark.envoy]

LISTENERS = ("append", "append-raw")
OURS = {
    "x-subject": ["alice"],
    "x-caller": [WEBSITE],
    "x-tenant": ["acme"],
    "x-client-certificate": [CALLER.url_encoded_pem],
}
"""What the upstream must see on `/invoices` with a token of the tenant `acme`."""
SPELLINGS: dict[str, Callable[[str], list[Header]]] = {
    "once": lambda name: [(name, "forged")],
    "twice": lambda name: [(name, "forged"), (name, "forged again")],
    "empty": lambda name: [(name, "")],
    "in capitals": lambda name: [(name.upper(), "forged")],
    "with underscores": lambda name: [(name.replace("-", "_"), "forged")],
    "with dots": lambda name: [(name.replace("-", "."), "forged")],
    "every way at once": lambda name: [
        (spelled, f"forged {number}")
        for number, spelled in enumerate(
            (name, name.title(), name.replace("-", "_"), name.upper().replace("-", "_"), name.replace("-", "."))
        )
    ],
}


@pytest.fixture(autouse=True)
def checked(services: Services) -> None:
    assert services.checked


def forged_headers(spelling: str) -> list[Header]:
    return [pair for name in OURS for pair in SPELLINGS[spelling](name)]


def as_an_application_reads(headers: tuple[tuple[str, str], ...]) -> dict[str, list[str]]:
    """By the names that CGI and PHP know: `x_subject`, `x.subject` and `X-Subject` are one."""
    read: dict[str, list[str]] = {}
    for name, value in headers:
        read.setdefault(name.lower().replace("_", "-").replace(".", "-"), []).append(value)
    return read


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("listener", LISTENERS)
def test_a_header_that_a_client_supplies_is_overwritten(
    stack: Stack, listener: str, spelling: str, http2: bool
) -> None:
    token = token_for(CALLER, tenant="acme")
    reply = stack.send(listener, "/invoices/x", leaf=CALLER, token=token, headers=forged_headers(spelling), http2=http2)
    seen = as_an_application_reads(reply.seen.headers)
    assert {name: seen.get(name) for name in OURS} == OURS


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("listener", LISTENERS)
def test_a_header_without_a_value_of_ours_is_removed(stack: Stack, listener: str, spelling: str, http2: bool) -> None:
    headers = forged_headers(spelling)
    # the token has no tenant; a public rule sets nothing at all
    reply = stack.send(listener, "/invoices/x", leaf=CALLER, token=token_for(CALLER), headers=headers, http2=http2)
    assert "x-tenant" not in as_an_application_reads(reply.seen.headers)
    public = stack.send(listener, "/public/x", leaf=CALLER, headers=headers, http2=http2)
    assert not OURS.keys() & as_an_application_reads(public.seen.headers).keys()


@pytest.mark.parametrize("listener", LISTENERS)
def test_a_value_that_is_empty_does_not_leave_the_clients(stack: Stack, listener: str, http2: bool) -> None:
    headers = [("x-tenant", "forged"), ("x-tenant", "forged again")]
    token = token_for(CALLER, tenant="")
    reply = stack.send(listener, "/invoices/x", leaf=CALLER, token=token, headers=headers, http2=http2)
    assert reply.seen.all("x-tenant") in ([], [""])


@pytest.mark.parametrize("listener", LISTENERS)
def test_headers_named_for_removal_never_arrive(stack: Stack, listener: str, http2: bool) -> None:
    headers = [
        ("x-internal", "1"),
        ("x-internal", "2"),
        ("x_internal", "3"),
        ("x-http-method-override", "DELETE"),
        ("x-http-method", "DELETE"),
        ("x_http_method", "DELETE"),
        ("x-kept", "1"),
        ("x-kept", "2"),
    ]
    reply = stack.send(listener, "/invoices/x", leaf=CALLER, token=token_for(CALLER), headers=headers, http2=http2)
    seen = as_an_application_reads(reply.seen.headers)
    assert not {"authorization", "x-internal", "x-http-method-override", "x-http-method"} & seen.keys()
    # what nobody named arrives as it was sent, whatever Envoy does about joining it
    assert ",".join(seen["x-kept"]) == "1,2"


def test_the_injected_certificate_is_the_one_on_the_connection(stack: Stack) -> None:
    reply = stack.send("sanitize", "/invoices/x", leaf=CALLER, token=token_for(CALLER))
    (sent,) = reply.seen.all("x-client-certificate")
    assert urllib.parse.unquote(sent).encode() == CALLER.pem


def test_response_headers_replace_the_upstreams_own(stack: Stack, http2: bool) -> None:
    reply = stack.send("append", "/invoices/x", leaf=CALLER, token=token_for(CALLER), http2=http2)
    assert reply.all("x-decided-by") == ["ext-authz"]
    assert reply.all("x-rule-subject") == ["alice"]
    assert reply.all("x-upstream") == ["here"]


QUERIES = {
    "": {},
    "page=2": {"page": ["2"]},
    "tenant=evil": {},
    "tenant=evil&tenant=worse&page=2": {"page": ["2"]},
    "ten%61nt=evil&page=2": {"page": ["2"]},
    "debug=1&d%65bug=2&page=2&debug=3": {"page": ["2"]},
    "Debug=1&debug[]=2&debugger=3": {"debugger": ["3"]},
    "TENANT=evil&tenant%5B%5D=worse&+tenant=worst&tenant%00x=none": {},
}
"""Queries of a client, and what must be left of them."""


@pytest.mark.parametrize("query", QUERIES)
@pytest.mark.parametrize(("listener", "tenant"), [("append", "acme"), ("unvalidated", "a&b=c d%")])
def test_query_parameters_are_ours_alone(stack: Stack, listener: str, tenant: str, query: str, http2: bool) -> None:
    token = token_for(CALLER, tenant=tenant)
    target = f"/invoices/x?{query}" if query else "/invoices/x"
    reply = stack.send(listener, target, leaf=CALLER, token=token, http2=http2)
    arrived = reply.seen.target.partition("?")[2]
    assert urllib.parse.parse_qs(arrived, keep_blank_values=True) == QUERIES[query] | {"tenant": [tenant]}, arrived


def test_an_envoy_that_validates_refuses_query_values_that_need_encoding(stack: Stack) -> None:
    # `validate_mutations` takes `%` for a character that should have been encoded: no value with one can pass
    path = stack.below("/invoices")
    reply = stack.send("append", path, leaf=CALLER, token=token_for(CALLER, tenant="a&b"))
    assert reply.status == 500
    assert not stack.arrived(path)


def test_a_query_parameter_without_a_value_of_ours_is_removed(stack: Stack) -> None:
    target = "/invoices/x?tenant=evil&ten%61nt=worse&page=2"
    reply = stack.send("append", target, leaf=CALLER, token=token_for(CALLER))
    assert urllib.parse.parse_qs(reply.seen.target.partition("?")[2]) == {"page": ["2"]}


def test_dynamic_metadata_reaches_the_access_log(stack: Stack, http2: bool) -> None:
    path = stack.below("/invoices")
    stack.send("append", path, leaf=CALLER, token=token_for(CALLER), http2=http2)
    line = stack.access_log(path)
    assert line["metadata_subject"] == "alice"
    metadata = line["metadata"]
    assert isinstance(metadata, dict)
    assert metadata["subject"] == "alice"
    assert metadata["caller"] == {"spiffe_id": WEBSITE}


DENIALS: dict[str, tuple[dict[str, Any], int, list[str]]] = {
    "no token": ({}, 401, ["Bearer"]),
    "another's token": ({"token": {"cnf": {"x5t#S256": "A" * 43}}}, 401, ['Bearer error="invalid_token"']),
    "too little scope": (
        {"token": {"scope": "other"}},
        403,
        ['Bearer error="insufficient_scope", scope="invoices.read"'],
    ),
    "two credentials": (
        {"headers": [("authorization", "Bearer b")], "token": {}},
        400,
        ['Bearer error="invalid_request"'],
    ),
    "no rule": ({"path": "/nowhere"}, 403, []),
    "a malformed path": ({"path": "/public/..;/admin"}, 400, []),
}


@pytest.mark.parametrize(("sent", "status", "challenges"), DENIALS.values(), ids=DENIALS)
@pytest.mark.parametrize("listener", LISTENERS)
def test_a_denied_client_sees_the_whole_denial(  # noqa: PLR0917 - all are parameters of the table
    stack: Stack, listener: str, sent: dict[str, Any], status: int, challenges: list[str], http2: bool
) -> None:
    token = token_for(CALLER, **sent["token"]) if "token" in sent else None
    reply = stack.send(
        listener,
        sent.get("path", "/invoices/x"),
        leaf=CALLER,
        token=token,
        headers=sent.get("headers", ()),
        http2=http2,
    )
    assert reply.status == status
    assert reply.all("content-type") == ["application/problem+json"]
    assert reply.all("cache-control") == ["no-store"]
    assert reply.all("www-authenticate") == challenges
    problem = json.loads(reply.body)
    assert problem["status"] == status
    assert reply.all("content-length") == [str(len(reply.body))]
    # what an allowed response would carry
    assert not reply.all("x-decided-by")
    assert not reply.all("x-rule-subject")


@pytest.mark.parametrize("listener", LISTENERS)
def test_a_denied_head_request_has_no_body(stack: Stack, listener: str, http2: bool) -> None:
    reply = stack.send(listener, "/invoices/x", leaf=CALLER, method="HEAD", http2=http2)
    assert (reply.status, reply.body) == (401, b"")
    assert reply.all("www-authenticate") == ["Bearer"]
