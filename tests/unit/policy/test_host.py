import re

import pytest

from ext_authz.errors import Reason, Refusal
from ext_authz.policy.host import HostPattern, parse_host


@pytest.mark.parametrize(
    ("authority", "host"),
    [
        ("billing.example.com", "billing.example.com"),
        ("BILLING.Example.COM:8443", "billing.example.com"),
        ("localhost", "localhost"),
        ("my_service:80", "my_service"),
        ("10.0.0.1:8080", "10.0.0.1"),
        ("[::1]", "[::1]"),
        ("[2001:DB8:0:0::1]:443", "[2001:db8::1]"),
        ("xn--caf-dma.example", "xn--caf-dma.example"),
        ("a:00080", "a"),
        ("a.example:", "a.example"),
        ("[::1]:", "[::1]"),
    ],
)
def test_a_host_has_one_form(authority: str, host: str) -> None:
    assert parse_host(authority).name == host
    assert parse_host(host) == (host, False)


@pytest.mark.parametrize(
    "authority",
    [
        "",
        ":443",
        ".",
        "a..b",
        ".a",
        "a..",
        "billing.example.com.",
        "billing.example.com.:443",
        "-a.example",
        "a-.example",
        "user@a.example",
        "a.example:x",
        "a.example:65536",
        "a.example:443:443",
        "a.example/x",
        "a.example,b.example",
        "a example",
        "a\n",
        "café.example",
        "a%2eexample",
        "[::1",
        "[::1]x",
        "[::g]",
        "[fe80::1%25eth0]",
        "[1.2.3.4]",
        "::1",
        "*",
        "*.example.com",
        "a" * 64,
        ".".join(["a" * 63] * 4),
        "\u0661.example",
    ],
)
def test_a_malformed_host_is_refused(authority: str) -> None:
    with pytest.raises(Refusal) as refusal:
        parse_host(authority)
    assert refusal.value.reason is Reason.HOST_MALFORMED


@pytest.mark.parametrize(
    ("authority", "has_port"),
    [("a.example", False), ("a.example:80", True), ("a.example:", True), ("[::1]", False), ("[::1]:80", True)],
)
def test_a_port_is_left_out_and_not_forgotten(authority: str, has_port: bool) -> None:
    assert parse_host(authority).has_port is has_port


@pytest.mark.parametrize(
    ("pattern", "host", "matches"),
    [
        ("a.example", "a.example", True),
        ("a.example", "b.a.example", False),
        ("*.example.com", "a.example.com", True),
        ("*.example.com", "a.b.example.com", True),
        ("*.example.com", "example.com", False),
        ("*.example.com", "aexample.com", False),
        ("*.example.com", "a.example.com.evil.example", False),
    ],
)
def test_a_wildcard_stands_for_one_or_more_labels(pattern: str, host: str, matches: bool) -> None:
    assert HostPattern(pattern).matches(host) is matches
    assert HostPattern(pattern).is_exact is not pattern.startswith("*")


@pytest.mark.parametrize(
    ("pattern", "advice"),
    [
        ("*", "leave the field out"),
        ("*.*", "leave the field out"),
        ("a.*.example", "write `billing.example.com`"),
        ("*example.com", "write `billing.example.com`"),
        ("", "write `billing.example.com`"),
        ("A.example", "write `a.example`"),
        ("a.example:443", "write `a.example`"),
        ("a.example.", "write `a.example`"),
        ("*.[::1]", "wildcard before an address"),
    ],
)
def test_a_pattern_that_no_host_matches_says_what_to_write(pattern: str, advice: str) -> None:
    with pytest.raises(ValueError, match=re.escape(advice)):
        HostPattern(pattern)
