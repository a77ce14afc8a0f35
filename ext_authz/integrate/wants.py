"""What the policies in force need to be told by the proxy."""

from collections.abc import Iterable
from dataclasses import dataclass

from ext_authz.policy.model import RoutePolicy
from ext_authz.policy.requirements import resolve_binding
from ext_authz.requirement import BindingMethod

__all__ = ["Wants"]


@dataclass(frozen=True, slots=True)
class Wants:
    """Which facts at least one rule or target depends on.

    Attributes:
        identity: a caller's SPIFFE ID.
        thumbprint: the thumbprint of its certificate.
        destination_principal: targets name workloads.
        sni: targets name TLS server names.
        context_extensions: names that targets look for.
    """

    identity: bool = False
    thumbprint: bool = False
    destination_principal: bool = False
    sni: bool = False
    context_extensions: frozenset[str] = frozenset()

    @classmethod
    def of(cls, policies: Iterable[RoutePolicy]) -> "Wants":
        """What `policies` need."""
        known = tuple(policies)
        requirements = [rule.requirements for policy in known for rule in policy.rules if rule.requirements]
        bindings = [binding for terms in requirements if (binding := resolve_binding(terms)) is not None]
        targets = [target for policy in known for target in policy.targets]
        return cls(
            identity=any(requirement.peer is not None for terms in requirements for requirement in terms)
            or any(BindingMethod.SPIFFE_ID in binding.accept for binding in bindings),
            thumbprint=any(BindingMethod.X5T_S256 in binding.accept for binding in bindings),
            destination_principal=any(target.names_workloads for target in targets),
            sni=any(target.sni is not None for target in targets),
            context_extensions=frozenset(name for target in targets for name in target.context_extensions),
        )

    @property
    def caller(self) -> bool:
        """Whether anything about the caller's certificate matters."""
        return self.identity or self.thumbprint
