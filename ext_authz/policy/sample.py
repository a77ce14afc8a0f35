"""Requests made up from matches, to see at load which rule would decide them."""

from urllib.parse import quote, urlencode

from ext_authz.errors import Refusal
from ext_authz.facts import Headers, RequestFacts
from ext_authz.policy.model import PathType, RouteMatch, ValueMatchType
from ext_authz.policy.path import canonicalise
from ext_authz.policy.route_table import Candidate, RouteTable

__all__ = ["sample_of", "winner_of"]


def winner_of(table: RouteTable, sample: RequestFacts) -> Candidate | None:
    """What decides `sample` under `table`; None when nothing does, or it is refused."""
    try:
        return table.find(canonicalise(sample.path), sample)
    except Refusal:
        return None


def sample_of(match: RouteMatch, suffix: str = "") -> RequestFacts | None:
    """A request that `match` matches; None when that takes the inversion of an expression."""
    types = [header.type for header in match.headers] + [parameter.type for parameter in match.query]
    if match.path.type is PathType.REGULAR_EXPRESSION or ValueMatchType.REGULAR_EXPRESSION in types:
        return None
    path = "/" + "/".join("sample" if segment is None else quote(segment, safe="") for segment in match.path.segments)
    query = urlencode([(one.name, one.value) for one in match.query])
    return RequestFacts(
        method=match.method or "GET",
        path=f"{path}{suffix}?{query}",
        host="",
        headers=Headers.merged({one.name: one.value for one in match.headers}),
    )
