"""What the trusted sources say about the client's certificate: read by grammar, with provenance, not verified."""

from dataclasses import dataclass
from typing import assert_never

from ext_authz.errors import Reason, Refusal
from ext_authz.evidence.client_cert import parse_client_cert
from ext_authz.evidence.pem import parse_url_encoded_chain, parse_url_encoded_pem
from ext_authz.evidence.settings import (
    CertificateSource,
    ClientCertSource,
    EvidenceSettings,
    PemHeaderSource,
    PrincipalSource,
    SourceCertificateSource,
    XfccSource,
)
from ext_authz.evidence.trusted_hop import select_element
from ext_authz.evidence.xfcc import parse_xfcc
from ext_authz.facts import Provenance, RequestFacts

__all__ = ["ConnectionEvidence", "Statement", "collect", "evidence_texts"]

_XFCC = "x-forwarded-client-cert"


@dataclass(frozen=True, slots=True)
class Statement:
    """What one source says; None wherever it does not speak of it.

    Attributes:
        provenance: the source.
        certificate: the leaf, DER.
        intermediates: the certificates above the leaf, DER.
        thumbprint: SHA-256 of the leaf as the proxy computed it (XFCC `Hash`), 32 bytes.
        uris: the leaf's URI SANs as the proxy read them (XFCC `URI`); empty when it says that there are none.
        principal: `source.principal`.
    """

    provenance: Provenance
    certificate: bytes | None = None
    intermediates: tuple[bytes, ...] = ()
    thumbprint: bytes | None = None
    uris: tuple[str, ...] | None = None
    principal: str | None = None


@dataclass(frozen=True, slots=True)
class ConnectionEvidence:
    """Every present source in the configured order; empty when no trusted source says anything."""

    statements: tuple[Statement, ...]


def evidence_texts(facts: RequestFacts, settings: EvidenceSettings) -> tuple[str | None, ...]:
    """Everything that `collect` reads, as it is; None for what is absent.

    For the same settings, the same texts are the same evidence: this is the key of what may be remembered about it.

    Raises:
        Refusal: HEADER_MALFORMED when a trusted header is not UTF-8.
    """
    texts: list[str | None] = []
    for source in settings.certificate_sources:
        match source:
            case XfccSource():
                header = facts.headers.joined(_XFCC)
                texts.append(header)
                # which element counts may depend on it, see `trusted_hop`
                texts.append(None if header is None else facts.destination_principal)
            case SourceCertificateSource():
                texts.append(facts.source_certificate or None)
            case PrincipalSource():
                texts.append(facts.source_principal or None)
            case PemHeaderSource(header=name):
                texts.append(facts.headers.joined(name))
            case ClientCertSource(header=name, chain_header=chain_name):
                texts.append(facts.headers.joined(name))
                texts.append(facts.headers.joined(chain_name))
            case _:
                assert_never(source)
    return tuple(texts)


def collect(facts: RequestFacts, settings: EvidenceSettings) -> ConnectionEvidence:
    """What each trusted source says; nothing else is read.

    Raises:
        Refusal: for the first source, in order, that is present and malformed: XFCC_*, CERTIFICATE_MALFORMED,
            CERTIFICATE_HEADER_MALFORMED, CERTIFICATE_CHAIN_WITHOUT_LEAF, HEADER_MALFORMED.
    """
    statements = (_statement(source, facts) for source in settings.certificate_sources)
    return ConnectionEvidence(tuple(statement for statement in statements if statement is not None))


def _statement(source: CertificateSource, facts: RequestFacts) -> Statement | None:
    match source:
        case XfccSource():
            text = facts.headers.joined(_XFCC)
            return None if text is None else _xfcc(text, source, facts.destination_principal)
        case SourceCertificateSource():
            if not facts.source_certificate:
                return None
            leaf = parse_url_encoded_pem(facts.source_certificate)
            return Statement(Provenance.SOURCE_CERTIFICATE, certificate=leaf)
        case PrincipalSource():
            if not facts.source_principal:
                return None
            return Statement(Provenance.SOURCE_PRINCIPAL, principal=facts.source_principal)
        case PemHeaderSource(header=name):
            text = facts.headers.joined(name)
            return None if text is None else _pem_header(text)
        case ClientCertSource(header=name, chain_header=chain_name):
            certificates = parse_client_cert(facts.headers.joined(name), facts.headers.joined(chain_name))
            if certificates is None:
                return None
            return Statement(Provenance.CLIENT_CERT, certificate=certificates[0], intermediates=certificates[1])
        case _:
            assert_never(source)


def _xfcc(text: str, source: XfccSource, destination_principal: str) -> Statement:
    element = select_element(parse_xfcc(text), source, destination_principal)
    chain = () if element.chain is None else parse_url_encoded_chain(element.chain)
    leaf = None if element.cert is None else parse_url_encoded_pem(element.cert)
    if chain:
        if leaf is not None and leaf != chain[0]:
            raise Refusal(Reason.XFCC_MALFORMED, "`Chain` does not begin with `Cert`")
        leaf, chain = chain[0], chain[1:]
    return Statement(
        Provenance.XFCC,
        certificate=leaf,
        intermediates=chain,
        thumbprint=element.hash,
        uris=element.uris,
    )


def _pem_header(text: str) -> Statement:
    # URL-encoded PEM has no comma: with one, the header came twice
    if "," in text:
        raise Refusal(Reason.CERTIFICATE_HEADER_MALFORMED, "the header that carries the certificate has two values")
    return Statement(Provenance.PEM_HEADER, certificate=parse_url_encoded_pem(text))
