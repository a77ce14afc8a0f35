"""Who is on the connection, as each Envoy says it: the certificate attribute, XFCC in every mode, one proxy and two."""

import ssl

import pytest
from e2e.services import (
    APP,
    BILLING,
    CALLER,
    FOREIGNER,
    GATEWAY,
    HOST,
    IMPOSTOR,
    TENANT_HOST,
    THIEF,
    WEBSITE,
    Services,
    token_for,
)
from e2e.stack import Stack
from support.pki import Leaf, ec_key, self_signed, xfcc

pytestmark = [pytest.mark.envoy]

DIRECT = ("sanitize", "sanitize-raw", "append", "append-raw")
"""Listeners that let any certificate in and send it along."""
FORGED = {
    "the victim's element": xfcc(CALLER, by="spiffe://cluster.local/ns/forged/sa/forged"),
    "the victim's element with our own By": xfcc(CALLER, by=BILLING),
    "two elements": f"{xfcc(CALLER, by=BILLING)},{xfcc(CALLER, by=GATEWAY)}",
    "an open quote": f'By={BILLING};Hash={CALLER.thumbprint.hex()};Subject="',
    "JSON": f'{{"hash": "{CALLER.thumbprint.hex()}"}}',
}
# in a certificate that it made itself, a client may write what it wants into the URI
INJECTED_URI = f'spiffe://x,By={BILLING};Hash={CALLER.thumbprint.hex()};Subject="";URI={WEBSITE}'


@pytest.fixture(autouse=True)
def checked(services: Services) -> None:
    assert services.checked


@pytest.mark.parametrize("listener", DIRECT)
def test_a_token_works_on_the_connection_it_was_issued_to_and_on_no_other(
    stack: Stack, listener: str, http2: bool
) -> None:
    token = token_for(CALLER)
    own = stack.send(listener, "/invoices/own", leaf=CALLER, token=token, http2=http2)
    assert own.seen.all("x-caller") == [WEBSITE]
    path = stack.below("/invoices")
    for thief in (THIEF, IMPOSTOR, APP, None):
        assert stack.send(listener, path, leaf=thief, token=token, http2=http2).status == 401
    assert not stack.arrived(path)


@pytest.mark.parametrize("listener", DIRECT)
@pytest.mark.parametrize("leaf", [APP, IMPOSTOR, FOREIGNER], ids=["self-signed", "self-signed with a name", "foreign"])
def test_a_certificate_that_nobody_vouches_for_binds_and_never_identifies(
    stack: Stack, listener: str, leaf: Leaf
) -> None:
    bound = stack.send(listener, "/bound/x", leaf=leaf, token=token_for(leaf))
    assert bound.seen.all("x-subject") == ["alice"]
    path = stack.below("/workloads")
    assert stack.send(listener, path, leaf=leaf).status == 403
    assert not stack.arrived(path)
    decision = stack.decision(stack.services.checked, path)
    assert "spiffe_id" not in decision
    assert decision["reason"] in {"certificate_untrusted", "svid_malformed", "spiffe_id_missing"}


def test_without_the_certificate_attribute_and_xfcc_a_bound_token_is_denied(stack: Stack) -> None:
    path = stack.below("/bound")
    assert stack.send("no-certificate", path, leaf=CALLER, token=token_for(CALLER)).status == 401
    assert stack.decision(stack.services.checked, path)["reason"] == "binding_certificate_missing"


@pytest.mark.parametrize("listener", ["append", "append-raw"])
@pytest.mark.parametrize("forged", FORGED.values(), ids=FORGED)
def test_a_forged_element_on_the_left_gives_a_thief_nothing(
    stack: Stack, listener: str, forged: str, http2: bool
) -> None:
    path = stack.below("/invoices")
    headers = [("x-forwarded-client-cert", forged)]
    reply = stack.send(listener, path, leaf=THIEF, token=token_for(CALLER), headers=headers, http2=http2)
    assert reply.status == 401
    assert not stack.arrived(path)
    assert stack.decision(stack.services.checked, path).get("spiffe_id") != WEBSITE


@pytest.mark.parametrize("listener", ["append", "append-raw"])
def test_a_caller_behind_another_proxy_is_known_by_its_own_connection(stack: Stack, listener: str) -> None:
    headers = [("x-forwarded-client-cert", xfcc(THIEF, by=GATEWAY))]
    reply = stack.send(listener, "/invoices/x", leaf=CALLER, token=token_for(CALLER), headers=headers)
    assert reply.seen.all("x-caller") == [WEBSITE]


