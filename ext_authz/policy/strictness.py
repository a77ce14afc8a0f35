"""Which of two rules asks for less: what findings compare. It never decides a request."""

from collections.abc import Iterable, Iterator
from typing import TypeAlias

from ext_authz.policy.compiled import CompiledRule
from ext_authz.policy.requirements import PeerRequirement, Requirement, TokenRequirement
from ext_authz.requirement import BindingMode

__all__ = ["asks_less"]

_Demand: TypeAlias = tuple[str, frozenset[str]]
"""What is asked for, and the values of which any one suffices; none where anything suffices."""


def asks_less(rule: CompiledRule, other: CompiledRule) -> bool:
    """Whether whoever may pass `other` may pass `rule`, and not the other way round.

    Two rules that ask for different things (one scope, another scope) are not comparable: neither asks for less.
    """
    if rule.requirements == other.requirements:
        return False
    one, two = frozenset(_demands(rule)), frozenset(_demands(other))
    return _implied(one, two) and not _implied(two, one)


def _implied(demands: Iterable[_Demand], given: frozenset[_Demand]) -> bool:
    return all(
        any(kind == given_kind and (not values or (bool(held) and held <= values)) for given_kind, held in given)
        for kind, values in demands
    )


def _demands(rule: CompiledRule) -> Iterator[_Demand]:
    for requirement in rule.requirements:
        yield from _of(requirement)
    if rule.binding is not None:
        yield "binding method", frozenset(rule.binding.accept)
        if rule.binding.mode is BindingMode.REQUIRED:
            yield "binding", frozenset()


def _of(requirement: Requirement) -> Iterator[_Demand]:
    if requirement.source_ips:
        yield "source", frozenset(requirement.source_ips)
    if requirement.peer is not None:
        yield from _of_peer(requirement.peer)
    if requirement.token is not None:
        yield from _of_token(requirement.token)


def _of_peer(peer: PeerRequirement) -> Iterator[_Demand]:
    yield "peer", frozenset()
    named = {
        "spiffe": peer.spiffe,
        "trust domain": peer.trust_domains,
        "namespace": peer.namespaces,
        "service account": peer.service_accounts,
    }
    yield from _named(named)


def _of_token(token: TokenRequirement) -> Iterator[_Demand]:
    yield "token", frozenset()
    scopes = {"scope": token.scopes.any}
    yield from _named({"issuer": token.issuers, "audience": token.audiences, "client": token.clients, **scopes})
    for scope in token.scopes.all:
        yield "scope", frozenset({scope})
    for claim in token.claims:
        # by their text: to Python `true` and `1` are equal
        yield f"claim {claim.path!r}", frozenset(map(repr, claim.one_of))


def _named(values: dict[str, tuple[str, ...]]) -> Iterator[_Demand]:
    for kind, names in values.items():
        if names:
            yield kind, frozenset(names)
