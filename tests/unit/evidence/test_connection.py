"""What the trusted sources say, with provenance."""

import pytest
from support.pki import Leaf, authority, pem_of, self_signed, url_encode_pem, xfcc

from ext_authz.errors import Reason, Refusal
from ext_authz.evidence.connection import Statement, collect, evidence_texts
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

CA = authority()
ID = "spiffe://cluster.local/ns/a/sa/b"
LEAF = CA.svid(ID)
DEEP = CA.intermediate("issuing").svid(ID)
PEM_HEADER = PemHeaderSource("x-client-certificate")


def facts(headers: dict[str, str] | None = None, **fields: str) -> RequestFacts:
    return RequestFacts("GET", "/", "example.com", headers=Headers.merged(headers or {}), **fields)  # type: ignore[arg-type]  # text fields only


def statements(request: RequestFacts, *sources: CertificateSource) -> tuple[Statement, ...]:
    return collect(request, EvidenceSettings(sources)).statements


def refusal_for(request: RequestFacts, *sources: CertificateSource) -> Reason:
    with pytest.raises(Refusal) as refused:
        statements(request, *sources)
    return refused.value.reason


def everything() -> RequestFacts:
    return facts(
        {
            "x-forwarded-client-cert": xfcc(LEAF),
            "x-client-certificate": LEAF.url_encoded_pem,
            "client-cert": LEAF.client_cert,
            "client-cert-chain": DEEP.client_cert_chain,
        },
        source_certificate=LEAF.url_encoded_pem,
        source_principal=ID,
    )


def test_nothing_is_read_unless_its_source_is_trusted() -> None:
    request = everything()
    assert statements(request) == ()
    assert evidence_texts(request, EvidenceSettings()) == ()


def test_each_source_speaks_in_the_configured_order() -> None:
    said = statements(
        everything(), ClientCertSource(), PrincipalSource(), XfccSource(), PEM_HEADER, SourceCertificateSource()
    )
    assert [statement.provenance for statement in said] == [
        Provenance.CLIENT_CERT,
        Provenance.SOURCE_PRINCIPAL,
        Provenance.XFCC,
        Provenance.PEM_HEADER,
        Provenance.SOURCE_CERTIFICATE,
    ]
    assert said[0].certificate == LEAF.der
    assert len(said[0].intermediates) == 1
    assert said[1].principal == ID
    assert said[2] == Statement(Provenance.XFCC, thumbprint=LEAF.thumbprint, uris=(ID,))
    assert said[3].certificate == said[4].certificate == LEAF.der


def test_absent_sources_say_nothing() -> None:
    sources = (ClientCertSource(), PrincipalSource(), XfccSource(), PEM_HEADER, SourceCertificateSource())
    assert statements(facts(), *sources) == ()
    assert set(evidence_texts(facts(), EvidenceSettings(sources))) == {None}


def test_an_empty_header_is_present_and_malformed() -> None:
    assert refusal_for(facts({"x-forwarded-client-cert": ""}), XfccSource()) is Reason.XFCC_MALFORMED
    assert refusal_for(facts({"x-client-certificate": ""}), PEM_HEADER) is Reason.CERTIFICATE_MALFORMED
    assert refusal_for(facts({"client-cert": ""}), ClientCertSource()) is Reason.CERTIFICATE_HEADER_MALFORMED
    texts = evidence_texts(facts({"x-client-certificate": ""}), EvidenceSettings((PEM_HEADER,)))
    assert texts == ("",)


def test_xfcc_header_lines_are_joined_in_order_as_envoy_would() -> None:
    lines = [f"By=x;Hash={'0' * 64}", xfcc(LEAF)]
    raw = Headers.raw(("x-forwarded-client-cert", line.encode()) for line in lines)
    request = RequestFacts(
        "GET", "/", "h", headers=raw, destination_principal="spiffe://cluster.local/ns/default/sa/server"
    )
    assert statements(request, XfccSource())[0].thumbprint == LEAF.thumbprint


