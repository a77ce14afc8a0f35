"""From evidence to the peer: trust, conflicts, what is remembered and for how long."""

from typing import Any

import pytest
from support.pki import NOW, Leaf, authority, ec_key, self_signed, xfcc

from ext_authz.errors import Reason, Refusal
from ext_authz.evidence.settings import (
    CertificateSource,
    ClientCertSource,
    EvidenceSettings,
    PemHeaderSource,
    PrincipalSource,
    SourceCertificateSource,
    XfccSource,
)
from ext_authz.facts import Headers, Provenance, RequestFacts
from ext_authz.identity.bundle import Bundles
from ext_authz.identity.peer import MAX_KEY_LENGTH, NEGATIVE_SECONDS, CertificateCache, peer_from
from ext_authz.principal import Peer, TrustedBy
from ext_authz.spiffe import SpiffeId, TrustDomain

ID = "spiffe://cluster.local/ns/a/sa/b"
OTHER_ID = "spiffe://cluster.local/ns/a/sa/admin"
TD = TrustDomain("cluster.local")
CA = authority()
LEAF = CA.svid(ID)
OTHER = CA.svid(OTHER_ID, key=ec_key("other"))
SELF_SIGNED = self_signed(uri_sans=[ID])
BUNDLES = Bundles.from_pem({TD: CA.pem})
PEM_HEADER = PemHeaderSource("x-client-certificate")
SERVER = "spiffe://cluster.local/ns/default/sa/server"


def facts(headers: dict[str, str] | None = None, **fields: Any) -> RequestFacts:
    return RequestFacts("GET", "/", "example.com", headers=Headers.merged(headers or {}), **fields)


def with_xfcc(text: str, **fields: Any) -> RequestFacts:
    return facts({"x-forwarded-client-cert": text}, **fields)


def peer(
    request: RequestFacts,
    *sources: CertificateSource,
    by_proxy: bool = False,
    bundles: Bundles = BUNDLES,
    now: float = NOW,
    cache: CertificateCache | None = None,
) -> Peer:
    settings = EvidenceSettings(sources, chain_verified_by_proxy=by_proxy)
    found = peer_from(request, settings, bundles, now, CertificateCache() if cache is None else cache)
    assert found is not None
    return found


def reason_for(request: RequestFacts, *sources: CertificateSource, **options: Any) -> Reason:
    with pytest.raises(Refusal) as refused:
        peer(request, *sources, **options)
    return refused.value.reason


def identity_reason(found: Peer) -> Reason:
    assert found.spiffe_id is None
    assert found.identity_refusal is not None
    assert found.identity_refusal.__traceback__ is None
    return found.identity_refusal.reason


def of(leaf: Leaf) -> RequestFacts:
    return facts(source_certificate=leaf.url_encoded_pem)


# where evidence comes from


def test_a_request_without_evidence_has_no_peer() -> None:
    settings = EvidenceSettings(
        (XfccSource(), SourceCertificateSource(), PrincipalSource(), PEM_HEADER, ClientCertSource())
    )
    assert peer_from(facts(), settings, BUNDLES, NOW, CertificateCache()) is None


def test_evidence_from_a_source_that_is_not_trusted_is_ignored() -> None:
    forged = facts({"x-forwarded-client-cert": xfcc(LEAF), "client-cert": LEAF.client_cert})
    settings = EvidenceSettings((SourceCertificateSource(),), chain_verified_by_proxy=True)
    assert peer_from(forged, settings, BUNDLES, NOW, CertificateCache()) is None
    assert peer_from(forged, EvidenceSettings(), BUNDLES, NOW, CertificateCache()) is None


@pytest.mark.parametrize(
    ("request_", "source"),
    [
        (of(LEAF), SourceCertificateSource()),
        (with_xfcc(xfcc(LEAF, with_cert=True)), XfccSource()),
        (facts({"x-client-certificate": LEAF.url_encoded_pem}), PEM_HEADER),
        (facts({"client-cert": LEAF.client_cert}), ClientCertSource()),
    ],
)
def test_a_certificate_from_any_source_is_verified_against_its_bundle(
    request_: RequestFacts, source: CertificateSource
) -> None:
    found = peer(request_, source)
    assert found.spiffe_id == SpiffeId.parse(ID)
    assert found.trusted_by is TrustedBy.BUNDLE
    assert found.thumbprint == LEAF.thumbprint
    assert found.certificate is not None
    assert found.certificate.der == LEAF.der
    assert len(found.provenance) == 1


