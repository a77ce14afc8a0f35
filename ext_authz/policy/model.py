"""A policy as values, valid by construction; what is written in YAML becomes this and nothing else decides.

Every ValueError text says what is wrong and what to write instead; the configuration adds the place in the file.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from ext_authz.policy.requirements import Requirement, resolve_binding
from ext_authz.principal import JsonValue

__all__ = [
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
_METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH")
"""RFC 9110 §9.3 without CONNECT and TRACE, which are always denied, and PATCH (RFC 5789)."""


class PathType(StrEnum):
    """How a path is compared (Gateway API `HTTPPathMatch.type`, and templates)."""

    EXACT = "Exact"
    PATH_PREFIX = "PathPrefix"
    TEMPLATE = "Template"
    REGULAR_EXPRESSION = "RegularExpression"


class ValueMatchType(StrEnum):
    """How a header's or query parameter's value is compared."""

    EXACT = "Exact"
    REGULAR_EXPRESSION = "RegularExpression"


@dataclass(frozen=True, slots=True)
class PathMatch:
    """One condition on the path.

    Attributes:
        type: how `value` is compared with the canonical path.
        value: a path (`/orders`), a template (`/orders/{id}`, a variable is one whole segment) or an expression (RE2,
            matched against the whole decoded path).
    """

    type: PathType = PathType.PATH_PREFIX
    value: str = "/"

    def __post_init__(self) -> None:
        """Refuse a value that no request could match."""
        if self.type is not PathType.REGULAR_EXPRESSION and not self.value.startswith("/"):
            raise ValueError(f"the path `{self.value}` does not begin with `/`; write `/{self.value}`")


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


@dataclass(frozen=True, slots=True)
class QueryMatch:
    """One condition on a query parameter (first occurrence counts, as in Gateway API); several must all hold.

    Attributes:
        name: compared exactly, after percent-decoding.
        value: as in `HeaderMatch`, after percent-decoding.
        type: how `value` is compared.
    """

    name: str
    value: str
    type: ValueMatchType = ValueMatchType.EXACT


@dataclass(frozen=True, slots=True)
class RouteMatch:
    """What a request must look like; everything given must hold.

    Attributes:
        path: every path when not given.
        method: one method, uppercase; None for any supported method.
        headers: all must hold; names are unique.
        query: all must hold; names are unique.
    """

    path: PathMatch = PathMatch()
    method: str | None = None
    headers: tuple[HeaderMatch, ...] = ()
    query: tuple[QueryMatch, ...] = ()

    def __post_init__(self) -> None:
        """Refuse a method that is always denied and names given twice."""
        if self.method is not None and self.method not in _METHODS:
            raise ValueError(f"the method `{self.method}` cannot be matched; write one of {', '.join(_METHODS)}")
        for kind, names in (
            ("header", [m.name for m in self.headers]),
            ("query parameter", [m.name for m in self.query]),
        ):
            if len(set(names)) != len(names):
                raise ValueError(f"a {kind} is matched twice; write one condition for each name")


@dataclass(frozen=True, slots=True)
class Injection:
    """What an allowed request is to look like upstream.

    Values are templates: text with `${token.sub}`-like references; `$$` is a `$`. Header names are lowercase.

    Attributes:
        request_headers: set, overwriting the client's; removed where the value is absent.
        remove_request_headers: removed from the client's request.
        response_headers: set on the response to the client; left out where the value is absent.
        dynamic_metadata: for Envoy's log and later filters; a text that is one single reference keeps its JSON type.
        set_query_parameters: set, overwriting the client's; removed where the value is absent.
        remove_query_parameters: removed (case-sensitive).
        client_certificate: the header to carry the peer's certificate as URL-encoded PEM, or None.
    """

    request_headers: Mapping[str, str] = field(default_factory=dict)
    remove_request_headers: tuple[str, ...] = ()
    response_headers: Mapping[str, str] = field(default_factory=dict)
    dynamic_metadata: Mapping[str, JsonValue] = field(default_factory=dict)
    set_query_parameters: Mapping[str, str] = field(default_factory=dict)
    remove_query_parameters: tuple[str, ...] = ()
    client_certificate: str | None = None


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


@dataclass(frozen=True, slots=True)
class Target:
    """A destination, named by what the client cannot choose; everything given must hold.

    Attributes:
        destination_principal: the workload's own SPIFFE ID; `*` stands for one whole segment, a trailing `/**` for any
            depth.
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


@dataclass(frozen=True, slots=True)
class RoutePolicy:
    """Rules for the requests that go to some destinations under some host names.

    Attributes:
        name: unique among all policies.
        rules: in any order; order never decides.
        targets: any one suffices; empty for a gateway policy, which counts only where no policy names the destination.
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
        names = [rule.name for rule in self.rules]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"two rules are called `{name}`; give each its own name")