def test_a_certificate_header_that_comes_twice_is_refused() -> None:
    lines = [("x-client-certificate", LEAF.url_encoded_pem.encode())] * 2
    request = RequestFacts("GET", "/", "h", headers=Headers.raw(lines))
    assert refusal_for(request, PEM_HEADER) is Reason.CERTIFICATE_HEADER_MALFORMED
    lines = [("client-cert", LEAF.client_cert.encode())] * 2
    request = RequestFacts("GET", "/", "h", headers=Headers.raw(lines))
    assert refusal_for(request, ClientCertSource()) is Reason.CERTIFICATE_HEADER_MALFORMED


def test_a_trusted_header_that_is_not_utf_8_is_refused() -> None:
    request = RequestFacts("GET", "/", "h", headers=Headers.raw([("client-cert", b"\xff")]))
    assert refusal_for(request, ClientCertSource()) is Reason.HEADER_MALFORMED
    with pytest.raises(Refusal):
        evidence_texts(request, EvidenceSettings((ClientCertSource(),)))


def test_a_client_cert_chain_alone_is_refused() -> None:
    request = facts({"client-cert-chain": DEEP.client_cert_chain})
    assert refusal_for(request, ClientCertSource()) is Reason.CERTIFICATE_CHAIN_WITHOUT_LEAF


def said_by_xfcc(leaf: Leaf, **parts: bool) -> Statement:
    return statements(facts({"x-forwarded-client-cert": xfcc(leaf, **parts)}), XfccSource())[0]  # type: ignore[arg-type]  # flags only


def test_the_leaf_of_xfcc_is_its_cert_or_the_first_of_its_chain() -> None:
    only_cert = said_by_xfcc(DEEP, with_cert=True)
    assert (only_cert.certificate, only_cert.intermediates) == (DEEP.der, ())
    only_chain = said_by_xfcc(DEEP, with_chain=True)
    both = said_by_xfcc(DEEP, with_cert=True, with_chain=True)
    assert only_chain == both
    assert both.certificate == DEEP.der
    assert len(both.intermediates) == 1


def test_an_xfcc_chain_of_another_leaf_is_malformed() -> None:
    chain = url_encode_pem(pem_of(self_signed().certificate))
    text = f'By=x;Hash={LEAF.thumbprint.hex()};Cert="{LEAF.url_encoded_pem}";Chain="{chain}"'
    assert refusal_for(facts({"x-forwarded-client-cert": text}), XfccSource()) is Reason.XFCC_MALFORMED


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('By=x;Cert=""', Reason.CERTIFICATE_MALFORMED),
        ('By=x;Chain="MIIB"', Reason.CERTIFICATE_MALFORMED),
        ('[{"Hash":"x"}]', Reason.XFCC_JSON_NOT_SUPPORTED),
        ("By=x;", Reason.XFCC_MALFORMED),
    ],
)
def test_a_malformed_element_is_refused(text: str, reason: Reason) -> None:
    assert refusal_for(facts({"x-forwarded-client-cert": text}), XfccSource()) is reason


def test_a_malformed_source_certificate_is_refused() -> None:
    assert refusal_for(facts(source_certificate="x"), SourceCertificateSource()) is Reason.CERTIFICATE_MALFORMED


def test_the_texts_tell_apart_whatever_the_evidence_depends_on() -> None:
    settings = EvidenceSettings((XfccSource(), ClientCertSource(), PEM_HEADER))
    requests = [
        facts({"x-forwarded-client-cert": "By=x"}),
        facts({"x-forwarded-client-cert": "By=x"}, destination_principal="spiffe://td/a"),
        facts({"client-cert": "By=x"}),
        facts({"client-cert-chain": "By=x"}),
        facts({"x-client-certificate": "By=x"}),
        facts(),
    ]
    assert len({evidence_texts(request, settings) for request in requests}) == len(requests)