@pytest.mark.parametrize("source", ["xfcc", "client-cert"])
def test_intermediates_come_with_the_certificate(source: str) -> None:
    leaf = CA.intermediate("issuing").svid(ID)
    if source == "xfcc":
        found = peer(with_xfcc(xfcc(leaf, with_chain=True)), XfccSource())
    else:
        headers = {"client-cert": leaf.client_cert, "client-cert-chain": leaf.client_cert_chain}
        found = peer(facts(headers), ClientCertSource())
    assert found.spiffe_id == SpiffeId.parse(ID)


def test_a_malformed_intermediate_denies_even_where_none_is_needed() -> None:
    request = facts({"client-cert": LEAF.client_cert, "client-cert-chain": ":AQ==:"})
    assert reason_for(request, ClientCertSource()) is Reason.CERTIFICATE_MALFORMED
    assert reason_for(request, ClientCertSource(), by_proxy=True) is Reason.CERTIFICATE_MALFORMED


def test_a_malformed_certificate_denies() -> None:
    assert reason_for(facts({"client-cert": ":AQ==:"}), ClientCertSource()) is Reason.CERTIFICATE_MALFORMED


# trust by bundle


def test_a_self_signed_certificate_binds_and_never_identifies() -> None:
    found = peer(of(SELF_SIGNED), SourceCertificateSource())
    assert found.thumbprint == SELF_SIGNED.thumbprint
    assert found.trusted_by is TrustedBy.NOBODY
    assert identity_reason(found) is Reason.CERTIFICATE_UNTRUSTED


@pytest.mark.parametrize(
    ("leaf", "reason"),
    [
        (CA.svid(ID, not_after=NOW - 1), Reason.CERTIFICATE_EXPIRED),
        (CA.svid(ID, not_before=NOW + 1), Reason.CERTIFICATE_NOT_YET_VALID),
        (CA.svid("spiffe://other/a"), Reason.TRUST_DOMAIN_UNKNOWN),
        (CA.leaf(subject="x"), Reason.SPIFFE_ID_MISSING),
        (CA.svid("https://x"), Reason.SPIFFE_ID_MALFORMED),
        (CA.svid(ID, uri_sans=[ID, ID]), Reason.SVID_MALFORMED),
        (authority("other").svid(ID), Reason.CERTIFICATE_UNTRUSTED),
    ],
)
def test_a_certificate_that_does_not_identify_says_why_and_still_binds(leaf: Leaf, reason: Reason) -> None:
    found = peer(of(leaf), SourceCertificateSource())
    assert identity_reason(found) is reason
    assert found.thumbprint == leaf.thumbprint
    assert found.trusted_by is TrustedBy.NOBODY


def test_an_empty_bundle_leaves_its_domain_without_identities() -> None:
    found = peer(of(LEAF), SourceCertificateSource(), bundles=Bundles.from_pem({TD: b""}))
    assert identity_reason(found) is Reason.CERTIFICATE_UNTRUSTED


def test_without_bundles_and_without_the_proxys_word_nothing_identifies() -> None:
    found = peer(of(LEAF), SourceCertificateSource(), bundles=Bundles())
    assert identity_reason(found) is Reason.CHAIN_NOT_VERIFIED
    assert found.thumbprint == LEAF.thumbprint


def test_a_hash_alone_binds_and_cannot_be_verified_here() -> None:
    found = peer(with_xfcc(xfcc(LEAF)), XfccSource())
    assert found.thumbprint == LEAF.thumbprint
    assert found.certificate is None
    assert identity_reason(found) is Reason.CHAIN_NEEDS_CERTIFICATE


def test_a_principal_alone_neither_binds_nor_identifies_without_the_proxys_word() -> None:
    # Envoy fills it for a certificate that nobody verified as well
    found = peer(facts(source_principal=ID), PrincipalSource())
    assert found.thumbprint is None
    assert identity_reason(found) is Reason.CHAIN_NEEDS_CERTIFICATE


# trust by the proxy


@pytest.mark.parametrize(
    ("request_", "source", "thumbprint"),
    [
        (of(LEAF), SourceCertificateSource(), LEAF.thumbprint),
        (with_xfcc(xfcc(LEAF)), XfccSource(), LEAF.thumbprint),
        (facts(source_principal=ID), PrincipalSource(), None),
        # an ambient waypoint: no Hash, so an identity without a thumbprint
        (with_xfcc(xfcc(LEAF, with_hash=False, with_subject=False)), XfccSource(), None),
    ],
)
def test_under_the_proxys_word_every_source_identifies(
    request_: RequestFacts, source: CertificateSource, thumbprint: bytes | None
) -> None:
    found = peer(request_, source, by_proxy=True, bundles=Bundles())
    assert found.spiffe_id == SpiffeId.parse(ID)
    assert found.trusted_by is TrustedBy.PROXY
    assert found.thumbprint == thumbprint


