"""Attack lines 38 to 44: what two parsers could read differently has no reading here."""

import pytest

from ext_authz.errors import Reason, Refusal
from ext_authz.policy.path import MAX_PATH_LENGTH, Leniency, canonicalise, leniencies_from


@pytest.mark.parametrize(
    ("path", "text", "segments", "query"),
    [
        ("/", "/", (), ""),
        ("/a", "/a", ("a",), ""),
        ("/a/", "/a/", ("a", ""), ""),
        ("/a/b?x=1&y=/../", "/a/b", ("a", "b"), "x=1&y=/../"),
        ("/?", "/", (), ""),
        ("/a%20b", "/a%20b", ("a b",), ""),
        ("/%61", "/a", ("a",), ""),
        ("/caf%c3%a9", "/caf%C3%A9", ("café",), ""),
        ("/a|b", "/a%7Cb", ("a|b",), ""),
        ("/100%25", "/100%25", ("100%",), ""),
        ("/a%3Fb%23c", "/a%3Fb%23c", ("a?b#c",), ""),
        ("/.well-known/x", "/.well-known/x", (".well-known", "x"), ""),
        ("/.../x", "/.../x", ("...", "x"), ""),
        ("/a:b@c,d=e+f", "/a:b@c,d=e+f", ("a:b@c,d=e+f",), ""),
    ],
)
def test_a_plain_path_has_one_reading(path: str, text: str, segments: tuple[str, ...], query: str) -> None:
    assert canonicalise(path) == (text, segments, query)


@pytest.mark.parametrize(
    "path",
    [
        pytest.param("/public/../admin", id="dot segments"),
        pytest.param("/%2e%2e/admin", id="encoded dot segments"),
        pytest.param("/.%2e/admin", id="half encoded dot segment"),
        pytest.param("/./admin", id="single dot"),
        pytest.param("/admin/.", id="trailing dot"),
        pytest.param("/admin/..", id="trailing dots"),
        pytest.param("//admin", id="empty segment first"),
        pytest.param("/admin//", id="empty segment last"),
        pytest.param("/a//b", id="empty segment between"),
        pytest.param("/a\\b", id="backslash"),
        pytest.param("/a%5cb", id="encoded backslash"),
        pytest.param("/a%5Cb", id="encoded backslash in capitals"),
        pytest.param("/a%2fb", id="encoded slash"),
        pytest.param("/a%2Fb", id="encoded slash in capitals"),
        pytest.param("/a%252fb", id="encoded twice"),
        pytest.param("/a%25%32%66b", id="encoded twice in pieces"),
        pytest.param("/a%2541", id="a letter encoded twice"),
        pytest.param("/admin;x=1", id="parameter"),
        pytest.param("/public/..;x/admin", id="dot segment with parameter"),
        pytest.param("/admin%3bx", id="encoded parameter"),
        pytest.param("/%00", id="encoded NUL"),
        pytest.param("/a\x00b", id="raw NUL"),
        pytest.param("/a%0d%0ab", id="encoded CRLF"),
        pytest.param("/a\r\nb", id="raw CRLF"),
        pytest.param("/%7f", id="delete"),
        pytest.param("/%c2%85", id="C1 control"),
        pytest.param("/a b", id="space"),
        pytest.param("/a\tb", id="tab"),
        pytest.param("/caf\u00e9", id="raw non-ASCII"),
        pytest.param("/\ud800", id="lone surrogate"),
        pytest.param("/%c0%af", id="overlong slash"),
        pytest.param("/%ff", id="not UTF-8"),
        pytest.param("/%ed%a0%80", id="encoded surrogate"),
        pytest.param("/%", id="bare percent"),
        pytest.param("/%4", id="half percent"),
        pytest.param("/%u0041", id="percent u"),
        pytest.param("/a#b", id="fragment"),
        pytest.param("/a?b#c", id="fragment after the query"),
        pytest.param("/a?b c", id="space in the query"),
        pytest.param("/a?b\x00", id="NUL in the query"),
        pytest.param("*", id="asterisk form"),
        pytest.param("", id="empty"),
        pytest.param("?x", id="only a query"),
        pytest.param("http://other.example.com/admin", id="absolute form"),
        pytest.param("other.example.com:443", id="authority form"),
        pytest.param("admin", id="relative"),
        pytest.param("/" + "a" * MAX_PATH_LENGTH, id="too long"),
        pytest.param("/" + "%61" * MAX_PATH_LENGTH, id="too long in percents"),
    ],
)
def test_a_path_with_two_readings_is_refused(path: str) -> None:
    with pytest.raises(Refusal) as refusal:
        canonicalise(path)
    assert refusal.value.reason is Reason.PATH_MALFORMED