@pytest.mark.parametrize("listener", ["sanitize", "append", "hash-only"])
def test_without_a_client_certificate_a_forged_element_is_stripped(stack: Stack, listener: str) -> None:
    headers = [("x-forwarded-client-cert", xfcc(CALLER, by=BILLING))]
    path = stack.below("/invoices")
    if listener == "hash-only":
        # TLS 1.3: the client learns on its first read that its certificate was asked for
        with pytest.raises((ssl.SSLError, ConnectionError)):
            stack.send(listener, path, token=token_for(CALLER), headers=headers)
        return
    assert stack.send(listener, path, token=token_for(CALLER), headers=headers).status == 401
    assert stack.decision(stack.services.checked, path)["reason"] == "binding_certificate_missing"


@pytest.mark.parametrize("listener", ["append", "append-raw"])
def test_a_name_made_to_look_like_another_element_is_denied(stack: Stack, listener: str) -> None:
    leaf = self_signed(key=ec_key("injector"), subject="injector", uri_sans=[INJECTED_URI])
    path = stack.below("/invoices")
    for token in (token_for(CALLER), token_for(leaf)):
        assert stack.send(listener, path, leaf=leaf, token=token).status == 401
    assert not stack.arrived(path)


def test_the_hash_alone_binds_and_the_uri_identifies_in_a_mesh(stack: Stack, services: Services, http2: bool) -> None:
    assert services.mesh
    path = stack.below("/invoices")
    reply = stack.send("hash-only", path, leaf=CALLER, token=token_for(CALLER), http2=http2)
    assert reply.seen.all("x-caller") == [WEBSITE]
    decision = stack.decision(services.mesh, path)
    assert decision["thumbprint"] == CALLER.x5t_s256
    assert decision["provenance"] == "x-forwarded-client-cert"
    # the header says `Hash` and not the certificate: there is nothing to inject, and the client's own is taken away
    assert not reply.seen.all("x-client-certificate")
    stolen = stack.below("/invoices")
    headers = [("x-forwarded-client-cert", xfcc(CALLER, by=GATEWAY)), ("x-client-certificate", "forged")]
    assert stack.send("hash-only", stolen, leaf=THIEF, token=token_for(CALLER), headers=headers).status == 401
    assert stack.decision(services.mesh, stolen)["reason"] == "binding_thumbprint_mismatch"


def test_a_gateway_that_sets_the_element_leaves_nothing_of_the_clients(
    stack: Stack, services: Services, http2: bool
) -> None:
    assert services.mesh
    forged = [("x-forwarded-client-cert", xfcc(CALLER, by=BILLING)), ("x-forwarded-client-cert", 'Subject="')]
    reply = stack.send("sanitize-set", "/workloads/x", leaf=THIEF, headers=forged, http2=http2)
    assert reply.seen.all("x-caller") == ["spiffe://cluster.local/ns/applications/sa/thief"]
    path = stack.below("/invoices")
    assert stack.send("sanitize-set", path, leaf=THIEF, token=token_for(CALLER), headers=forged).status == 401
    own = stack.send("sanitize-set", path, leaf=CALLER, token=token_for(CALLER), headers=forged)
    assert own.seen.all("x-caller") == [WEBSITE]
    assert own.seen.all("x-client-certificate") == [CALLER.url_encoded_pem]


def test_a_connection_that_the_proxy_must_verify_is_refused_by_it(stack: Stack) -> None:
    for leaf in (IMPOSTOR, FOREIGNER):
        with pytest.raises((ssl.SSLError, ConnectionError)):
            stack.send("hash-only", "/workloads/x", leaf=leaf)