@pytest.mark.parametrize(
    ("request_", "source", "reason"),
    [
        (of(CA.leaf(subject="x")), SourceCertificateSource(), Reason.SPIFFE_ID_MISSING),
        (of(CA.svid(ID, uri_sans=[ID, OTHER_ID])), SourceCertificateSource(), Reason.SVID_MALFORMED),
        (of(CA.svid(ID, is_ca=True)), SourceCertificateSource(), Reason.SVID_MALFORMED),
        (with_xfcc(xfcc(self_signed())), XfccSource(), Reason.SPIFFE_ID_MISSING),
        (with_xfcc(f"By={SERVER};Hash={'a' * 64}"), XfccSource(), Reason.SPIFFE_ID_MISSING),
        (with_xfcc(xfcc(LEAF, uris=[ID, OTHER_ID])), XfccSource(), Reason.SVID_MALFORMED),
        (with_xfcc(xfcc(LEAF, uris=["", ID])), XfccSource(), Reason.SVID_MALFORMED),
        (with_xfcc(xfcc(LEAF, uris=["https://x"])), XfccSource(), Reason.SPIFFE_ID_MALFORMED),
        (with_xfcc(xfcc(LEAF, uris=["spiffe://cluster.local"])), XfccSource(), Reason.SVID_MALFORMED),
        (facts(source_principal="spiffe://cluster.local/a/"), PrincipalSource(), Reason.SPIFFE_ID_MALFORMED),
        (facts(source_principal="spiffe://cluster.local"), PrincipalSource(), Reason.SVID_MALFORMED),
        # what Envoy puts there for certificates without URI
        (facts(source_principal="CN=self"), PrincipalSource(), Reason.SPIFFE_ID_MISSING),
        (facts(source_principal="client.example.com"), PrincipalSource(), Reason.SPIFFE_ID_MISSING),
    ],
)
def test_under_the_proxys_word_a_certificate_without_one_spiffe_id_does_not_identify(
    request_: RequestFacts, source: CertificateSource, reason: Reason
) -> None:
    found = peer(request_, source, by_proxy=True)
    assert identity_reason(found) is reason
    assert found.trusted_by is TrustedBy.PROXY


def test_the_proxys_word_covers_the_period_because_connections_outlive_certificates() -> None:
    found = peer(of(CA.svid(ID, not_after=NOW - 1)), SourceCertificateSource(), by_proxy=True)
    assert found.spiffe_id == SpiffeId.parse(ID)


def test_xfcc_names_the_identity_where_the_principal_is_a_dns_name() -> None:
    request = with_xfcc(xfcc(LEAF), source_principal="client.example.com")
    assert peer(request, XfccSource(), PrincipalSource(), by_proxy=True).spiffe_id == SpiffeId.parse(ID)


def test_the_principal_names_the_identity_where_xfcc_has_only_the_hash() -> None:
    request = with_xfcc(f"By={SERVER};Hash={LEAF.thumbprint.hex()}", source_principal=ID)
    found = peer(request, XfccSource(), PrincipalSource(), by_proxy=True)
    assert found.spiffe_id == SpiffeId.parse(ID)
    assert found.thumbprint == LEAF.thumbprint


# evidence that contradicts itself


def test_sources_that_agree_are_one_peer_with_the_provenance_of_all() -> None:
    request = facts(
        {
            "x-forwarded-client-cert": xfcc(LEAF, with_cert=True, with_chain=True),
            "x-client-certificate": LEAF.url_encoded_pem,
            "client-cert": LEAF.client_cert,
        },
        source_certificate=LEAF.url_encoded_pem,
        source_principal=ID,
    )
    sources = (XfccSource(), PEM_HEADER, ClientCertSource(), SourceCertificateSource(), PrincipalSource())
    for by_proxy in (False, True):
        found = peer(request, *sources, by_proxy=by_proxy)
        assert found.spiffe_id == SpiffeId.parse(ID)
        assert found.provenance == (
            Provenance.XFCC,
            Provenance.PEM_HEADER,
            Provenance.CLIENT_CERT,
            Provenance.SOURCE_CERTIFICATE,
            Provenance.SOURCE_PRINCIPAL,
        )