@pytest.mark.parametrize(
    ("leniency", "path", "segments"),
    [
        (Leniency.MERGE_SLASHES, "//admin", ("admin",)),
        (Leniency.MERGE_SLASHES, "/admin//", ("admin", "")),
        (Leniency.MERGE_SLASHES, "/a///b", ("a", "b")),
        (Leniency.MERGE_SLASHES, "//", ()),
        (Leniency.ALLOW_PATH_PARAMETERS, "/admin;x=1/y;z", ("admin", "y")),
        (Leniency.ALLOW_PATH_PARAMETERS, "/admin%3bx", ("admin",)),
        (Leniency.ALLOW_ENCODED_SLASH, "/a%2fb/c", ("a/b", "c")),
        (Leniency.RESOLVE_DOT_SEGMENTS, "/a/../b", ("b",)),
        (Leniency.RESOLVE_DOT_SEGMENTS, "/a/%2e%2E/b", ("b",)),
        (Leniency.RESOLVE_DOT_SEGMENTS, "/a/b/.", ("a", "b", "")),
        (Leniency.RESOLVE_DOT_SEGMENTS, "/a/b/..", ("a", "")),
        (Leniency.RESOLVE_DOT_SEGMENTS, "/a/..", ()),
        (Leniency.RESOLVE_DOT_SEGMENTS, "/./a", ("a",)),
        (Leniency.ALLOW_DOUBLE_ENCODING, "/a%252fb", ("a%2fb",)),
    ],
)
def test_a_leniency_accepts_what_it_names(leniency: Leniency, path: str, segments: tuple[str, ...]) -> None:
    canonical = canonicalise(path, frozenset({leniency}))
    assert canonical.segments == segments
    assert canonicalise(canonical.text, frozenset({leniency})) == canonical
    for other in set(Leniency) - {leniency}:
        with pytest.raises(Refusal):
            canonicalise(path, frozenset({other}))


@pytest.mark.parametrize(
    "path",
    [
        "/../admin",
        "/a/../../admin",
        "/a//../admin",
        "/public/..%2fadmin",
        "/public%2f..%2fadmin",
        "/a%2f",
        "/a%2f..;x%2fb",
        "/a%2f%2fb",
        "/;x/admin",
        "/a\\b",
        "/a%5cb",
        "/%00",
        "/%ff",
        "/a#b",
    ],
)
def test_what_has_no_single_reading_is_refused_under_every_leniency(path: str) -> None:
    with pytest.raises(Refusal):
        canonicalise(path, frozenset(Leniency))


def test_a_dot_segment_behind_a_parameter_is_a_dot_segment() -> None:
    only_parameters = frozenset({Leniency.ALLOW_PATH_PARAMETERS})
    with pytest.raises(Refusal):
        canonicalise("/public/..;x/admin", only_parameters)
    both = only_parameters | {Leniency.RESOLVE_DOT_SEGMENTS}
    assert canonicalise("/public/..;x/admin", both).segments == ("admin",)


def test_leniencies_are_read_by_name() -> None:
    assert leniencies_from(["merge_slashes"]) == {Leniency.MERGE_SLASHES}
    with pytest.raises(ValueError, match="no leniency `merge`; write one of allow_double_encoding, "):
        leniencies_from(["merge"])
