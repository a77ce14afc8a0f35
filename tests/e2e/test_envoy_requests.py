"""Requests written to be understood in two ways, too large, or out of the ordinary: none of them gets past a rule."""

import http.client
import json
import socket
from collections.abc import Sequence

import httpx
import pytest
from e2e import client
from e2e.client import Header
from e2e.services import CALLER, HOST, SMALL_MESSAGE_BYTES, WEBSITE, Services, token_for
from e2e.stack import Stack

pytestmark = [pytest.mark.envoy]

RAW_AND_MERGED = ("sanitize", "sanitize-raw")

TRICKS = (
    "/public/../admin/{}",
    "/public/%2e%2e/admin/{}",
    "/public/.%2e/admin/{}",
    "/public/%2E%2E/admin/{}",
    "/public/%252e%252e/admin/{}",
    "/public/..;/admin/{}",
    "/public/..;x=y/admin/{}",
    "/public/..%2fadmin/{}",
    "/public%2f..%2fadmin/{}",
    "/public/..%5cadmin/{}",
    "/public/..\\admin/{}",
    "/public\\..\\admin/{}",
    "/public/..%252fadmin/{}",
    "/public/%c0%ae%c0%ae/admin/{}",
    "//admin/{}",
    "/admin//{}",
    "/./admin/{}",
    "/%2e/admin/{}",
    "/%2fadmin/{}",
    "/ADMIN/{}",
    "/aDmIn/{}",
    "/%61dmin/{}",
    "/%41DMIN/{}",
    "/admin;x/{}",
    "/admin%3bx/{}",
    "/admin%00/{}",
    "/admin%0a/{}",
    "/admin%20/{}",
    "/admin%ff/{}",
    "/admin/{}#/../public",
    "/admin/{}?/../public",
    "/admin/{}%3f/../public",
    "/public/{}#/../../admin",
    "/public/%/{}",
    "/public/%zz/{}",
    "/public/\x01/{}",
    "public/{}",
    "*{}",
    "{}",
    "?{}",
)
"""Paths that must not reach the upstream without a caller who may see `/admin`; `{}` is what tells one from another."""
ONLY_HTTP1 = (f"http://{HOST}/admin/{{}}", f"https://{HOST}//admin/{{}}", f"http://{HOST}/public/../admin/{{}}")


@pytest.fixture(autouse=True)
def checked(services: Services) -> None:
    assert services.checked


def marker(stack: Stack) -> str:
    return stack.below("")[1:]


def assert_refused(stack: Stack, listener: str, path: str, *, http2: bool) -> None:
    """The request is denied and the upstream has not seen it; `{}` in `path` tells it from all others."""
    name = marker(stack)
    try:
        reply = stack.send(listener, path.format(name), http2=http2)
    except (ConnectionError, httpx.RemoteProtocolError, http.client.BadStatusLine):
        # a codec may refuse it without an answer
        pass
    else:
        assert reply.status in {400, 403, 404}, reply
    assert not stack.arrived(name)


@pytest.mark.parametrize("listener", ["sanitize", "normalized", pytest.param("sanitize-raw", marks=pytest.mark.slow)])
@pytest.mark.parametrize("trick", TRICKS)
def test_a_path_with_two_readings_never_reaches_the_upstream(
    stack: Stack, listener: str, trick: str, http2: bool
) -> None:
    assert_refused(stack, listener, trick, http2=http2)


@pytest.mark.parametrize("listener", ["sanitize", "normalized", "sanitize-raw"])
@pytest.mark.parametrize("trick", ONLY_HTTP1)
def test_a_target_in_absolute_form_opens_nothing(stack: Stack, listener: str, trick: str) -> None:
    assert_refused(stack, listener, trick, http2=False)


NOT_UTF8 = ("/public/\xe9/{}", "/public/..\xff/admin/{}", "/public/\xc0\xae\xc0\xae/admin/{}", "/adm\xffin/{}")


@pytest.mark.parametrize("path", NOT_UTF8)
@pytest.mark.parametrize("listener", ["sanitize-raw", "normalized", "sanitize"])
def test_a_path_byte_that_is_not_utf8_never_reaches_the_upstream(
    stack: Stack, listener: str, path: str, http2: bool
) -> None:
    assert_refused(stack, listener, path, http2=http2)


@pytest.mark.parametrize(
    "path", ["/public/a%20b/{}", "/public/%C3%A9/{}", "/public/a+b,c=d@e/{}", "/public/{}?q=//../"]
)
def test_a_path_with_one_reading_arrives_as_it_was_sent(stack: Stack, path: str, http2: bool) -> None:
    target = path.format(marker(stack))
    assert stack.send("sanitize", target, http2=http2).seen.target == target


