"""A rule made ready at load: what the authorizer asks of it for one request."""

from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import NamedTuple

from ext_authz.decision import Mutations
from ext_authz.facts import RequestFacts
from ext_authz.policy.attributes import Context
from ext_authz.policy.conditions import PrincipalCheck, peer_check, source_check, token_check
from ext_authz.policy.model import Rule
from ext_authz.policy.mutations import CompiledInjection
from ext_authz.policy.path import CanonicalPath
from ext_authz.policy.requirements import Requirement, resolve_binding
from ext_authz.principal import JsonValue, Principals
from ext_authz.requirement import BindingRequirement

__all__ = ["CompiledRule", "Selection"]

_NOTHING: Mapping[str, JsonValue] = MappingProxyType({})


class CompiledRule:
    """One rule at one destination.

    Attributes:
        policy: name of the policy.
        name: of the rule.
        public: nothing about the caller is looked at.
        needs_peer: the peer is looked at: a peer is required, or a token, which is bound to one.
        needs_token: a token is required.
        binding: how the token must be bound; None exactly when no token is looked at.
        challenge_scopes: what to name in an `insufficient_scope` challenge, enough to pass (RFC 6750 §3).
    """

    __slots__ = (
        "_depends_on_request",
        "_injection",
        "_principal_checks",
        "_source_checks",
        "binding",
        "challenge_scopes",
        "name",
        "needs_peer",
        "needs_token",
        "policy",
        "public",
        "requirements",
    )

    def __init__(self, policy: str, rule: Rule, injection: CompiledInjection) -> None:
        """Compile `rule` of `policy`; `injection` is the rule's, compiled for the destination."""
        self.policy = policy
        self.name = rule.name
        self.public = rule.public
        self.requirements = rule.requirements
        self.needs_token = any(requirement.token is not None for requirement in rule.requirements)
        self.needs_peer = self.needs_token or any(requirement.peer is not None for requirement in rule.requirements)
        self.binding = _shared_binding(resolve_binding(rule.requirements))
        self.challenge_scopes = _challenge_scopes(rule.requirements)
        self._source_checks = tuple(
            source_check(requirement.source_ips) for requirement in rule.requirements if requirement.source_ips
        )
        # who is on the connection comes before what was presented on it
        self._principal_checks = _shared_checks(
            (
                *(peer_check(requirement.peer) for requirement in rule.requirements if requirement.peer is not None),
                *(token_check(requirement.token) for requirement in rule.requirements if requirement.token is not None),
            )
        )
        self._injection = injection
        self._depends_on_request = injection.depends_on_request

    def check_source(self, facts: RequestFacts) -> None:
        """Raises Refusal SOURCE_IP_NOT_ALLOWED. Costs nothing to know, so it comes before any credential is read."""
        for check in self._source_checks:
            check(facts.source_address)

    def check(self, principals: Principals) -> None:
        """Raises the Refusal of the first requirement on peer or token that does not hold.

        The binding is not checked here (see `token.binding`).
        """
        for check in self._principal_checks:
            check(principals)

    def answers_alike(self, facts: RequestFacts) -> bool:
        """Whether the answer to this request is the one to any other of the same peer and token that this holds for."""
        return not (self._depends_on_request or facts.headers.has_other_dashes)

    def mutations(self, selection: "Selection", facts: RequestFacts, principals: Principals) -> Mutations:
        """What to change on the allowed request. Raises Refusal INJECTION_NOT_POSSIBLE."""
        return self._injection.mutations(_context(selection, facts, principals))

    def dynamic_metadata(
        self, selection: "Selection", facts: RequestFacts, principals: Principals
    ) -> Mapping[str, JsonValue]:
        """What to hand to Envoy's log and later filters. Raises Refusal INJECTION_NOT_POSSIBLE."""
        if not self._injection.has_metadata:
            return _NOTHING
        return self._injection.dynamic_metadata(_context(selection, facts, principals))


class Selection(NamedTuple):
    """The rule that decides a request, and the request as the rule saw it.

    Attributes:
        rule: the one that won.
        path: canonical.
        host: canonical.
        variables: of the Template that matched, decoded.
    """

    rule: CompiledRule
    path: CanonicalPath
    host: str
    variables: Mapping[str, str]


# among thousands of rules a decision costs what it touches, and what all rules share stays in the processor's cache
@lru_cache(maxsize=1024)
def _shared_binding(binding: BindingRequirement | None) -> BindingRequirement | None:
    return binding


@lru_cache(maxsize=1024)
def _shared_checks(checks: tuple[PrincipalCheck, ...]) -> tuple[PrincipalCheck, ...]:
    return checks


def _context(selection: Selection, facts: RequestFacts, principals: Principals) -> Context:
    path = selection.path
    return Context(facts, principals, path.text, path.query, selection.host, selection.variables)


def _challenge_scopes(requirements: tuple[Requirement, ...]) -> tuple[str, ...]:
    scopes: dict[str, None] = {}
    for requirement in requirements:
        if requirement.token is not None:
            wanted = requirement.token.scopes
            scopes.update(dict.fromkeys(wanted.all))
            if scopes.keys().isdisjoint(wanted.any):
                # one of them is enough; the first as written is the operator's preference
                scopes.update(dict.fromkeys(wanted.any[:1]))
    return tuple(scopes)
