"""Everything that can apply at one destination, compiled."""

from collections.abc import Iterable
from dataclasses import dataclass

from ext_authz.policy.compiled import CompiledRule
from ext_authz.policy.model import RouteMatch, RoutePolicy
from ext_authz.policy.mutations import CompiledInjection
from ext_authz.policy.path import Leniency
from ext_authz.policy.route_table import RouteTable
from ext_authz.policy.target_index import HostTable, TargetKey

__all__ = ["Destination", "destinations_of"]


@dataclass(frozen=True, slots=True)
class Destination:
    """The policies that name one target, or (`target` None) those that name none.

    Attributes:
        target: what names the destination.
        policies: by name.
        tables: the rules by hostname as written, None for any host.
        hosts: the same, to look a host up.
        routed_by_host: the operator states that the proxy routes by Host there.
        refuses_ports: a Host with a port could be one host to the proxy and another here.
    """

    target: TargetKey | None
    policies: tuple[RoutePolicy, ...]
    tables: dict[str | None, RouteTable]
    hosts: HostTable[RouteTable]
    routed_by_host: bool
    refuses_ports: bool

    @property
    def names_workloads(self) -> bool:
        """As `Target.names_workloads`."""
        return self.target is not None and self.target.names_workloads

    @property
    def is_bound_to_sni(self) -> bool:
        """Whether the destination is named by its TLS server name, which Host must then equal."""
        return self.target is not None and self.target.sni is not None


def destinations_of(policies: Iterable[RoutePolicy], leniencies: frozenset[Leniency]) -> tuple[Destination, ...]:
    """Every destination that `policies` name, each compiled."""
    members: dict[TargetKey | None, dict[str, RoutePolicy]] = {}
    not_by_host: set[TargetKey | None] = set()
    for policy in policies:
        if not policy.targets:
            members.setdefault(None, {})[policy.name] = policy
        for target in policy.targets:
            key = TargetKey.of(target)
            members.setdefault(key, {})[policy.name] = policy
            if not target.routed_by_host:
                not_by_host.add(key)
    return tuple(
        _destination(
            target,
            tuple(by_name[name] for name in sorted(by_name)),
            leniencies,
            # policies without targets are for gateways, which route by host
            routed_by_host=target is None or target not in not_by_host,
        )
        for target, by_name in members.items()
    )


def _destination(
    target: TargetKey | None,
    policies: tuple[RoutePolicy, ...],
    leniencies: frozenset[Leniency],
    *,
    routed_by_host: bool,
) -> Destination:
    rules = [rule for policy in policies for rule in policy.rules]
    owned = frozenset[str]().union(*(rule.injection.owned_headers for rule in rules))
    injections: dict[str, CompiledInjection] = {}
    by_host: dict[str | None, list[tuple[CompiledRule, tuple[RouteMatch, ...]]]] = {}
    for policy in policies:
        compiled = []
        for rule in policy.rules:
            # by its text: to Python `true` and `1` are equal; many rules inject the same
            key = repr(rule.injection)
            if key not in injections:
                injections[key] = CompiledInjection(rule.injection, owned)
            compiled.append((CompiledRule(policy.name, rule, injections[key]), rule.matches))
        for hostname in dict.fromkeys(policy.hostnames) or (None,):
            by_host.setdefault(hostname, []).extend(compiled)
    case_sensitive = Leniency.CASE_SENSITIVE in leniencies
    tables = {hostname: RouteTable(rows, case_sensitive=case_sensitive) for hostname, rows in by_host.items()}
    return Destination(
        target=target,
        policies=policies,
        tables=tables,
        hosts=HostTable(tables),
        routed_by_host=routed_by_host,
        # Envoy 1.40 compares the whole of Host with its virtual hosts, unless told to strip or ignore the port
        refuses_ports=len(tables) > 1 and Leniency.IGNORE_HOST_PORT not in leniencies,
    )
