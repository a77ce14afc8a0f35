"""Which rule decides a request: destination, then host name, then route. Built once at load, then only read.

The client chooses path, method, headers and Host; it does not choose where the proxy sends the request. So the
destination comes first, and what it excludes stays excluded: a policy for another destination, a policy without targets
where some policy names the destination or the destination may be one of those that policies name, and rules for less specific host names than the one that matches are not
consulted when the winner says nothing. Nothing is allowed by falling through.
"""

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from ext_authz.errors import Reason, Refusal
from ext_authz.facts import RequestFacts
from ext_authz.policy.compiled import Selection
from ext_authz.policy.destination import Destination, destinations_of
from ext_authz.policy.findings import Finding, findings_of
from ext_authz.policy.host import canonical_name, parse_host
from ext_authz.policy.model import METHODS, RoutePolicy
from ext_authz.policy.path import Leniency, canonicalise, leniencies_from
from ext_authz.policy.route_table import RouteTable
from ext_authz.policy.target_index import TargetIndex

__all__ = ["PolicyIndex"]

_METHODS = frozenset(METHODS)
_NO_VARIABLES: Mapping[str, str] = MappingProxyType({})


class PolicyIndex:
    """All policies, compiled and immutable."""

    __slots__ = ("_anywhere", "_destinations", "_leniencies", "_looks_at_sni", "_names_workloads", "_targets", "_usual")

    def __init__(self, policies: Iterable[RoutePolicy], leniencies: Iterable[str] = ()) -> None:
        """Compile `policies`, whose order never decides anything.

        Args:
            policies: names are unique.
            leniencies: names of `path.Leniency`.

        Raises:
            ValueError: for a name used twice or an unknown leniency.
        """
        policies = tuple(policies)
        names: set[str] = set()
        for policy in policies:
            if policy.name in names:
                raise ValueError(f"two policies are called `{policy.name}`; give each its own name")
            names.add(policy.name)
        self._leniencies = leniencies_from(leniencies)
        self._destinations = destinations_of(policies, self._leniencies)
        by_target = {one.target: one for one in self._destinations if one.target is not None}
        self._targets = TargetIndex(by_target)
        self._looks_at_sni = any(target.sni is not None for target in by_target)
        self._names_workloads = any(target.names_workloads for target in by_target)
        # the usual request goes to one whole principal under one whole host name: two look-ups that nothing can precede
        alone = {} if self._looks_at_sni else self._targets.principals_alone()
        self._usual = {principal: destination.tables for principal, destination in alone.items()}
        self._anywhere = next((one for one in self._destinations if one.target is None), None)

    def select(self, facts: RequestFacts) -> Selection:
        """The rule that decides the request of `facts`.

        Raises:
            Refusal: METHOD_NOT_SUPPORTED, PATH_MALFORMED, PATH_AMBIGUOUS, HOST_MALFORMED, HOST_SNI_MISMATCH, NO_POLICY,
                NO_RULE; HEADER_MALFORMED when a rule asks for a header that is not UTF-8 or has several values.
        """
        if facts.method not in _METHODS:
            raise Refusal(Reason.METHOD_NOT_SUPPORTED, "the method is not one that rules can speak of")
        path = canonicalise(facts.path, self._leniencies)
        if "!" in facts.path:
            self._check_replaced_bytes(facts)
        host, has_port = parse_host(facts.host)
        tables = self._usual.get(facts.destination_principal)
        table = None if tables is None or has_port else tables.get(host)
        if table is None:
            table = self._find_table(facts, host, has_port=has_port)
        winner = table.find(path, facts)
        variables = _NO_VARIABLES
        if winner.variables:
            variables = {name: path.segments[index] for name, index in winner.variables}
        return Selection(winner.rule, path, host, variables)

    def findings(self, *, strict: bool = False) -> tuple[Finding, ...]:
        """What an operator should know or must repair; `strict` makes errors of what a client could exploit."""
        return findings_of(self._destinations, strict=strict)

    def _find_table(self, facts: RequestFacts, host: str, *, has_port: bool) -> RouteTable:
        """The rules at the destination under the host. Raises Refusal HOST_SNI_MISMATCH, NO_POLICY, HOST_MALFORMED."""
        destination = self._find_by_sni(facts, host) if self._looks_at_sni else self._targets.find(facts, "")
        if destination is None:
            if self._names_workloads and not facts.destination_principal:
                # a workload that has policies of its own may be reached without TLS, and would then be taken for none
                raise Refusal(Reason.NO_POLICY, "policies name destinations by an identity, and this one shows none")
            destination = self._anywhere
        table = None if destination is None else destination.hosts.find(host)
        if table is None:
            raise Refusal(Reason.NO_POLICY, "no policy covers the destination under this host")
        if has_port and destination is not None and destination.refuses_ports:
            raise Refusal(Reason.HOST_MALFORMED, "the host has a port, by which a proxy may take it for another host")
        return table

    def _check_replaced_bytes(self, facts: RequestFacts) -> None:
        """Refuse a path whose `!` may stand for a byte that only the upstream would see.

        Envoy 1.36 to 1.40 without `encode_raw_headers` replaces bytes that are not UTF-8 by `!` in what we get and sends
        the bytes themselves on. HTTP/1 cannot carry them: its codec refuses the request.
        """
        if (
            not facts.headers.is_raw
            and not facts.protocol.startswith("HTTP/1")
            and "!" in facts.path.partition("?")[0]
            and Leniency.ALLOW_EXCLAMATION_MARK not in self._leniencies
        ):
            raise Refusal(Reason.PATH_AMBIGUOUS, "a `!` in the path may stand for a byte that is not UTF-8")

    def _find_by_sni(self, facts: RequestFacts, host: str) -> Destination | None:
        sni = canonical_name(facts.sni)
        found = self._targets.find(facts, sni)
        if sni != host:
            # neither may one name's connection carry requests for another, nor may a name that has policies of its own
            # be reached over a connection that never named it
            claimed = self._targets.find(facts, host)
            if any(one is not None and one.is_bound_to_sni for one in (found, claimed)):
                raise Refusal(Reason.HOST_SNI_MISMATCH, "the host is not the name the TLS connection was opened for")
        return found
