import pytest

from ext_authz.errors import Reason, Refusal
from ext_authz.policy.query import parse_query

NAMES = frozenset({"a", "b c"})


@pytest.mark.parametrize(
    ("query", "values"),
    [
        ("", {}),
        ("a=1", {"a": "1"}),
        ("a", {"a": ""}),
        ("%61=%31", {"a": "1"}),
        ("b+c=x+y", {"b c": "x y"}),
        ("b%20c=%2B", {"b c": "+"}),
        ("z=1&a=2&&y", {"a": "2"}),
        ("a=1&a=1", {"a": "1"}),
        ("z=1&z=2", {}),
        ("a=1=2", {"a": "1=2"}),
    ],
)
def test_only_the_names_asked_for_are_read(query: str, values: dict[str, str]) -> None:
    assert parse_query(query, NAMES) == values


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("a=1&a=2", Reason.PATH_AMBIGUOUS),
        ("a=1&%61=2", Reason.PATH_AMBIGUOUS),
        ("x=1;a=2", Reason.PATH_AMBIGUOUS),
        ("a=%", Reason.PATH_MALFORMED),
        ("z=%zz", Reason.PATH_MALFORMED),
        ("a=%ff", Reason.PATH_MALFORMED),
        ("%ff=1", Reason.PATH_MALFORMED),
    ],
)
def test_a_query_with_two_readings_is_refused(query: str, reason: Reason) -> None:
    with pytest.raises(Refusal) as refusal:
        parse_query(query, NAMES)
    assert refusal.value.reason is reason
