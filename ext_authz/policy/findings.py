"""What is questionable about policies that are each valid: found at load, told with what to do about it."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias
from urllib.parse import quote, urlencode

from ext_authz.errors import Refusal
from ext_authz.facts import Headers, RequestFacts
from ext_authz.policy.destination import Destination
from ext_authz.policy.expression import compile_expression
from ext_authz.policy.model import METHODS, PathType, RouteMatch, ValueMatchType
from ext_authz.policy.path import canonicalise
from ext_authz.policy.requirements import Requirement
from ext_authz.policy.route_table import Candidate, RouteTable

__all__ = ["Finding", "Severity", "findings_of"]

_PathKey: TypeAlias = tuple[PathType, tuple[str | None, ...], str]


class Severity(StrEnum):
    """ERROR: the policies must not be used. WARNING: probably not what was meant. INFO: good to know."""

    ERROR = "error"
    WARNING = "warning"
    INFO = "info"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing found.

    Attributes:
        severity: what to do with it.
        policy: name.
        rule: name, or None when it concerns the whole policy.
        text: what is wrong and what to write instead.
    """

    severity: Severity
    policy: str
    rule: str | None
    text: str


def findings_of(destinations: tuple[Destination, ...], *, strict: bool) -> tuple[Finding, ...]:
    """Everything found, each once, errors first and otherwise by policy and rule."""
    exploitable = Severity.ERROR if strict else Severity.WARNING
    found = {
        *_uncounted(destinations, exploitable),
        *_unordered_targets(destinations, exploitable),
        *(finding for one in destinations for finding in _different_strictness(one, exploitable)),
        *(
            finding
            for one in destinations
            for table in one.tables.values()
            for check in (_ties, _never_winning, _shadowed, _slash_escapes)
            for finding in check(table)
        ),
    }
    ranks = list(Severity)
    return tuple(sorted(found, key=lambda one: (ranks.index(one.severity), one.policy, one.rule or "", one.text)))


def _uncounted(destinations: tuple[Destination, ...], severity: Severity) -> Iterator[Finding]:
    """Policies without targets beside policies with some."""
    targeted = [one for one in destinations if one.target is not None]
    names = sorted({policy.name for one in targeted for policy in one.policies})
    by_identity = sorted({one.name for other in targeted if other.names_workloads for one in other.policies})
    for destination in destinations:
        if destination.target is not None:
            continue
        for policy in destination.policies:
            if by_identity:
                yield Finding(
                    severity,
                    policy.name,
                    None,
                    f"it has no `targets`, and {_listed(by_identity)} names destinations by `destination_principal`: it "
                    "counts at every workload that no policy names, and nowhere without TLS, where a destination shows no "
                    "identity; write where it is meant: `targets: [{destination_principal: none}]` for destinations "
                    "without one, else `context_extensions` or `sni`",
                )
            elif names:
                yield Finding(
                    Severity.INFO,
                    policy.name,
                    None,
                    f"it has no `targets` and does not count where {_listed(names)} names the destination; "
                    "if it should, give it that target",
                )


def _unordered_targets(destinations: tuple[Destination, ...], severity: Severity) -> Iterator[Finding]:
    """Targets with different context extensions of which one request can meet both, and neither is more specific."""
    first: dict[object, tuple[tuple[str, ...], str]] = {}
    for destination in sorted(destinations, key=lambda one: one.policies[0].name):
        if destination.target is None:
            continue
        names, policy = destination.target.extension_names, destination.policies[0].name
        other_names, other = first.setdefault(destination.target.specificity, (names, policy))
        if names != other_names:
            yield Finding(
                severity,
                policy,
                None,
                f"a destination with both {_listed(names)} and {_listed(other_names)} meets its target and that of "
                f"`{other}`, and neither is more specific; name the same `context_extensions` in both targets",
            )


def _ties(table: RouteTable) -> Iterator[Finding]:
    seen: dict[object, Candidate] = {}
    for candidate in sorted(table.candidates, key=lambda one: one.order):
        match = candidate.match
        key = (_path_key(match), match.method, frozenset(match.headers), frozenset(match.query))
        other = seen.setdefault(key, candidate)
        if other.rule is not candidate.rule:
            yield Finding(
                Severity.ERROR,
                candidate.rule.policy,
                candidate.rule.name,
                f"it matches the same requests as {_named(other)} ({_described(match)}); "
                "remove one, or make one match more specific",
            )
        elif other is not candidate:
            yield _warning(candidate, f"it has the match {_described(match)} twice; remove one")


