"""A policy as values, valid by construction; what is written in YAML becomes this and nothing else decides.

Every ValueError text says what is wrong and what to write instead; the configuration adds the place in the file.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from ext_authz.policy.expression import compile_expression
from ext_authz.policy.header_name import METHOD_OVERRIDE_HEADERS, check_header_name
from ext_authz.policy.host import HostPattern
from ext_authz.policy.injection import Injection
from ext_authz.policy.path_match import PathMatch, PathType
from ext_authz.policy.requirements import Requirement, resolve_binding
from ext_authz.policy.spiffe_pattern import SpiffePattern

__all__ = [
    "METHODS",
    "NO_PRINCIPAL",
    "HeaderMatch",
    "Injection",
    "PathMatch",
    "PathType",
    "QueryMatch",
    "RouteMatch",
    "RoutePolicy",
    "Rule",
    "Target",
    "ValueMatchType",
]

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,251}[a-z0-9])?")
METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH")
"""RFC 9110 §9.3 without CONNECT and TRACE, which are always denied, and PATCH (RFC 5789)."""
NO_PRINCIPAL: Final = "none"
"""In a target: the destination shows no identity, as on every connection without TLS."""


class ValueMatchType(StrEnum):
    """How a header's or query parameter's value is compared."""

    EXACT = "Exact"
    REGULAR_EXPRESSION = "RegularExpression"


@dataclass(frozen=True, slots=True)
class HeaderMatch:
    """One condition on a request header; several on one match must all hold.

    Attributes:
        name: lowercase.
        value: the whole value; for RegularExpression an RE2 expression that must match the whole value.
        type: how `value` is compared.
    """

    name: str
    value: str
    type: ValueMatchType = ValueMatchType.EXACT

    def __post_init__(self) -> None:
        """Refuse names and expressions that match nothing."""
        check_header_name(self.name)
        if self.name in METHOD_OVERRIDE_HEADERS:
            raise ValueError(f"the header `{self.name}` is never believed; write `method`")
        if self.type is ValueMatchType.REGULAR_EXPRESSION:
            compile_expression(self.value)


@dataclass(frozen=True, slots=True)
class QueryMatch:
    """One condition on a query parameter; several must all hold. One that a request gives two values is refused.

    Attributes:
        name: compared exactly, after percent-decoding.
        value: as in `HeaderMatch`, after percent-decoding.
        type: how `value` is compared.
    """

    name: str
    value: str
    type: ValueMatchType = ValueMatchType.EXACT

    def __post_init__(self) -> None:
        """Refuse expressions that match nothing and a parameter without a name."""
        if not self.name:
            raise ValueError("the query parameter has no name; write `name`")
        if self.type is ValueMatchType.REGULAR_EXPRESSION:
            compile_expression(self.value)


@dataclass(frozen=True, slots=True)
class RouteMatch:
    """What a request must look like; everything given must hold.

    Attributes:
        path: every path when not given.
        method: one method, uppercase; None for any supported method.
        headers: all must hold; names are unique.
        query: all must hold; names are unique.
    """

    path: PathMatch = field(default_factory=PathMatch)
    method: str | None = None
    headers: tuple[HeaderMatch, ...] = ()
    query: tuple[QueryMatch, ...] = ()

    def __post_init__(self) -> None:
        """Refuse a method that is always denied and names given twice."""
        if self.method is not None and self.method not in METHODS:
            raise ValueError(f"the method `{self.method}` cannot be matched; write one of {', '.join(METHODS)}")
        for kind, names in (
            ("header", [m.name for m in self.headers]),
            ("query parameter", [m.name for m in self.query]),
        ):
            if len(set(names)) != len(names):
                raise ValueError(f"a {kind} is matched twice; write one condition for each name")


@dataclass(frozen=True, slots=True)
class Rule:
    """Which requests, what they need, what they get.

    Attributes:
        name: unique in its policy.
        matches: any one suffices.
        requirements: all must hold (see `requirements.resolve_requirements`); empty exactly when `public`.
        public: everyone may pass; nothing about the caller is looked at.
        injection: what to change on an allowed request.
    """

    name: str
    matches: tuple[RouteMatch, ...]
    requirements: tuple[Requirement, ...] = ()
    public: bool = False
    injection: Injection = field(default_factory=Injection)

    def __post_init__(self) -> None:
        """Refuse a rule that lets everyone pass without saying so, and one that nothing can match."""
        if not _NAME.fullmatch(self.name):
            raise ValueError(f"the rule name `{self.name}` is not lowercase letters, digits, `-`, `_` and `.`")
        if not self.matches:
            raise ValueError("the rule matches nothing; for every path write `matches: [{path: {value: /}}]`")
        if self.public and self.requirements:
            raise ValueError("the rule is public and has requirements; remove `public: true` or the requirements")
        if not self.public and (not self.requirements or Requirement() in self.requirements):
            raise ValueError("the rule requires nothing; write `public: true` if everyone may pass, else `require`")
        resolve_binding(self.requirements)
        self._check_references()

    def _check_references(self) -> None:
        takes_token = any(requirement.token is not None for requirement in self.requirements)
        takes_peer = takes_token or any(requirement.peer is not None for requirement in self.requirements)
        for reference in sorted(self.injection.references):
            root, _, name = reference.partition(".")
            if root == "token" and not takes_token:
                raise ValueError(
                    f"`${{{reference}}}` would always be absent: the rule takes no token; add `token: {{}}` to `require`"
                )
            if root == "peer" and not takes_peer:
                # where a token is taken its binding looks at the peer as well
                raise ValueError(
                    f"`${{{reference}}}` would always be absent: the rule takes no peer; add `peer: {{}}` to `require`"
                )
            if root == "path" and not all(name in dict(match.path.variables) for match in self.matches):
                raise ValueError(
                    f"`${{{reference}}}` would be absent: not every match is a Template with a variable `{name}`; "
                    f"write `type: Template` and `{{{name}}}` in each"
                )


@dataclass(frozen=True, slots=True)
class Target:
    """A destination, named by what the client cannot choose; everything given must hold.

    Attributes:
        destination_principal: the workload's own SPIFFE ID; `*` stands for one whole segment, a trailing `/**` for any
            depth; NO_PRINCIPAL for a destination that shows none.
        context_extensions: each of these must be there with this value.
        sni: the TLS server name, or `*.example.com`.
        routed_by_host: the operator states that the proxy routes by Host here, so that another Host means another
            workload. Only findings use it.
    """

    destination_principal: str | None = None
    context_extensions: Mapping[str, str] = field(default_factory=dict)
    sni: str | None = None
    routed_by_host: bool = False

    def __post_init__(self) -> None:
        """Refuse a target that names nothing."""
        if self.destination_principal is None and not self.context_extensions and self.sni is None:
            raise ValueError(
                "the target names no destination; write `destination_principal`, `context_extensions` or `sni`"
            )
        if self.names_workloads:
            SpiffePattern(str(self.destination_principal))
        if self.sni is not None:
            HostPattern(self.sni)
        object.__setattr__(self, "context_extensions", MappingProxyType(dict(self.context_extensions)))

    @property
    def names_workloads(self) -> bool:
        """Whether the destination is named by an identity, which it must show then."""
        return self.destination_principal not in {None, NO_PRINCIPAL}


@dataclass(frozen=True, slots=True)
class RoutePolicy:
    """Rules for the requests that go to some destinations under some host names.

    Attributes:
        name: unique among all policies.
        rules: in any order; order never decides.
        targets: any one suffices; empty for a gateway policy, which counts only where no policy names the destination, and,
            where any policy names workloads, only at destinations that show an identity.
        hostnames: `billing.example.com` or `*.example.com`; empty for any host.
    """

    name: str
    rules: tuple[Rule, ...]
    targets: tuple[Target, ...] = ()
    hostnames: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse a policy without rules and names given twice."""
        if not _NAME.fullmatch(self.name):
            raise ValueError(f"the policy name `{self.name}` is not lowercase letters, digits, `-`, `_` and `.`")
        if not self.rules:
            raise ValueError("the policy has no rules; write at least one, or remove the policy")
        names: set[str] = set()
        for rule in self.rules:
            if rule.name in names:
                raise ValueError(f"two rules are called `{rule.name}`; give each its own name")
            names.add(rule.name)
        for hostname in self.hostnames:
            HostPattern(hostname)