@pytest.mark.parametrize(
    ("headers", "fields"),
    [
        ({"x-client-certificate": OTHER.url_encoded_pem}, {"source_certificate": LEAF.url_encoded_pem}),
        ({"client-cert": OTHER.client_cert}, {"source_certificate": LEAF.url_encoded_pem}),
        ({"x-forwarded-client-cert": xfcc(OTHER)}, {"source_certificate": LEAF.url_encoded_pem}),
        ({"x-forwarded-client-cert": xfcc(OTHER, with_cert=True)}, {"source_certificate": LEAF.url_encoded_pem}),
        ({"x-forwarded-client-cert": xfcc(LEAF, uris=[OTHER_ID])}, {"source_certificate": LEAF.url_encoded_pem}),
        ({"x-forwarded-client-cert": xfcc(LEAF, uris=[""])}, {"source_certificate": LEAF.url_encoded_pem}),
        ({"x-forwarded-client-cert": xfcc(LEAF, uris=[ID, OTHER_ID])}, {"source_certificate": LEAF.url_encoded_pem}),
        ({"x-forwarded-client-cert": xfcc(LEAF)}, {"source_principal": OTHER_ID}),
        ({"x-forwarded-client-cert": xfcc(self_signed())}, {"source_principal": ID}),
        ({"x-forwarded-client-cert": xfcc(LEAF)}, {"source_principal": f"{ID};DNS=x"}),
        ({}, {"source_certificate": LEAF.url_encoded_pem, "source_principal": OTHER_ID}),
        # a DNS name or subject that looks like an ID
        ({}, {"source_certificate": self_signed().url_encoded_pem, "source_principal": ID}),
    ],
)
@pytest.mark.parametrize("by_proxy", [False, True])
def test_sources_that_disagree_are_conflicting(headers: dict[str, str], fields: dict[str, str], by_proxy: bool) -> None:
    sources = (SourceCertificateSource(), PrincipalSource(), XfccSource(), PEM_HEADER, ClientCertSource())
    for order in (sources, sources[::-1]):
        assert reason_for(facts(headers, **fields), *order, by_proxy=by_proxy) is Reason.CONFLICTING_EVIDENCE


@pytest.mark.parametrize("key", ["Cert", "Chain"])
@pytest.mark.parametrize("by_proxy", [False, True])
def test_a_hash_of_another_certificate_than_the_one_beside_it_denies(key: str, by_proxy: bool) -> None:
    text = f'By={SERVER};Hash={OTHER.thumbprint.hex()};{key}="{LEAF.url_encoded_pem}";URI={ID}'
    assert reason_for(with_xfcc(text), XfccSource(), by_proxy=by_proxy) is Reason.XFCC_HASH_MISMATCH


def test_a_certificate_in_xfcc_without_hash_has_the_thumbprint_that_it_has() -> None:
    found = peer(with_xfcc(xfcc(LEAF, with_hash=False, with_cert=True)), XfccSource())
    assert found.thumbprint == LEAF.thumbprint


def test_a_forged_element_of_the_client_neither_binds_nor_identifies() -> None:
    forged = f"{xfcc(OTHER, by='spiffe://x/y')},{xfcc(LEAF)}"
    found = peer(with_xfcc(forged, destination_principal=SERVER), XfccSource(), by_proxy=True)
    assert found.thumbprint == LEAF.thumbprint
    assert found.spiffe_id == SpiffeId.parse(ID)


def test_a_san_that_forges_an_element_denies() -> None:
    attacker = self_signed(uri_sans=[f"x,By={SERVER};Hash={OTHER.thumbprint.hex()};URI={OTHER_ID}"])
    for by_proxy in (False, True):
        request = with_xfcc(xfcc(attacker), destination_principal=SERVER)
        assert reason_for(request, XfccSource(), by_proxy=by_proxy) is Reason.XFCC_BY_MISMATCH


# what is remembered


def test_the_same_evidence_is_decided_once() -> None:
    cache = CertificateCache()
    first = peer(of(LEAF), SourceCertificateSource(), cache=cache)
    assert peer(of(LEAF), SourceCertificateSource(), cache=cache) is first
    assert len(cache) == 1