CREDENTIALS: dict[str, tuple[Sequence[Header], set[int]]] = {
    "two tokens": ((("authorization", "Bearer {token}"), ("authorization", "Bearer {token}")), {400}),
    "a token in capitals' header too": ((("authorization", "Bearer {token}"), ("Authorization", "Bearer x")), {400}),
    "joined by a comma": ((("authorization", "Bearer {token},Bearer {token}"),), {400}),
    "a token and Basic": ((("authorization", "Bearer {token}"), ("authorization", "Basic YTpi")), {400}),
    "two spaces": ((("authorization", "Bearer  {token}"),), {400}),
    "a tab": ((("authorization", "Bearer\t{token}"),), {400}),
    "Basic": ((("authorization", "Basic YTpi"),), {401}),
    "bytes that are not UTF-8": ((("authorization", b"Bearer \xff\xfe"),), {400, 401}),
    "a token and bytes that are not UTF-8": ((("authorization", "Bearer {token}"), ("authorization", b"\xff")), {400}),
}


@pytest.mark.parametrize("listener", RAW_AND_MERGED)
@pytest.mark.parametrize(("headers", "statuses"), CREDENTIALS.values(), ids=CREDENTIALS)
def test_credentials_with_two_readings_are_refused(
    stack: Stack, listener: str, headers: Sequence[Header], statuses: set[int], http2: bool
) -> None:
    token = token_for(CALLER)
    sent = [(name, value.format(token=token) if isinstance(value, str) else value) for name, value in headers]
    path = stack.below("/invoices")
    assert stack.send(listener, path, leaf=CALLER, headers=sent, http2=http2).status in statuses
    assert not stack.arrived(path)


@pytest.mark.parametrize("listener", RAW_AND_MERGED)
def test_a_token_in_the_query_is_refused(stack: Stack, listener: str, http2: bool) -> None:
    path = stack.below("/invoices")
    token = token_for(CALLER)
    target = f"{path}?access_token={token}"
    assert stack.send(listener, target, leaf=CALLER, http2=http2).status == 401
    assert stack.send(listener, target, leaf=CALLER, token=token, http2=http2).status == 400
    assert not stack.arrived(path)


@pytest.mark.parametrize("listener", RAW_AND_MERGED)
@pytest.mark.parametrize("name", ["x-subject", "X_Subject", "x-client-certificate", "x-other"])
def test_header_bytes_that_are_not_utf8_replace_nothing_of_ours(
    stack: Stack, listener: str, name: str, http2: bool
) -> None:
    headers = [(name, b"\xff\xfe\x80"), (name, b"caf\xe9")]
    reply = stack.send(listener, "/invoices/x", leaf=CALLER, token=token_for(CALLER), headers=headers, http2=http2)
    # either the whole request is refused or what is ours is ours alone
    if reply.status != 400:
        seen = reply.seen
        assert seen.all("x-subject") == ["alice"]
        assert seen.all("x-client-certificate") == [CALLER.url_encoded_pem]
        assert not seen.all("x_subject")


@pytest.mark.parametrize("listener", RAW_AND_MERGED)
def test_an_element_that_is_not_utf8_identifies_nobody(stack: Stack, listener: str, http2: bool) -> None:
    del listener
    path = stack.below("/workloads")
    headers = [("x-forwarded-client-cert", b"\xff\xfe")]
    for appending in ("append", "append-raw"):
        reply = stack.send(appending, path, leaf=CALLER, headers=headers, http2=http2)
        assert reply.status in {400, 403}
    assert not stack.arrived(path)


@pytest.mark.parametrize("listener", RAW_AND_MERGED)
def test_a_request_as_large_as_envoy_takes_is_decided(stack: Stack, listener: str, http2: bool) -> None:
    large = [(f"x-large-{number}", "v" * 10_000) for number in range(5)]
    reply = stack.send(listener, "/invoices/x", leaf=CALLER, token=token_for(CALLER), headers=large, http2=http2)
    assert [len(value) for name, value in reply.seen.headers if name.startswith("x-large")] == [10_000] * 5
    path = stack.below("/invoices")
    one = [("x-large", "v" * 55_000)]
    assert stack.send(listener, path, leaf=CALLER, headers=one, http2=http2).status == 401
    token = f"{token_for(CALLER)}{'A' * 50_000}"
    assert stack.send(listener, path, leaf=CALLER, token=token, http2=http2).status == 401
    assert stack.send(listener, f"{path}/{'a' * 50_000}", leaf=CALLER, http2=http2).status == 400
    assert not stack.arrived(path)


@pytest.mark.slow
def test_a_check_request_beyond_the_limit_is_denied_by_us_and_is_no_failed_check(
    stack: Stack, services: Services
) -> None:
    assert services.two_hops
    large = [("x-large", "v" * (SMALL_MESSAGE_BYTES + 1_000))]
    reply = stack.send("two-hops", "/public/x", leaf=CALLER, headers=large)
    assert reply.status == 400
    assert reply.all("content-type") == ["application/problem+json"]
    assert stack.send("two-hops", "/public/x", leaf=CALLER).status == 200


@pytest.mark.parametrize("method", ["get", "BREW", "TRACE", "PROPFIND"])
def test_methods_without_a_meaning_of_ours_are_denied(stack: Stack, method: str, http2: bool) -> None:
    path = stack.below("/public")
    try:
        status = stack.send("sanitize", path, method=method, http2=http2).status
    except (ConnectionError, http.client.BadStatusLine):
        assert not http2, "its HTTP/1.1 codec alone may close the connection"
    else:
        assert status in {400, 403}
    assert not stack.arrived(path)


