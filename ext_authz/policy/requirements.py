"""What a rule may require of the caller, and how defaults, named sets and a rule's own terms become one list."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from enum import Enum
from ipaddress import ip_network
from typing import TypeVar

from ext_authz.errors import Refusal
from ext_authz.policy.spiffe_pattern import SpiffePattern
from ext_authz.principal import JsonValue
from ext_authz.requirement import BindingMethod, BindingMode, BindingRequirement
from ext_authz.spiffe import TrustDomain

__all__ = [
    "ClaimRequirement",
    "NotRequired",
    "PeerRequirement",
    "Requirement",
    "RequirementTerms",
    "ScopeRequirement",
    "TokenRequirement",
    "resolve_binding",
    "resolve_requirements",
]

_Term = TypeVar("_Term")

_BINDING_WITHOUT_TOKEN = "the rule says how a token is bound and takes none; add `token: {}` or remove `binding`"  # noqa: S105 - a sentence

_KUBERNETES_NAME = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?")  # RFC 1123 subdomain
_SCOPE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+")  # RFC 6749 §3.3: scope-token


@dataclass(frozen=True, slots=True)
class PeerRequirement:
    """The peer must be identified (have a verified SPIFFE ID), and every non-empty field must hold.

    Attributes:
        spiffe: patterns, any one suffices: exact, `*` for one whole segment, a trailing `/**` for any depth of at least one.
        trust_domains: any one suffices.
        namespaces: Kubernetes namespaces, any one suffices.
        service_accounts: Kubernetes service accounts, any one suffices.
    """

    spiffe: tuple[str, ...] = ()
    trust_domains: tuple[str, ...] = ()
    namespaces: tuple[str, ...] = ()
    service_accounts: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse patterns and names that no peer can have."""
        for pattern in self.spiffe:
            SpiffePattern(pattern)
        for name in self.trust_domains:
            try:
                TrustDomain(name)
            except Refusal as refusal:
                raise ValueError(
                    f"the trust domain `{name}` cannot exist: {refusal.detail}; write `cluster.local`"
                ) from None
        for kind, names in (("namespace", self.namespaces), ("service account", self.service_accounts)):
            for name in names:
                if not _KUBERNETES_NAME.fullmatch(name):
                    raise ValueError(
                        f"the {kind} `{name}` cannot exist; write its exact name, without wildcards, or a `spiffe` pattern"
                    )


@dataclass(frozen=True, slots=True)
class ScopeRequirement:
    """Scopes the token must have, compared exactly.

    Attributes:
        all: every one of these.
        any: at least one of these, when not empty.
    """

    all: tuple[str, ...] = ()
    any: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse text that is not one scope."""
        for scope in self.all + self.any:
            if not _SCOPE.fullmatch(scope):
                raise ValueError(
                    f"`{scope}` is not one scope; write each scope as its own item, without spaces or quotes"
                )


@dataclass(frozen=True, slots=True)
class ClaimRequirement:
    """A claim that must be there with one of these JSON values; `true`, `1` and `"1"` are three different values.

    Attributes:
        path: names from the outermost object inwards.
        one_of: the values allowed; `equals: x` is one of one.
    """

    path: tuple[str, ...]
    one_of: tuple[JsonValue, ...]

    def __post_init__(self) -> None:
        """Refuse a condition on nothing, and one that nothing meets."""
        if not self.path or not all(self.path):
            raise ValueError("the claim has no name; write it as `department` or `organization.unit`")
        if not self.one_of:
            raise ValueError(
                f"the claim `{'.'.join(self.path)}` allows no value; write `equals` or `one_of` with a value"
            )


@dataclass(frozen=True, slots=True)
class TokenRequirement:
    """A valid token is required, and every non-empty field must hold.

    Attributes:
        issuers: names of configured issuers, any one suffices.
        audiences: the token must name one of these.
        scopes: see `ScopeRequirement`.
        clients: client ids, any one suffices.
        claims: all must hold.
    """

    issuers: tuple[str, ...] = ()
    audiences: tuple[str, ...] = ()
    scopes: ScopeRequirement = ScopeRequirement()
    clients: tuple[str, ...] = ()
    claims: tuple[ClaimRequirement, ...] = ()

    def __post_init__(self) -> None:
        """Refuse empty names, which no token has."""
        for kind, names in (("issuer", self.issuers), ("audience", self.audiences), ("client", self.clients)):
            if not all(names):
                raise ValueError(f"one {kind} is empty; write its exact name or remove the item")


@dataclass(frozen=True, slots=True)
class Requirement:
    """What a caller must show; every field that is not None (or empty) must hold.

    Attributes:
        peer: None when nothing is required of the peer.
        token: None when no token is looked at.
        source_ips: CIDR blocks or addresses, any one suffices; empty for any source.
        binding: how a token must be bound; None when this requirement does not say.
    """

    peer: PeerRequirement | None = None
    token: TokenRequirement | None = None
    source_ips: tuple[str, ...] = ()
    binding: BindingRequirement | None = None

    def __post_init__(self) -> None:
        """Refuse what is not an address block."""
        for block in self.source_ips:
            try:
                ip_network(block)
            except ValueError:
                raise ValueError(
                    f"`{block}` is not an address or CIDR block without host bits; write `10.0.0.0/8` or `2001:db8::1`"
                ) from None


class NotRequired(Enum):
    """`none` written where a default would otherwise apply."""

    NONE = "none"


@dataclass(frozen=True, slots=True)
class RequirementTerms:
    """`defaults` or a rule's own `require` as written: None is unsaid, NotRequired.NONE switches a default off by name."""

    peer: PeerRequirement | NotRequired | None = None
    token: TokenRequirement | NotRequired | None = None
    source_ips: tuple[str, ...] | NotRequired | None = None
    binding: BindingRequirement | None = None

    def __post_init__(self) -> None:
        """Refuse an empty list, which could mean no address or any."""
        if self.source_ips == ():
            raise ValueError("`source_ips` is empty; write addresses, or `source_ips: none` to drop the default")


