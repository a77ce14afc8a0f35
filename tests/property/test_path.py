"""Any text is a path with one reading, or a Refusal."""

from hypothesis import example, given
from hypothesis import strategies as st

from ext_authz.errors import Reason, Refusal
from ext_authz.policy.host import parse_host
from ext_authz.policy.path import CanonicalPath, Leniency, canonicalise
from ext_authz.policy.query import parse_query

PIECES = st.sampled_from(
    [
        "/",
        "//",
        ".",
        "..",
        "%2e",
        "%2F",
        "%5c",
        "%25",
        "%252f",
        ";",
        "a",
        "A",
        "?",
        "#",
        "%",
        "%c3%a9",
        "%c0",
        "\\",
        " ",
        "é",
    ]
)
PATHS = st.one_of(st.text(), st.lists(PIECES, max_size=12).map(lambda pieces: "/" + "".join(pieces)))
LENIENCIES = st.frozensets(st.sampled_from(Leniency))


def read(path: str, leniencies: frozenset[Leniency]) -> CanonicalPath | None:
    try:
        return canonicalise(path, leniencies)
    except Refusal as refusal:
        assert refusal.reason is Reason.PATH_MALFORMED  # noqa: PT017 - a property over both outcomes
        return None


@given(PATHS, LENIENCIES)
@example("/a%2f;/b", frozenset(Leniency))
@example("/%2e;/b", frozenset(Leniency))
def test_any_text_has_one_reading_or_none(path: str, leniencies: frozenset[Leniency]) -> None:
    canonical = read(path, leniencies)
    if canonical is None:
        return
    assert canonical.text.startswith("/")
    assert canonical.text.isascii()
    assert canonical.text.isprintable()
    assert {".", ".."}.isdisjoint(canonical.segments)
    assert "" not in canonical.segments[:-1]
    assert all(segment.isprintable() or not segment.isascii() for segment in canonical.segments)
    assert not any("\\" in segment or ";" in segment for segment in canonical.segments)
    if Leniency.ALLOW_ENCODED_SLASH not in leniencies:
        assert not any("/" in segment for segment in canonical.segments)


@given(PATHS, LENIENCIES)
def test_reading_a_canonical_path_changes_nothing(path: str, leniencies: frozenset[Leniency]) -> None:
    canonical = read(path, leniencies)
    if canonical is not None:
        assert read(canonical.text, leniencies) == canonical._replace(query="")


@given(PATHS, LENIENCIES)
def test_a_leniency_never_changes_the_reading_of_a_plain_path(path: str, leniencies: frozenset[Leniency]) -> None:
    plain = read(path, frozenset())
    if plain is not None:
        assert read(path, leniencies) == plain


@given(st.one_of(st.text(), st.text("aA.-_:[]0@*%", max_size=20)))
def test_any_text_is_a_host_with_one_form_or_none(authority: str) -> None:
    try:
        host = parse_host(authority).name
    except Refusal as refusal:
        assert refusal.reason is Reason.HOST_MALFORMED  # noqa: PT017 - a property over both outcomes
        return
    assert host == host.lower()
    assert parse_host(host) == (host, False)
    assert parse_host(f"{host}:443") == (host, True)


@given(st.one_of(st.text(), st.text("ab=&;%20+", max_size=20)))
def test_any_text_is_a_query_or_refused(query: str) -> None:
    try:
        values = parse_query(query, frozenset({"a", "b"}))
    except Refusal as refusal:
        assert refusal.reason in {Reason.PATH_AMBIGUOUS, Reason.PATH_MALFORMED}  # noqa: PT017 - a property over both outcomes
        return
    assert values.keys() <= {"a", "b"}
