"""Requirements compiled to functions that raise the Refusal of the first thing that does not hold."""

from collections.abc import Callable, Mapping
from functools import lru_cache
from ipaddress import IPv6Address, ip_address, ip_network
from typing import TypeAlias

from ext_authz.errors import Reason, Refusal
from ext_authz.policy.attributes import claim_at
from ext_authz.policy.requirements import ClaimRequirement, PeerRequirement, ScopeRequirement, TokenRequirement
from ext_authz.policy.spiffe_pattern import SpiffePattern
from ext_authz.principal import JsonValue, Principals, VerifiedToken
from ext_authz.spiffe import SpiffeId

__all__ = ["PrincipalCheck", "SourceCheck", "json_equal", "peer_check", "source_check", "token_check"]

PrincipalCheck: TypeAlias = Callable[[Principals], None]
SourceCheck: TypeAlias = Callable[[str], None]

_IdCheck: TypeAlias = Callable[[SpiffeId], None]
_TokenCheck: TypeAlias = Callable[[VerifiedToken], None]


@lru_cache(maxsize=1024)  # many rules share a few requirements
def source_check(blocks: tuple[str, ...]) -> SourceCheck:
    """The connection's address must be in one of `blocks`; an address that is none (a Unix socket) is in no block."""
    # one look-up for each prefix length in use, however many blocks there are
    by_shift: dict[int, dict[int, set[int]]] = {4: {}, 6: {}}
    for block in blocks:
        version, number, host_bits = _network(block)
        by_shift[version].setdefault(host_bits, set()).add(number >> host_bits)
    shifts = {version: tuple(networks.items()) for version, networks in by_shift.items()}

    def check(address: str) -> None:
        version, number = _address(address)
        if version is not None:
            for shift, networks in shifts[version]:
                if number >> shift in networks:
                    return
        raise Refusal(Reason.SOURCE_IP_NOT_ALLOWED, "the connection does not come from an allowed address")

    return check


@lru_cache(maxsize=4096)  # a pure function; clients come back, and a flood only evicts
def _address(text: str) -> tuple[int | None, int]:
    """Version and number; an IPv4-mapped IPv6 address is the IPv4 address it is; no version for what is no address."""
    try:
        address = ip_address(text)
    except ValueError:
        return None, 0
    if isinstance(address, IPv6Address):
        if address.scope_id is not None:
            # `fe80::1%eth0` is an address only together with its interface
            return None, 0
        address = address.ipv4_mapped or address
    return address.version, int(address)


def _network(block: str) -> tuple[int, int, int]:
    """Version, number and host bits of a CIDR block."""
    network = ip_network(block)
    version, number = network.version, int(network.network_address)
    host_bits = network.max_prefixlen - network.prefixlen
    if version == 6 and host_bits <= 32 and number >> 32 == 0xFFFF:  # RFC 4291 §2.5.5.2: ::ffff:0:0/96
        return 4, number & 0xFFFF_FFFF, host_bits
    return version, number, host_bits


@lru_cache(maxsize=1024)  # as source_check
def peer_check(requirement: PeerRequirement) -> PrincipalCheck:
    """The peer must be identified and meet `requirement`."""
    checks: list[_IdCheck] = []
    if requirement.trust_domains:
        checks.append(_trust_domain_check(frozenset(requirement.trust_domains)))
    if requirement.spiffe:
        checks.append(_spiffe_check(tuple(SpiffePattern(text) for text in requirement.spiffe)))
    if requirement.namespaces:
        checks.append(_namespace_check(frozenset(requirement.namespaces)))
    if requirement.service_accounts:
        checks.append(_service_account_check(frozenset(requirement.service_accounts)))
    compiled = tuple(checks)

    def check(principals: Principals) -> None:
        peer = principals.peer
        if peer is None:
            raise Refusal(Reason.PEER_MISSING, "the rule requires a peer and the connection shows no certificate")
        spiffe_id = peer.spiffe_id
        if spiffe_id is None:
            refusal = peer.identity_refusal
            if refusal is None:
                raise AssertionError("a peer has either a SPIFFE ID or the reason why it has none")
            # a new one: raising adds a traceback, and the peer may be shared with other requests
            raise Refusal(refusal.reason, refusal.detail)
        for one in compiled:
            one(spiffe_id)

    return check


def _trust_domain_check(names: frozenset[str]) -> _IdCheck:
    def check(spiffe_id: SpiffeId) -> None:
        if spiffe_id.trust_domain.name not in names:
            raise Refusal(Reason.PEER_TRUST_DOMAIN_NOT_ALLOWED, "the peer's trust domain is not among those allowed")

    return check


