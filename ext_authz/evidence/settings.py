"""Which parts of a CheckRequest the operator trusts, and how to read them. Nothing else is ever read."""

from dataclasses import dataclass
from typing import TypeAlias

__all__ = [
    "CertificateSource",
    "ClientCertSource",
    "EvidenceSettings",
    "PemHeaderSource",
    "PrincipalSource",
    "SourceCertificateSource",
    "TokenSource",
    "XfccSource",
]


@dataclass(frozen=True, slots=True)
class SourceCertificateSource:
    """`attributes.source.certificate`: needs `include_peer_certificate: true` in Envoy's filter."""


@dataclass(frozen=True, slots=True)
class PrincipalSource:
    """`attributes.source.principal` as a SPIFFE ID; an identity only where the proxy verifies the chain."""


@dataclass(frozen=True, slots=True)
class XfccSource:
    """The `x-forwarded-client-cert` header.

    Attributes:
        trusted_hops: which element counts, from the right: 1 is the one our own proxy appended.
        by: where not empty, the element's `By` must be one of these, exactly. To be named where our own proxy only
            forwards the header, and for more than one hop, if clients may send XFCC text of their own: it is what tells
            a proxy's element from one that a client forged (see `ext_authz.evidence.trusted_hop`).
        via: the SPIFFE IDs of the proxies in front of our own, named exactly when there is more than one hop. Whoever
            can reach our proxy can write elements; only these may have written the ones that count.

    Raises:
        ValueError: for hops without `via`, or `via` without hops.
    """

    trusted_hops: int = 1
    by: tuple[str, ...] = ()
    via: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse a second hop that anybody could pretend to be."""
        if (self.trusted_hops > 1) != bool(self.via):
            raise ValueError(
                "`via` names the proxies in front of the one that asks us: write it with more than one hop, and only then"
            )


@dataclass(frozen=True, slots=True)
class PemHeaderSource:
    """A header that the proxy sets (and strips from clients) with the leaf as URL-encoded PEM.

    Attributes:
        header: lowercase name.
    """

    header: str


@dataclass(frozen=True, slots=True)
class ClientCertSource:
    """RFC 9440 `Client-Cert`, and `Client-Cert-Chain` for the intermediates.

    Attributes:
        header: lowercase name.
        chain_header: lowercase name.
    """

    header: str = "client-cert"
    chain_header: str = "client-cert-chain"


CertificateSource: TypeAlias = (
    SourceCertificateSource | PrincipalSource | XfccSource | PemHeaderSource | ClientCertSource
)


@dataclass(frozen=True, slots=True)
class TokenSource:
    """A header that carries the access token.

    Attributes:
        header: lowercase name.
        scheme: `bearer` for `Authorization: Bearer …` (compared without case), or None when the header is the bare token.
    """

    header: str = "authorization"
    scheme: str | None = "bearer"


@dataclass(frozen=True, slots=True)
class EvidenceSettings:
    """Everything that may be read from a request to find out who sent it.

    Attributes:
        certificate_sources: in order; two that disagree deny.
        token_sources: in order; more than one that is present denies.
        chain_verified_by_proxy: the operator declares that the proxy refuses certificates it cannot verify (the Istio case).
    """

    certificate_sources: tuple[CertificateSource, ...] = ()
    token_sources: tuple[TokenSource, ...] = (TokenSource(),)
    chain_verified_by_proxy: bool = False
