"""URLs that we fetch from: what is one, and that nobody reads an accepted one in another way."""

from urllib.parse import urlsplit

import httpx
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ext_authz.config.http_url import HttpUrlParts, parse_http_url


@pytest.mark.parametrize(
    ("text", "authority", "target"),
    [
        ("https://as.example", "as.example", "/"),
        ("https://AS.example/Jwks", "as.example", "/Jwks"),
        ("HTTPS://as.example./a//b/", "as.example.", "/a//b/"),
        ("https://as.example:443/x", "as.example", "/x"),
        ("http://as.example:443/x", "as.example:443", "/x"),
        ("https://keys_1.ns.svc:8443?v=1/2?3", "keys_1.ns.svc:8443", "/?v=1/2?3"),
        ("https://as.example/%7Etenant;v=1/a:b@c?", "as.example", "/%7Etenant;v=1/a:b@c?"),
        ("http://127.0.0.1:1/x", "127.0.0.1:1", "/x"),
        ("http://[::1]/x", "[::1]", "/x"),
        ("http://[0:0::1]:81/x", "[::1]:81", "/x"),
    ],
)
def test_a_url_has_an_authority_and_a_target(text: str, authority: str, target: str) -> None:
    parts = parse_http_url(text)
    assert (parts.authority, parts.target) == (authority, target)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "as.example/jwks",
        "//as.example/jwks",
        "https:as.example",
        "https:///jwks",
        "ftp://as.example/",
        "https://as.example/#",
        "https://user@as.example/",
        "https://:@as.example/",
        "https://as.example:/",
        "https://as.example:0/",
        "https://as.example:65536/",
        "https://as.example:٤٤٣/",
        "https://as.example\\@evil.example/",
        "https://as.example/a b",
        "https://as.example/\n",
        "https://as.example/a\r\nx: y",
        "https://as.example/{tenant}",
        "https://as.example/%zz",
        "https://as..example/",
        "https://.example/",
        "https://-as.example/",
        f"https://{'a' * 64}.example/",
        "https://bücher.example/",
        "http\u017f://as.example/",
        "https://\u212aeys.example/",
        "https://as%2eexample/",
        "https://127.1/",
        "https://0x7f.0.0.1/",
        "https://2130706433/",
        "https://127.0.0.1./",
        "https://1.2.3.4.5/",
        "https://[1.2.3.4]/",
        "https://[::1/",
        "https://[:::]/",
        "https://[fe80::1%25eth0]/",
    ],
)
def test_what_two_readers_could_understand_differently_is_no_url(text: str) -> None:
    with pytest.raises(ValueError, match=r"^(not an absolute http or https URL|the port|the host)"):
        parse_http_url(text)


@pytest.mark.parametrize(
    ("text", "loopback"),
    [
        ("http://localhost/", True),
        ("http://LOCALHOST:8080/", True),
        ("http://127.0.0.1/", True),
        ("http://127.255.0.9/", True),
        ("http://[::1]/", True),
        # a resolver may ask the network for it
        ("http://idp.localhost/", False),
        ("http://localhost.evil.example/", False),
        ("http://127.0.0.1.evil.example/", False),
        ("http://10.0.0.1/", False),
        ("http://[::ffff:10.0.0.1]/", False),
    ],
)
def test_loopback_is_this_machine_and_nothing_else(text: str, loopback: bool) -> None:
    assert parse_http_url(text).is_loopback is loopback


def _parsed(text: str) -> HttpUrlParts | None:
    try:
        return parse_http_url(text)
    except ValueError:
        return None


_PIECES = st.one_of(
    st.sampled_from(
        ["http://", "https://", "a.example", "127.0.0.1", "[::1]", "x=1", "%2f", "//", "..", "user", "443"]
    ),
    st.sampled_from("@:/?#%.\\é[]_-~;& \t\u212a"),
)


@given(st.one_of(st.text(max_size=30).map("https://".__add__), st.lists(_PIECES, max_size=12).map("".join)))
@example("https://a.example:80/b?c")
def test_other_readers_find_the_same_in_what_is_accepted(text: str) -> None:
    parts = _parsed(text)
    if parts is None:
        return
    assert parse_http_url(parts.origin + parts.target) == parts._replace(path=parts.path or "/")
    split, other = urlsplit(text), httpx.URL(text)
    assert split.hostname == parts.host
    assert (split.port or {"http": 80, "https": 443}[split.scheme]) == parts.port
    assert (other.scheme, other.host) == (parts.scheme, parts.host)
    # httpx resolves `.` and `..` and percent-encodes more; that is neither needed nor asked for
    if "/." not in parts.path:
        assert other.netloc.decode() == parts.authority
