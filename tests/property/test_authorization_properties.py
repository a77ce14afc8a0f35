"""Presenting a token: any headers and query yield one token, none, or our own refusal."""

import time

from hypothesis import given, settings
from hypothesis import strategies as st

from ext_authz.errors import Reason, Refusal
from ext_authz.evidence.authorization import MAX_TOKEN_LENGTH, find_token
from ext_authz.evidence.settings import TokenSource
from ext_authz.facts import Headers

SOURCES = (TokenSource(), TokenSource("x-access-token", None))
REASONS = {
    Reason.MULTIPLE_CREDENTIALS,
    Reason.TOKEN_IN_QUERY,
    Reason.TOKEN_TOO_LARGE,
    Reason.AUTHORIZATION_MALFORMED,
    Reason.AUTHORIZATION_SCHEME_NOT_SUPPORTED,
    Reason.HEADER_MALFORMED,
}
B64TOKEN = "ABCxyz019-._~+/"

values = st.binary(max_size=30) | st.lists(
    st.sampled_from([b"Bearer", b"bearer ", b"Basic", b" ", b",", b"\t", b"a.b.c", b"=", b"\xff", b"\x00"]), max_size=6
).map(b"".join)
names = st.sampled_from(["authorization", "x-access-token", "cookie", "proxy-authorization"])
queries = st.text(max_size=30) | st.lists(
    st.sampled_from(["access_token", "%61ccess_token", "=", "&", ";", "%", "a", "%ff"]), max_size=6
).map("".join)


@settings(deadline=None)
@given(st.lists(st.tuples(names, values), max_size=3), queries)
def test_any_request_yields_one_token_or_none_or_a_refusal(pairs: list[tuple[str, bytes]], query: str) -> None:
    try:
        token = find_token(Headers.raw(pairs), query, SOURCES)
    except Refusal as refusal:
        reason = refusal.reason
    else:
        assert token is None or set(token) <= set(
            B64TOKEN + "=ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
        )
        # a token was found exactly when one configured header was there, once
        assert (token is not None) == any(name in {"authorization", "x-access-token"} for name, _ in pairs)
        return
    assert reason in REASONS


@settings(deadline=None)
@given(st.text(B64TOKEN, min_size=1, max_size=100), st.text("=", max_size=2))
def test_every_b64token_is_found_as_it_is(token: str, padding: str) -> None:
    text = token + padding
    assert find_token(Headers.merged({"authorization": f"Bearer {text}"}), "", SOURCES) == text
    assert find_token(Headers.merged({"x-access-token": text}), "a=b", SOURCES) == text


@settings(deadline=None)
@given(st.sampled_from([",", ", ", "bearer ", ",bearer", " ", "=", "a", "A=", "\t"]))
def test_a_header_of_the_greatest_length_is_read_in_bounded_time(piece: str) -> None:
    begin = time.process_time()
    for start in ("", "Bearer ", "Basic "):
        value = (start + piece * MAX_TOKEN_LENGTH)[:MAX_TOKEN_LENGTH]
        try:
            find_token(Headers.merged({"authorization": value}), piece * 20_000, SOURCES)
        except Refusal:
            continue
    assert time.process_time() - begin < 5
