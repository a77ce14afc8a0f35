from types import MappingProxyType

import pytest
from support.policies import EVERYONE, WEB, peer, token

from ext_authz.errors import Reason, Refusal
from ext_authz.policy.conditions import json_equal, peer_check, source_check, token_check
from ext_authz.policy.requirements import ClaimRequirement, PeerRequirement, ScopeRequirement, TokenRequirement
from ext_authz.principal import JsonValue, Principals


@pytest.mark.parametrize(
    ("blocks", "address", "allowed"),
    [
        (("10.0.0.0/8",), "10.255.0.1", True),
        (("10.0.0.0/8",), "11.0.0.1", False),
        (("10.0.0.0/8",), "::ffff:10.0.0.1", True),
        (("10.0.0.0/8",), "::10.0.0.1", False),
        (("::ffff:10.0.0.0/104",), "10.0.0.1", True),
        (("::ffff:10.0.0.0/104",), "11.0.0.1", False),
        (("192.168.1.1",), "192.168.1.1", True),
        (("192.168.1.1",), "192.168.1.2", False),
        (("10.0.0.0/8", "192.168.0.0/16"), "192.168.1.2", True),
        (("0.0.0.0/0",), "203.0.113.1", True),
        (("0.0.0.0/0",), "2001:db8::1", False),
        (("::/0",), "2001:db8::1", True),
        (("::/0",), "10.0.0.1", False),
        (("::/64",), "::ffff:10.0.0.1", False),
        (("2001:db8::/32",), "2001:db8:ffff::1", True),
        (("2001:db8::/32",), "2001:db9::1", False),
        (("fe80::/10",), "fe80::1%eth0", False),
        (("0.0.0.0/0", "::/0"), "", False),
        (("0.0.0.0/0", "::/0"), "@unix", False),
        (("0.0.0.0/0", "::/0"), "10.0.0.1:80", False),
        (("0.0.0.0/0",), "010.0.0.1", False),
        (("0.0.0.0/0",), "10.0.0.1\n", False),
    ],
)
def test_the_source_must_be_in_a_block(blocks: tuple[str, ...], address: str, allowed: bool) -> None:
    check = source_check(blocks)
    if allowed:
        check(address)
    else:
        with pytest.raises(Refusal) as refusal:
            check(address)
        assert refusal.value.reason is Reason.SOURCE_IP_NOT_ALLOWED


@pytest.mark.parametrize(
    ("requirement", "reason"),
    [
        (PeerRequirement(), None),
        (PeerRequirement(spiffe=(WEB,)), None),
        (PeerRequirement(spiffe=("spiffe://other/x", "spiffe://cluster.local/ns/applications/sa/*")), None),
        (PeerRequirement(spiffe=("spiffe://cluster.local/**",)), None),
        (PeerRequirement(spiffe=("spiffe://cluster.local/ns/*/sa/app",)), Reason.PEER_SPIFFE_ID_NOT_ALLOWED),
        (PeerRequirement(spiffe=("spiffe://other/x",)), Reason.PEER_SPIFFE_ID_NOT_ALLOWED),
        (PeerRequirement(trust_domains=("cluster.local",)), None),
        (PeerRequirement(trust_domains=("local",)), Reason.PEER_TRUST_DOMAIN_NOT_ALLOWED),
        (PeerRequirement(namespaces=("x", "applications")), None),
        (PeerRequirement(namespaces=("application",)), Reason.PEER_NAMESPACE_NOT_ALLOWED),
        (PeerRequirement(service_accounts=("web",)), None),
        (PeerRequirement(service_accounts=("api",)), Reason.PEER_SERVICE_ACCOUNT_NOT_ALLOWED),
        (
            PeerRequirement(namespaces=("applications",), service_accounts=("api",)),
            Reason.PEER_SERVICE_ACCOUNT_NOT_ALLOWED,
        ),
    ],
)
def test_the_peer_must_meet_every_part(requirement: PeerRequirement, reason: Reason | None) -> None:
    check = peer_check(requirement)
    if reason is None:
        check(EVERYONE)
    else:
        with pytest.raises(Refusal) as refusal:
            check(EVERYONE)
        assert refusal.value.reason is reason


def test_a_peer_that_is_absent_or_not_identified_is_refused_with_its_own_reason() -> None:
    check = peer_check(PeerRequirement())
    with pytest.raises(Refusal) as refusal:
        check(Principals(None, token()))
    assert refusal.value.reason is Reason.PEER_MISSING
    unidentified = peer(spiffe_id=None)
    with pytest.raises(Refusal) as refusal:
        check(Principals(unidentified, token()))
    assert refusal.value.reason is Reason.CHAIN_NOT_VERIFIED
    assert refusal.value is not unidentified.identity_refusal


