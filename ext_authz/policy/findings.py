"""What is questionable about policies that are each valid: found at load, told with what to do about it."""

from collections.abc import Iterable, Iterator
from typing import TypeAlias

from ext_authz.policy.destination import Destination
from ext_authz.policy.escapes import escapes_of
from ext_authz.policy.expression import compile_expression
from ext_authz.policy.finding import Finding, PathKey, Severity, described, named, path_key, warning
from ext_authz.policy.model import METHODS, PathType
from ext_authz.policy.requirements import Requirement
from ext_authz.policy.route_table import Candidate, RouteTable
from ext_authz.policy.sample import sample_of, winner_of

__all__ = ["Finding", "Severity", "findings_of"]


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
            for check in (_ties, _never_winning, _shadowed, escapes_of)
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
                    f"it has no `targets`, and policies ({_listed(by_identity)}) name destinations by `destination_principal`: it "
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
        key = (path_key(match), match.method, frozenset(match.headers), frozenset(match.query))
        other = seen.setdefault(key, candidate)
        if other.rule is not candidate.rule:
            yield Finding(
                Severity.ERROR,
                candidate.rule.policy,
                candidate.rule.name,
                f"it matches the same requests as {named(other)} ({described(match)}); "
                "remove one, or make one match more specific",
            )
        elif other is not candidate:
            yield warning(candidate, f"it has the match {described(match)} twice; remove one")


def _never_winning(table: RouteTable) -> Iterator[Finding]:
    methods: dict[PathKey, set[str]] = {}
    for candidate in table.candidates:
        if candidate.method is not None and candidate.condition is None:
            methods.setdefault(path_key(candidate.match), set()).add(candidate.method)
    for candidate in table.candidates:
        if candidate.method is None and len(methods.get(path_key(candidate.match), ())) == len(METHODS):
            yield warning(
                candidate,
                f"{described(candidate.match)} never wins: other matches of the same path name every method; remove it",
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
                yield warning(
                    candidate,
                    f"the expression of {named(other)} takes what {described(candidate.match)} matches, because "
                    "expressions precede prefixes; narrow the expression or write it as a PathPrefix",
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
                    f"{described(candidate.match)} requires something else under each; require the same, or, where "
                    "the proxy routes by Host, write `routed_by_host: true` on the target",
                )
                break


_Verdict: TypeAlias = tuple[bool, tuple[Requirement, ...]] | None


def _verdict(table: RouteTable, candidate: Candidate) -> _Verdict:
    """What a request that `candidate` matches must show under `table`; None for a denial."""
    sample = sample_of(candidate.match)
    if sample is not None:
        winner = winner_of(table, sample)
    else:
        # no request can be made up for an expression: only the same expression decides alike for certain
        key = (path_key(candidate.match), candidate.match.method, candidate.match.headers, candidate.match.query)
        winner = next(
            (
                one
                for one in table.candidates
                if (path_key(one.match), one.match.method, one.match.headers, one.match.query) == key
            ),
            None,
        )
    return None if winner is None else (winner.rule.public, winner.rule.requirements)


def _host(hostname: str | None) -> str:
    return "any other Host" if hostname is None else f"Host `{hostname}`"


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names) or "no `context_extensions`"
