"""Rules that a client can leave for laxer ones by what it chooses: the method, a trailing slash, a header, a parameter.

Precedence is what it is, and each of these may be meant; an operator who did not mean it should not learn it from others.
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import cache

from ext_authz.policy.finding import Finding, described, named, path_key, warning
from ext_authz.policy.model import METHODS, PathType
from ext_authz.policy.route_table import Candidate, RouteTable
from ext_authz.policy.sample import sample_of, winner_of
from ext_authz.policy.strictness import asks_less

__all__ = ["escapes_of"]

_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})  # RFC 9110 §9.2.1


def escapes_of(table: RouteTable) -> Iterator[Finding]:
    """Every way out of a rule of `table` that a client could take."""
    requirements = [candidate.rule.requirements for candidate in table.candidates]
    if all(one == requirements[0] for one in requirements):
        return
    for check in (_slash_escapes, _method_escapes, _condition_escapes):
        yield from check(table)


def _slash_escapes(table: RouteTable) -> Iterator[Finding]:
    """Whole paths that an upstream may serve with a trailing `/` as well, which another rule decides."""
    for candidate in table.candidates:
        if candidate.match.path.type not in {PathType.EXACT, PathType.TEMPLATE} or candidate.rule.public:
            continue
        sample = sample_of(candidate.match, suffix="/")
        if sample is None or sample.path.partition("?")[0].endswith("//"):
            continue
        winner = winner_of(table, sample)
        if winner is None or winner.rule.requirements == candidate.rule.requirements:
            continue
        # a whole path is rarely meant without its other form; a template may well have a stricter prefix around it
        if candidate.match.path.type is PathType.EXACT or asks_less(winner.rule, candidate.rule):
            yield warning(
                candidate,
                f"`{candidate.match.path.value}/` is another path and falls under {named(winner)}, which requires "
                "something else; if the upstream serves both alike, add it as a second match",
            )


def _method_escapes(table: RouteTable) -> Iterator[Finding]:
    """Rules for some methods whose paths fall under a laxer rule with another method."""
    laxer = cache(asks_less)
    for candidate in table.candidates:
        sample = None if candidate.method is None or candidate.rule.public else sample_of(candidate.match)
        if sample is None:
            continue
        found: dict[str, list[str]] = {}
        for method in METHODS:
            winner = winner_of(table, sample._replace(method=method))
            if winner is not None and laxer(winner.rule, candidate.rule) and not _is_meant(winner, candidate, method):
                found.setdefault(named(winner), []).append(f"`{method}`")
        for name, methods in found.items():
            yield warning(
                candidate,
                f"{described(candidate.match)} is protected, and with {', '.join(methods)} the path falls under {name}, "
                "which asks for less; name these methods too, or leave the method out",
            )


def _is_meant(winner: Candidate, candidate: Candidate, method: str) -> bool:
    """Whether the laxer rule for `method` is plainly what the operator wanted."""
    if method in _SAFE and candidate.method not in _SAFE:
        # to read is commonly allowed to more callers than to change
        return True
    if winner.method is None:
        return False
    # the method is written down: for this very path, for a preflight, or for callers who are asked for something
    return path_key(winner.match) == path_key(candidate.match) or method == "OPTIONS" or not winner.rule.public


def _condition_escapes(table: RouteTable) -> Iterator[Finding]:
    """Rules with conditions on headers or parameters beside rules of another strictness for the same path."""
    for candidate in table.candidates:
        if candidate.condition is None:
            continue
        sample = sample_of(replace(candidate.match, headers=(), query=()))
        winner = None if sample is None else winner_of(table, sample)
        if winner is None:
            continue
        if asks_less(winner.rule, candidate.rule):
            yield warning(
                candidate,
                f"a client that leaves out a header or parameter of {described(candidate.match)} falls under "
                f"{named(winner)}, which asks for less; ask for the same there, or drop the condition",
            )
        elif asks_less(candidate.rule, winner.rule):
            yield warning(
                candidate,
                f"a client that sends the headers and parameters of {described(candidate.match)} leaves {named(winner)}, "
                "which asks for more; a client chooses them, so ask for the same here",
            )