def test_an_id_without_a_kubernetes_path_has_no_namespace() -> None:
    principals = Principals(peer("spiffe://cluster.local/web"), None)
    for requirement, reason in (
        (PeerRequirement(namespaces=("applications",)), Reason.PEER_NAMESPACE_NOT_ALLOWED),
        (PeerRequirement(service_accounts=("web",)), Reason.PEER_SERVICE_ACCOUNT_NOT_ALLOWED),
    ):
        with pytest.raises(Refusal) as refusal:
            peer_check(requirement)(principals)
        assert refusal.value.reason is reason


@pytest.mark.parametrize(
    ("requirement", "reason"),
    [
        (TokenRequirement(), None),
        (TokenRequirement(issuers=("corp",)), None),
        (TokenRequirement(issuers=("https://issuer.example.com",)), Reason.ISSUER_NOT_ALLOWED),
        (TokenRequirement(audiences=("x", "billing")), None),
        (TokenRequirement(audiences=("billing2",)), Reason.AUDIENCE_NOT_ALLOWED),
        (TokenRequirement(clients=("mywebsite",)), None),
        (TokenRequirement(clients=("MyWebsite",)), Reason.CLIENT_NOT_ALLOWED),
        (TokenRequirement(scopes=ScopeRequirement(all=("read", "write"))), None),
        (TokenRequirement(scopes=ScopeRequirement(all=("read", "delete"))), Reason.SCOPE_INSUFFICIENT),
        (TokenRequirement(scopes=ScopeRequirement(any=("delete", "write"))), None),
        (TokenRequirement(scopes=ScopeRequirement(any=("delete", "create"))), Reason.SCOPE_INSUFFICIENT),
        (TokenRequirement(scopes=ScopeRequirement(all=("read",), any=("create",))), Reason.SCOPE_INSUFFICIENT),
        (TokenRequirement(claims=(ClaimRequirement(("org", "unit"), ("x", "sales")),)), None),
        (TokenRequirement(claims=(ClaimRequirement(("org", "unit"), ("x",)),)), Reason.CLAIM_NOT_ALLOWED),
        (TokenRequirement(claims=(ClaimRequirement(("org", "no"), (None,)),)), Reason.CLAIM_NOT_ALLOWED),
        (TokenRequirement(claims=(ClaimRequirement(("org", "unit", "x"), ("sales",)),)), Reason.CLAIM_NOT_ALLOWED),
        (TokenRequirement(claims=(ClaimRequirement(("empty",), (None,)),)), None),
    ],
)
def test_the_token_must_meet_every_part(requirement: TokenRequirement, reason: Reason | None) -> None:
    claims: dict[str, JsonValue] = {"org": MappingProxyType({"unit": "sales"}), "empty": None}
    principals = Principals(None, token(scopes=("read", "write"), claims=claims))
    check = token_check(requirement)
    if reason is None:
        check(principals)
    else:
        with pytest.raises(Refusal) as refusal:
            check(principals)
        assert refusal.value.reason is reason


def test_an_absent_token_is_refused_as_absent() -> None:
    with pytest.raises(Refusal) as refusal:
        token_check(TokenRequirement())(Principals(peer(), None))
    assert refusal.value.reason is Reason.TOKEN_MISSING


@pytest.mark.parametrize("scope", ["read:all", "rea", "READ", "read write", "read\n"])
def test_a_scope_is_compared_whole(scope: str) -> None:
    """Attack line 29: `read:all` is not `read`."""
    with pytest.raises(Refusal) as refusal:
        token_check(TokenRequirement(scopes=ScopeRequirement(all=("read",))))(Principals(None, token(scopes=(scope,))))
    assert refusal.value.reason is Reason.SCOPE_INSUFFICIENT


def test_a_token_without_a_client_is_no_client() -> None:
    with pytest.raises(Refusal) as refusal:
        token_check(TokenRequirement(clients=("None",)))(Principals(None, token(client_id=None)))
    assert refusal.value.reason is Reason.CLIENT_NOT_ALLOWED


VALUES: tuple[JsonValue, ...] = (
    True,
    False,
    None,
    0,
    1,
    "1",
    "true",
    "",
    (),
    (1,),
    (True,),
    ("a", "b"),
    ("b", "a"),
    MappingProxyType({}),
    {"a": 1},
    {"a": True},
    {"a": 1, "b": 2},
    {"b": 1},
)


@pytest.mark.parametrize("one", VALUES)
def test_two_json_values_of_different_types_are_never_equal(one: JsonValue) -> None:
    assert [json_equal(one, other) for other in VALUES] == [other is one for other in VALUES]


def test_one_json_number_is_equal_however_it_is_written() -> None:
    assert json_equal(1, 1.0)
    assert json_equal({"a": (1, {})}, MappingProxyType({"a": (1.0, MappingProxyType({}))}))