def resolve_requirements(
    defaults: RequirementTerms, sets: Iterable[Requirement], own: RequirementTerms
) -> tuple[Requirement, ...]:
    """The requirements of one rule: its own terms over the defaults field by field, then every set it uses.

    Within `peer` and `token` too: what the rule does not say (`issuers`, `scopes`, ...) stays as in the defaults, so that
    saying more never lets more pass. A token that comes without a binding term is bound as `required`, whatever the
    sets say of theirs: a set that is used only ever adds.

    Args:
        defaults: of the policy.
        sets: the named sets of the rule's `use`; each is an additional requirement.
        own: the rule's `require`.

    Returns:
        What a `Rule` takes; all must hold. Empty when nothing is required.

    Raises:
        ValueError: for a binding without a token, or bindings that no token could meet together.
    """
    first = Requirement(
        peer=_resolved(own.peer, defaults.peer),
        token=_resolved(own.token, defaults.token),
        source_ips=_resolved(own.source_ips, defaults.source_ips) or (),
    )
    resolved = (first, *sets)
    if any(requirement.token is not None for requirement in resolved):
        first = replace(first, binding=own.binding or defaults.binding or _unsaid_binding(resolved))
    elif own.binding is not None:
        # a default binding without a token is not an error: it waits for the rules that take one
        raise ValueError(_BINDING_WITHOUT_TOKEN)
    return tuple(requirement for requirement in (first, *resolved[1:]) if requirement != Requirement())


def resolve_binding(requirements: tuple[Requirement, ...]) -> BindingRequirement | None:
    """The one binding requirement that meets all of `requirements`: the stricter mode, the common methods.

    Returns:
        None when no token is looked at; `required` by `x5t#S256` when nothing is said (the safe default).

    Raises:
        ValueError: for a binding without a token, or bindings that no token could meet together.
    """
    said = [requirement.binding for requirement in requirements if requirement.binding is not None]
    if not any(requirement.token is not None for requirement in requirements):
        if said:
            raise ValueError(_BINDING_WITHOUT_TOKEN)
        return None
    if not said:
        return BindingRequirement()
    accept = frozenset.intersection(*(binding.accept for binding in said))
    claims = {binding.spiffe_id_claim for binding in said} if BindingMethod.SPIFFE_ID in accept else {None}
    if not accept or len(claims) > 1:
        raise ValueError(
            "the binding terms of the rule and of the sets it uses cannot be met together; "
            "write `binding` in one place, or the same `accept` in all"
        )
    modes = {binding.mode for binding in said}
    return BindingRequirement(
        mode=BindingMode.REQUIRED if BindingMode.REQUIRED in modes else BindingMode.WHEN_PRESENT,
        accept=accept,
        spiffe_id_claim=claims.pop(),
    )


def _unsaid_binding(requirements: tuple[Requirement, ...]) -> BindingRequirement | None:
    """`required`, where another requirement would otherwise speak for a token that came without a binding term."""
    said = any(requirement.binding is not None for requirement in requirements)
    unsaid = any(requirement.token is not None and requirement.binding is None for requirement in requirements)
    return BindingRequirement() if said and unsaid else None


def _resolved(own: _Term | NotRequired | None, default: _Term | NotRequired | None) -> _Term | None:
    term = default if own is None else own
    if term is None or isinstance(term, NotRequired):
        return None
    if isinstance(term, PeerRequirement | TokenRequirement) and isinstance(default, type(term)):
        return _over(term, default)
    return term


def _over(own: _Term, default: _Term) -> _Term:
    """`own` where it says something, `default` where it does not: a rule that adds a scope keeps the default issuers."""
    unsaid = type(own)()
    kept: dict[str, object] = {}
    for field in fields(own):  # type: ignore[arg-type]  # both are of one of the requirement classes
        said, before = getattr(own, field.name), getattr(default, field.name)
        if said == getattr(unsaid, field.name):
            kept[field.name] = before
        elif isinstance(said, ScopeRequirement):
            # `all` and `any` are two conditions: naming alternatives does not drop what is always needed
            kept[field.name] = _over(said, before)
    return replace(own, **kept)  # type: ignore[type-var]  # as above