def test_head_and_options_are_not_implied_by_get(stack: Stack, http2: bool) -> None:
    path = stack.below("/read-only")
    assert stack.send("sanitize", path, http2=http2).status == 200
    for method in ("HEAD", "OPTIONS"):
        reply = stack.send("sanitize", path, method=method, http2=http2)
        assert reply.status == 403
    assert [seen.method for seen in stack.arrived(path)] == ["GET"]
    reply = stack.send("sanitize", "/public/x", method="HEAD", http2=http2)
    assert (reply.status, reply.body) == (200, b"")


@pytest.mark.parametrize("listener", ["sanitize", "sanitize-raw", "upgrades"])
@pytest.mark.parametrize("target", [f"{HOST}:443", "/public/x", f"http://{HOST}/public/x"])
def test_connect_reaches_nobody(stack: Stack, services: Services, listener: str, target: str) -> None:
    before = len(services.upstream.requests)
    reply = client.over_http1(
        stack.port(listener),
        stack.context(CALLER),
        HOST,
        method="CONNECT",
        target=target,
        headers=[("host", HOST), ("x-probe", "connect")],
    )
    assert reply.status in {400, 403, 404}
    arrived = services.upstream.requests[before:]
    assert not [seen for seen in arrived if seen.method == "CONNECT" or seen.all("x-probe")]


def websocket(stack: Stack, path: str, token: str | None) -> tuple[socket.socket, client.Reply]:
    """An upgrade that the caller closes."""
    connection = client.connect(stack.port("upgrades"), stack.context(CALLER), HOST)
    headers: list[Header] = [
        ("host", HOST),
        ("connection", "Upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("x-subject", "forged"),
    ]
    if token is not None:
        headers.append(("authorization", f"Bearer {token}"))
    try:
        connection.sendall(client.head_of("GET", path, headers))
        return connection, client.read_reply(connection)
    except BaseException:
        connection.close()
        raise


def test_a_websocket_opens_for_whom_the_rule_allows(stack: Stack) -> None:
    connection, reply = websocket(stack, "/invoices/x", token_for(CALLER))
    with connection:
        assert reply.status == 101
        assert reply.all("x-seen-subject") == ["alice"]
        assert reply.all("x-decided-by") == ["ext-authz"]
        connection.sendall(b"hello")
        assert connection.recv(5) == b"hello"


def test_a_websocket_stays_closed_for_whom_the_rule_denies(stack: Stack) -> None:
    path = stack.below("/invoices")
    connection, reply = websocket(stack, path, None)
    with connection:
        assert reply.status == 401
    assert not stack.arrived(path)


@pytest.mark.parametrize("listener", ["sanitize", "upgrades"])
def test_a_body_is_not_sent_on_before_the_decision(stack: Stack, listener: str) -> None:
    """`upgrades` lets the upstream say 100 Continue, as Istio configures it."""
    denied, allowed = stack.below("/invoices"), stack.below("/public")
    for path, status in ((denied, 401), (allowed, 200)):
        with client.connect(stack.port(listener), stack.context(CALLER), HOST) as connection:
            headers = [("host", HOST), ("content-length", "5"), ("expect", "100-continue")]
            connection.sendall(client.head_of("POST", path, headers))
            # the answer may come without 100: then the body is not wanted
            first = connection.recv(65_536)
            if first.startswith(b"HTTP/1.1 100"):
                assert first.count(b"\r\n\r\n") >= 1
            connection.sendall(b"hello")
            answer = first
            while b" 200 OK" not in answer and b" 401 " not in answer:
                received = connection.recv(65_536)
                assert received, answer
                answer += received
            assert f" {status} ".encode() in answer
    assert not stack.arrived(denied)
    assert [seen.body for seen in stack.arrived(allowed)] == [b"hello"]


def test_a_body_arrives_whole_and_only_when_allowed(stack: Stack, http2: bool) -> None:
    body = json.dumps({"amount": 1}).encode() * 2_000
    path = stack.below("/invoices")
    assert stack.send("sanitize", path, leaf=CALLER, method="POST", body=body, http2=http2).status == 401
    assert not stack.arrived(path)
    reply = stack.send("sanitize", path, leaf=CALLER, token=token_for(CALLER), method="POST", body=body, http2=http2)
    assert reply.seen.body == body
    assert reply.seen.all("x-caller") == [WEBSITE]


def test_a_denied_request_says_nothing_about_the_next_on_its_connection(stack: Stack) -> None:
    token = token_for(CALLER)
    with client.connect(stack.port("append"), stack.context(CALLER), HOST) as connection:
        for bearer, status in ((token, 200), ("x", 401), (token, 200), (None, 401), (token, 200)):
            headers: list[Header] = [("host", HOST)]
            if bearer is not None:
                headers.append(("authorization", f"Bearer {bearer}"))
            connection.sendall(client.head_of("GET", "/invoices/x", headers))
            assert client.read_reply(connection).status == status
