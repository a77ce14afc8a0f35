import pytest

from ext_authz.policy.spiffe_pattern import SpiffePattern


@pytest.mark.parametrize(
    ("pattern", "text", "matches"),
    [
        ("spiffe://a/ns/x/sa/y", "spiffe://a/ns/x/sa/y", True),
        ("spiffe://a/ns/x/sa/y", "spiffe://a/ns/x/sa/yy", False),
        ("spiffe://a/ns/x/sa/y", "spiffe://b/ns/x/sa/y", False),
        ("spiffe://a/ns/x/sa/*", "spiffe://a/ns/x/sa/y", True),
        ("spiffe://a/ns/x/sa/*", "spiffe://a/ns/x/sa/y/z", False),
        ("spiffe://a/ns/x/sa/*", "spiffe://a/ns/x/sa", False),
        ("spiffe://a/ns/*/sa/web", "spiffe://a/ns/x/sa/web", True),
        ("spiffe://a/ns/*/sa/web", "spiffe://a/ns/x/sb/web", False),
        ("spiffe://a/**", "spiffe://a/x", True),
        ("spiffe://a/**", "spiffe://a/x/y/z", True),
        ("spiffe://a/**", "spiffe://a", False),
        ("spiffe://a/**", "spiffe://ab/x", False),
        ("spiffe://a/ns/**", "spiffe://a/ns", False),
        ("spiffe://a/ns/*/**", "spiffe://a/ns/x/y", True),
        ("spiffe://a/ns/*/**", "spiffe://a/ns/x", False),
        ("spiffe://a.b/x", "spiffe://aXb/x", False),
        ("spiffe://a/x", "spiffe://a/x\n", False),
        ("spiffe://a", "spiffe://a", True),
    ],
)
def test_a_wildcard_stands_for_whole_segments(pattern: str, text: str, matches: bool) -> None:
    assert SpiffePattern(pattern).matches(text) is matches


@pytest.mark.parametrize(
    "pattern",
    [
        "",
        "*",
        "spiffe://",
        "spiffe://*/x",
        "spiffe://a/",
        "spiffe://a/x/",
        "spiffe://a//x",
        "spiffe://a/x*",
        "spiffe://a/**/x",
        "spiffe://a/../x",
        "SPIFFE://a/x",
        "a/ns/x/sa/y",
        "spiffe://a:80/x",
    ],
)
def test_a_pattern_that_is_none_says_what_to_write(pattern: str) -> None:
    with pytest.raises(ValueError, match=r"write `spiffe://trust\.domain/path`"):
        SpiffePattern(pattern)


def test_a_pattern_knows_whether_it_is_exact() -> None:
    assert SpiffePattern("spiffe://a/x").is_exact
    assert not SpiffePattern("spiffe://a/*").is_exact
    assert not SpiffePattern("spiffe://a/x/**").is_exact