def _never_winning(table: RouteTable) -> Iterator[Finding]:
    methods: dict[_PathKey, set[str]] = {}
    for candidate in table.candidates:
        if candidate.method is not None and candidate.condition is None:
            methods.setdefault(_path_key(candidate.match), set()).add(candidate.method)
    for candidate in table.candidates:
        if candidate.method is None and len(methods.get(_path_key(candidate.match), ())) == len(METHODS):
            yield _warning(
                candidate,
                f"{_described(candidate.match)} never wins: other matches of the same path name every method; remove it",
            )


def _shadowed(table: RouteTable) -> Iterator[Finding]:
    """Prefixes of which an expression takes everything: it precedes every prefix, however short the expression."""
    expressions = [
        (compile_expression(one.match.path.value), one)
        for one in table.candidates
        if one.match.path.type is PathType.REGULAR_EXPRESSION and one.condition is None
    ]
    for candidate in table.candidates:
        if candidate.match.path.type is not PathType.PATH_PREFIX:
            continue
        base = "/" + "/".join(segment for segment in candidate.match.path.segments if segment is not None)
        below = base.rstrip("/")
        for matches, other in expressions:
            if other.method in {None, candidate.method} and all(
                matches(path) for path in (base, f"{below}/", f"{below}/sample", f"{below}/sample/sample")
            ):
                yield _warning(
                    candidate,
                    f"the expression of {_named(other)} takes what {_described(candidate.match)} matches, because "
                    "expressions precede prefixes; narrow the expression or write it as a PathPrefix",
                )


def _slash_escapes(table: RouteTable) -> Iterator[Finding]:
    """Exact paths that an upstream may serve with a trailing `/` as well, which another rule decides."""
    for candidate in table.candidates:
        if candidate.match.path.type is not PathType.EXACT or candidate.rule.public:
            continue
        sample = _sample(candidate.match, suffix="/")
        if sample is None or sample.path.partition("?")[0].endswith("//"):
            continue
        winner = _winner(table, sample)
        if winner is not None and winner.rule.requirements != candidate.rule.requirements:
            yield _warning(
                candidate,
                f"`{candidate.match.path.value}/` is another path and falls under {_named(winner)}, which requires "
                "something else; if the upstream serves both alike, add it as a second match",
            )


def _different_strictness(destination: Destination, severity: Severity) -> Iterator[Finding]:
    """Requests that another Host would bring under other requirements at the same workload."""
    if destination.routed_by_host or destination.is_bound_to_sni:
        return
    (first_host, first), *others = sorted(destination.tables.items(), key=lambda item: item[0] or "")
    for host, table in others:
        for candidate in sorted((*first.candidates, *table.candidates), key=lambda one: one.order):
            one, other = _verdict(first, candidate), _verdict(table, candidate)
            if one != other:
                yield Finding(
                    severity,
                    candidate.rule.policy,
                    candidate.rule.name,
                    f"a client can send either {_host(first_host)} or {_host(host)} to the same destination, and "
                    f"{_described(candidate.match)} requires something else under each; require the same, or, where "
                    "the proxy routes by Host, write `routed_by_host: true` on the target",
                )
                break


_Verdict: TypeAlias = tuple[bool, tuple[Requirement, ...]] | None


def _verdict(table: RouteTable, candidate: Candidate) -> _Verdict:
    """What a request that `candidate` matches must show under `table`; None for a denial."""
    sample = _sample(candidate.match)
    if sample is not None:
        winner = _winner(table, sample)
    else:
        # no request can be made up for an expression: only the same expression decides alike for certain
        key = (_path_key(candidate.match), candidate.match.method, candidate.match.headers, candidate.match.query)
        winner = next(
            (
                one
                for one in table.candidates
                if (_path_key(one.match), one.match.method, one.match.headers, one.match.query) == key
            ),
            None,
        )
    return None if winner is None else (winner.rule.public, winner.rule.requirements)


def _winner(table: RouteTable, sample: RequestFacts) -> Candidate | None:
    try:
        return table.find(canonicalise(sample.path), sample)
    except Refusal:
        return None


def _sample(match: RouteMatch, suffix: str = "") -> RequestFacts | None:
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


def _path_key(match: RouteMatch) -> _PathKey:
    """Equal for paths that match the same requests, whatever a template calls its variables."""
    path = match.path
    return path.type, path.segments, path.value if path.type is PathType.REGULAR_EXPRESSION else ""


def _warning(candidate: Candidate, text: str) -> Finding:
    return Finding(Severity.WARNING, candidate.rule.policy, candidate.rule.name, text)


def _named(candidate: Candidate) -> str:
    return f"rule `{candidate.rule.name}` of policy `{candidate.rule.policy}`"


def _described(match: RouteMatch) -> str:
    return f"{match.method or 'any method'} {match.path.type} `{match.path.value}`"


def _host(hostname: str | None) -> str:
    return "any other Host" if hostname is None else f"Host `{hostname}`"


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names) or "no `context_extensions`"