@pytest.mark.slow
def test_an_element_that_the_gateway_wrote_counts_where_it_is_only_forwarded(
    stack: Stack, services: Services, http2: bool
) -> None:
    assert services.forwarded
    stack.with_front()
    path = stack.below("/invoices")
    reply = stack.send("front:set-to-forward-only", path, leaf=CALLER, token=token_for(CALLER), http2=http2)
    assert reply.seen.all("x-caller") == [WEBSITE]
    assert stack.decision(services.forwarded, path)["thumbprint"] == CALLER.x5t_s256
    stolen = stack.below("/invoices")
    for forged in FORGED.values():
        headers = [("x-forwarded-client-cert", forged)]
        for listener in ("front:set-to-forward-only", "front:append-to-forward-only"):
            reply = stack.send(listener, stolen, leaf=THIEF, token=token_for(CALLER), headers=headers, http2=http2)
            assert reply.status == 401
    assert not stack.arrived(stolen)


def test_nobody_but_the_gateway_reaches_a_listener_that_only_forwards(stack: Stack) -> None:
    headers = [("x-forwarded-client-cert", xfcc(CALLER, by=GATEWAY))]
    with pytest.raises((ssl.SSLError, ConnectionError)):
        stack.send("forward-only", "/workloads/x", leaf=THIEF, headers=headers)


@pytest.mark.slow
def test_two_hops_count_the_element_of_the_gateway(stack: Stack, services: Services, http2: bool) -> None:
    assert services.two_hops
    stack.with_front()
    for listener in ("front:set-to-two-hops", "front:append-to-two-hops"):
        path = stack.below("/invoices")
        reply = stack.send(listener, path, leaf=CALLER, token=token_for(CALLER), http2=http2)
        assert reply.seen.all("x-caller") == [WEBSITE]
        assert stack.decision(services.two_hops, path)["thumbprint"] == CALLER.x5t_s256
        stolen = stack.below("/invoices")
        gateways = xfcc(CALLER, by=GATEWAY)
        for forged in (*FORGED.values(), gateways, f"{gateways},{xfcc(THIEF, by=BILLING)}"):
            headers = [("x-forwarded-client-cert", forged)]
            reply = stack.send(listener, stolen, leaf=THIEF, token=token_for(CALLER), headers=headers, http2=http2)
            assert reply.status == 401, (forged, reply)
        assert not stack.arrived(stolen)


@pytest.mark.slow
def test_two_hops_are_two_proxies_and_not_a_client_that_writes_the_first(stack: Stack, services: Services) -> None:
    assert services.two_hops
    path = stack.below("/workloads")
    # past the gateway: one element too few, or the gateway's own, which the gateway did not send
    assert stack.send("two-hops", path, leaf=THIEF).status == 403
    assert stack.decision(services.two_hops, path)["reason"] == "xfcc_too_few_elements"
    path = stack.below("/workloads")
    headers = [("x-forwarded-client-cert", xfcc(CALLER, by=GATEWAY))]
    assert stack.send("two-hops", path, leaf=THIEF, headers=headers).status == 403
    assert stack.decision(services.two_hops, path)["reason"] == "xfcc_via_mismatch"


@pytest.mark.slow
def test_a_listener_that_always_forwards_hands_on_what_a_client_wrote(stack: Stack, services: Services) -> None:
    assert services.forwarded
    path = stack.below("/workloads")
    for forged in (xfcc(CALLER, by=BILLING), xfcc(CALLER, by=())):
        headers = [("x-forwarded-client-cert", forged)]
        assert stack.send("always-forward", path, headers=headers).status == 403
    assert not stack.arrived(path)
    # `By` is no secret: whoever knows it is whom he wants to be. ALWAYS_FORWARD_ONLY is for listeners that only the
    # proxy which wrote the header can reach.
    headers = [("x-forwarded-client-cert", xfcc(CALLER, by=GATEWAY))]
    assert stack.send("always-forward", path, headers=headers).seen.all("x-caller") == [WEBSITE]


def test_a_policy_for_a_server_name_is_chosen_by_the_connection_and_not_by_the_host(stack: Stack, http2: bool) -> None:
    own = stack.send("sni", "/x", host=TENANT_HOST, server_name=TENANT_HOST, http2=http2)
    assert own.status == 200
    path = stack.below("/x")
    for host, server_name in (
        (TENANT_HOST, HOST),
        ("other.example.com", TENANT_HOST),
        (TENANT_HOST, "other.example.com"),
    ):
        assert stack.send("sni", path, host=host, server_name=server_name, http2=http2).status == 403
    # Envoy does not say which name the client asked for
    assert stack.send("no-sni", path, host=TENANT_HOST, server_name=TENANT_HOST, http2=http2).status == 403
    assert not stack.arrived(path)