def test_other_evidence_is_never_served_the_same_peer() -> None:
    cache = CertificateCache()
    requests = [
        of(LEAF),
        of(OTHER),
        of(SELF_SIGNED),
        with_xfcc(xfcc(LEAF)),
        with_xfcc(xfcc(OTHER)),
        with_xfcc(xfcc(LEAF), source_principal=ID),
        facts(source_principal=ID),
        facts(source_principal=OTHER_ID),
    ]
    sources = (SourceCertificateSource(), XfccSource(), PrincipalSource())
    alone = [peer(request, *sources, by_proxy=True) for request in requests]
    for _ in range(2):
        assert [peer(request, *sources, by_proxy=True, cache=cache) for request in requests] == alone
    assert len(cache) == len(requests)


def test_a_verification_is_not_remembered_beyond_the_chain() -> None:
    cache = CertificateCache()
    leaf = CA.intermediate("short", not_after=NOW + 30).svid(ID, not_after=NOW + 60)
    request = with_xfcc(xfcc(leaf, with_chain=True))
    assert peer(request, XfccSource(), cache=cache).spiffe_id is not None
    assert peer(request, XfccSource(), cache=cache, now=NOW + 29).spiffe_id is not None
    late = peer(request, XfccSource(), cache=cache, now=NOW + 31)
    assert identity_reason(late) is Reason.CERTIFICATE_UNTRUSTED


def test_a_certificate_that_expires_while_remembered_no_longer_identifies() -> None:
    cache = CertificateCache()
    request = of(CA.svid(ID, not_after=NOW + 60))
    assert peer(request, SourceCertificateSource(), cache=cache).spiffe_id is not None
    assert peer(request, SourceCertificateSource(), cache=cache, now=NOW + 60).spiffe_id is not None
    late = peer(request, SourceCertificateSource(), cache=cache, now=NOW + 61)
    assert identity_reason(late) is Reason.CERTIFICATE_EXPIRED


def test_a_verification_is_not_served_before_the_certificate_is_valid() -> None:
    cache = CertificateCache()
    request = of(CA.svid(ID, not_before=NOW))
    assert peer(request, SourceCertificateSource(), cache=cache).spiffe_id is not None
    # the clock is set back
    early = peer(request, SourceCertificateSource(), cache=cache, now=NOW - 5)
    assert identity_reason(early) is Reason.CERTIFICATE_NOT_YET_VALID


def test_a_certificate_not_yet_valid_is_looked_at_again_when_its_time_comes() -> None:
    cache = CertificateCache()
    request = of(CA.svid(ID, not_before=NOW + 3))
    assert identity_reason(peer(request, SourceCertificateSource(), cache=cache)) is Reason.CERTIFICATE_NOT_YET_VALID
    assert peer(request, SourceCertificateSource(), cache=cache, now=NOW + 3).spiffe_id is not None


def test_a_refused_identity_is_remembered_for_a_short_time() -> None:
    cache = CertificateCache()
    request = of(SELF_SIGNED)
    first = peer(request, SourceCertificateSource(), cache=cache)
    assert peer(request, SourceCertificateSource(), cache=cache, now=NOW + NEGATIVE_SECONDS - 0.1) is first
    again = peer(request, SourceCertificateSource(), cache=cache, now=NOW + NEGATIVE_SECONDS)
    assert identity_reason(again) is Reason.CERTIFICATE_UNTRUSTED
    assert again is not first
    # the clock is set back: what was refused later is no answer now
    assert peer(request, SourceCertificateSource(), cache=cache, now=NOW - 3600) is not again


def test_malformed_evidence_is_not_remembered() -> None:
    cache = CertificateCache()
    for _ in range(2):
        assert reason_for(facts(source_certificate="x"), SourceCertificateSource(), cache=cache)
    assert len(cache) == 0


def test_long_evidence_is_remembered_by_its_digest() -> None:
    cache = CertificateCache()
    text = xfcc(LEAF)
    long = ",".join([*["By=x;Hash=" + "0" * 64] * 60, f"By=x;URI={'a' * MAX_KEY_LENGTH}", text])
    source = XfccSource(by=(SERVER,))
    first = peer(with_xfcc(long), source, by_proxy=True, cache=cache)
    assert first.thumbprint == LEAF.thumbprint
    assert peer(with_xfcc(long), source, by_proxy=True, cache=cache) is first
    other = long.replace(LEAF.thumbprint.hex(), OTHER.thumbprint.hex())
    assert peer(with_xfcc(other), source, by_proxy=True, cache=cache).thumbprint == OTHER.thumbprint


def test_the_cache_is_bounded() -> None:
    cache = CertificateCache(capacity=10)
    for number in range(100):
        peer(with_xfcc(f"By={SERVER};Hash={number:064x};URI="), XfccSource(), cache=cache)
    assert len(cache) <= 10
