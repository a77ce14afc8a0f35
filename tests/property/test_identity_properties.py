"""Certificates: any bytes yield a peer or our own refusal, and the leaf rules hold whatever else is in a certificate."""

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st
from support.pki import NOW, authority, xfcc

from ext_authz.errors import Reason, Refusal
from ext_authz.evidence.settings import (
    ClientCertSource,
    EvidenceSettings,
    PemHeaderSource,
    PrincipalSource,
    SourceCertificateSource,
    XfccSource,
)
from ext_authz.facts import Headers, RequestFacts
from ext_authz.identity.bundle import Bundle, Bundles
from ext_authz.identity.certificate import parse_leaf
from ext_authz.identity.peer import CertificateCache, peer_from
from ext_authz.identity.svid import verify_svid
from ext_authz.principal import Peer, TrustedBy
from ext_authz.spiffe import TrustDomain

TD = TrustDomain("cluster.local")
CA = authority()
LEAF = CA.svid("spiffe://cluster.local/ns/a/sa/b")
OTHER = CA.svid("spiffe://cluster.local/ns/a/sa/c")
BUNDLES = Bundles.from_pem({TD: CA.pem})
USAGES = ["digital_signature", "key_encipherment", "key_agreement", "key_cert_sign", "crl_sign"]


@settings(max_examples=100, deadline=None)
@given(st.integers(0, len(LEAF.der) - 1), st.binary(max_size=3), st.integers(0, 3))
def test_a_certificate_with_any_bytes_changed_is_malformed_or_does_not_verify(
    position: int, inserted: bytes, removed: int
) -> None:
    der = LEAF.der[:position] + inserted + LEAF.der[position + removed :]
    try:
        verify_svid(parse_leaf(der), (), BUNDLES, NOW)
    except Refusal:
        return
    assert der == LEAF.der


@settings(max_examples=50, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_yield_a_bundle_or_a_clear_error(pem: bytes) -> None:
    for text in (pem, CA.pem + pem, b"-----BEGIN CERTIFICATE-----\n" + pem + b"\n-----END CERTIFICATE-----\n"):
        try:
            bundle = Bundle.from_pem(TD, text)
        except ValueError as error:
            problem = str(error)
        else:
            assert all(certificate == CA.certificate for certificate in bundle.certificates)
            continue
        assert "`cluster.local`" in problem


@settings(max_examples=50, deadline=None)
@given(
    uris=st.lists(st.sampled_from(["spiffe://cluster.local/a", "spiffe://cluster.local", "https://x", ""]), max_size=2),
    is_ca=st.sampled_from([None, False, True]),
    usage=st.none() | st.sets(st.sampled_from(USAGES)).map(frozenset),
    trusted=st.booleans(),
)
def test_only_a_leaf_that_keeps_every_rule_identifies(
    uris: list[str], is_ca: bool | None, usage: frozenset[str] | None, trusted: bool
) -> None:
    issuer = CA if trusted else authority("another")
    leaf = issuer.leaf(subject="x", uri_sans=uris, is_ca=is_ca, key_usage=usage)
    expected = (
        trusted
        and uris == ["spiffe://cluster.local/a"]
        and not is_ca
        and usage is not None
        and "digital_signature" in usage
        and not usage & {"key_cert_sign", "crl_sign"}
    )
    request = RequestFacts("GET", "/", "h", source_certificate=leaf.url_encoded_pem)
    peer = peer_from(request, EvidenceSettings((SourceCertificateSource(),)), BUNDLES, NOW, CertificateCache())
    assert peer is not None
    assert (peer.spiffe_id is not None) == expected
    assert peer.thumbprint == leaf.thumbprint


EVIDENCE = EvidenceSettings(
    (SourceCertificateSource(), XfccSource(), PrincipalSource(), PemHeaderSource("x-cert"), ClientCertSource())
)
SETTINGS = (EVIDENCE, EvidenceSettings(EVIDENCE.certificate_sources, chain_verified_by_proxy=True))
IDENTITY_REFUSAL = Refusal(Reason.CHAIN_NOT_VERIFIED, "any")
CACHES = tuple(CertificateCache(capacity=20) for _ in SETTINGS)

pem = st.sampled_from(["", "x", LEAF.url_encoded_pem, OTHER.url_encoded_pem])
principals = st.sampled_from(["", "CN=x", "spiffe://", "spiffe://cluster.local/ns/a/sa/b"]) | st.text(max_size=20)
headers = st.dictionaries(
    st.sampled_from(["x-forwarded-client-cert", "x-cert", "client-cert", "client-cert-chain"]),
    st.sampled_from(
        [
            "",
            xfcc(LEAF),
            xfcc(OTHER, with_cert=True),
            xfcc(LEAF, with_hash=False),
            LEAF.url_encoded_pem,
            LEAF.client_cert,
            OTHER.client_cert,
        ]
    )
    | st.text(max_size=20),
    max_size=4,
)


def told(peer: Peer | None) -> object:
    """A peer, comparable: refusals are exceptions and equal to themselves alone."""
    if peer is None:
        return None
    refusal = None if peer.identity_refusal is None else (peer.identity_refusal.reason, peer.identity_refusal.detail)
    return replace(peer, identity_refusal=IDENTITY_REFUSAL) if refusal else peer, refusal


@settings(max_examples=100, deadline=None)
@given(pem, principals, headers, st.sampled_from([0, 1]), st.sampled_from([NOW, 0.0, NOW * 2]))
def test_any_evidence_yields_a_peer_or_none_or_a_refusal_remembered_or_not(
    certificate: str, principal: str, sent: dict[str, str], which: int, now: float
) -> None:
    request = RequestFacts(
        "GET", "/", "h", headers=Headers.merged(sent), source_certificate=certificate, source_principal=principal
    )
    try:
        fresh = peer_from(request, SETTINGS[which], BUNDLES, now, CertificateCache())
    except Refusal as refusal:
        reason = refusal.reason
    else:
        # a memory that many requests share tells each of them the same as one of its own
        assert told(peer_from(request, SETTINGS[which], BUNDLES, now, CACHES[which])) == told(fresh)
        assert (fresh is None) == (not certificate and not principal and not sent)
        if fresh is not None and fresh.spiffe_id is not None:
            assert fresh.trusted_by in {TrustedBy.PROXY, TrustedBy.BUNDLE}
        return
    assert reason in Reason
    try:
        peer_from(request, SETTINGS[which], BUNDLES, now, CACHES[which])
    except Refusal as refusal:
        again = refusal.reason
    assert again is reason