def _spiffe_check(patterns: tuple[SpiffePattern, ...]) -> _IdCheck:
    exact = frozenset(pattern.text for pattern in patterns if pattern.is_exact)
    wild = tuple(pattern.matches for pattern in patterns if not pattern.is_exact)

    def check(spiffe_id: SpiffeId) -> None:
        text = str(spiffe_id)
        if text in exact:
            return
        for matches in wild:
            if matches(text):
                return
        raise Refusal(Reason.PEER_SPIFFE_ID_NOT_ALLOWED, "the peer's SPIFFE ID is not among those allowed")

    return check


def _namespace_check(names: frozenset[str]) -> _IdCheck:
    def check(spiffe_id: SpiffeId) -> None:
        if spiffe_id.namespace not in names:
            raise Refusal(Reason.PEER_NAMESPACE_NOT_ALLOWED, "the peer's namespace is not among those allowed")

    return check


def _service_account_check(names: frozenset[str]) -> _IdCheck:
    def check(spiffe_id: SpiffeId) -> None:
        if spiffe_id.service_account not in names:
            raise Refusal(
                Reason.PEER_SERVICE_ACCOUNT_NOT_ALLOWED, "the peer's service account is not among those allowed"
            )

    return check


def token_check(requirement: TokenRequirement) -> PrincipalCheck:
    """There must be a token that meets `requirement`."""
    # `true` and `1` are one key to Python and two values to JSON, so conditions on claims are not shared
    return _compiled_token_check(requirement) if requirement.claims else _shared_token_check(requirement)


@lru_cache(maxsize=1024)  # as source_check
def _shared_token_check(requirement: TokenRequirement) -> PrincipalCheck:
    return _compiled_token_check(requirement)


def _compiled_token_check(requirement: TokenRequirement) -> PrincipalCheck:
    checks: list[_TokenCheck] = []
    if requirement.issuers:
        checks.append(_issuer_check(frozenset(requirement.issuers)))
    if requirement.audiences:
        checks.append(_audience_check(frozenset(requirement.audiences)))
    if requirement.clients:
        checks.append(_client_check(frozenset(requirement.clients)))
    if requirement.scopes != ScopeRequirement():
        checks.append(_scope_check(frozenset(requirement.scopes.all), frozenset(requirement.scopes.any)))
    checks.extend(_claim_check(claim) for claim in requirement.claims)
    compiled = tuple(checks)

    def check(principals: Principals) -> None:
        token = principals.token
        if token is None:
            raise Refusal(Reason.TOKEN_MISSING, "the rule requires a token and the request has none")
        for one in compiled:
            one(token)

    return check


def _issuer_check(names: frozenset[str]) -> _TokenCheck:
    def check(token: VerifiedToken) -> None:
        if token.issuer_name not in names:
            raise Refusal(Reason.ISSUER_NOT_ALLOWED, "the token's issuer is not among those the rule allows")

    return check


def _audience_check(audiences: frozenset[str]) -> _TokenCheck:
    def check(token: VerifiedToken) -> None:
        if audiences.isdisjoint(token.audiences):
            raise Refusal(Reason.AUDIENCE_NOT_ALLOWED, "the token names no audience that the rule allows")

    return check


def _client_check(clients: frozenset[str]) -> _TokenCheck:
    def check(token: VerifiedToken) -> None:
        if token.client_id not in clients:
            raise Refusal(Reason.CLIENT_NOT_ALLOWED, "the token's client is not among those the rule allows")

    return check


def _scope_check(every: frozenset[str], some: frozenset[str]) -> _TokenCheck:
    def check(token: VerifiedToken) -> None:
        if not every <= token.scopes or (some and some.isdisjoint(token.scopes)):
            raise Refusal(Reason.SCOPE_INSUFFICIENT, "the token does not have the scopes the rule needs")

    return check


def _claim_check(requirement: ClaimRequirement) -> _TokenCheck:
    path, allowed = requirement.path, requirement.one_of

    def check(token: VerifiedToken) -> None:
        found, value = claim_at(token.claims, path)
        if not found or not any(json_equal(value, one) for one in allowed):
            raise Refusal(Reason.CLAIM_NOT_ALLOWED, "a claim is absent or has a value that the rule does not allow")

    return check


def json_equal(one: JsonValue, other: JsonValue) -> bool:
    """Whether two JSON values are the same value of the same JSON type: `true`, `1` and `"1"` are three."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, Mapping):
        return (
            isinstance(other, Mapping)
            and one.keys() == other.keys()
            and all(json_equal(value, other[name]) for name, value in one.items())
        )
    if isinstance(one, tuple):
        return (
            isinstance(other, tuple)
            and len(one) == len(other)
            and all(json_equal(left, right) for left, right in zip(one, other, strict=True))
        )
    # JSON has one type of number: `1` and `1.0` are the same
    return one == other
