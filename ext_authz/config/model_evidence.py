"""What may be read from a request, as it is written in `kind: Server`."""

from typing import Annotated, Literal, TypeAlias

from pydantic import Discriminator, Field, Tag, model_validator

from ext_authz.config.policy_words import MatchedHeader, SpiffeIdText
from ext_authz.config.written import Items, Written, refuse

__all__ = [
    "ClientCert",
    "PemHeader",
    "SourceCertificate",
    "SourcePrincipal",
    "WrittenEvidence",
    "WrittenSource",
    "WrittenTokenSource",
    "Xfcc",
]


class SourceCertificate(Written):
    """The `source.certificate` attribute: needs `include_peer_certificate: true` in Envoy's filter."""

    type: Literal["source-certificate"]
    """This kind of source."""


class SourcePrincipal(Written):
    """The `source.principal` attribute as a SPIFFE ID; needs `chain_verified_by: proxy`."""

    type: Literal["source-principal"]
    """This kind of source."""


class Xfcc(Written):
    """The `x-forwarded-client-cert` header. Its left part may be the client's own text."""

    type: Literal["xfcc"]
    """This kind of source."""

    trusted_hops: Annotated[int, Field(ge=1, le=16)] = Field(examples=[1])
    """Which element counts, from the right: 1 is the one that the proxy calling us appended. Always written."""

    by: Items[SpiffeIdText] = Field(default=(), examples=[["spiffe://cluster.local/ns/istio-system/sa/gateway"]])
    """Where not empty, the element's `By` must be one of these."""

    via: Items[SpiffeIdText] = Field(default=(), examples=[["spiffe://cluster.local/ns/istio-system/sa/gateway"]])
    """The proxies in front of the one that asks us, by SPIFFE ID; written exactly when `trusted_hops` is above 1."""

    @model_validator(mode="after")
    def _names_the_proxies_in_front(self) -> "Xfcc":
        if self.trusted_hops > 1 and not self.via:
            raise refuse(
                "an element of a proxy in front is trusted and `via` does not say whose; write that proxy's SPIFFE ID",
                at="trusted_hops",
            )
        if self.trusted_hops == 1 and self.via:
            raise refuse("with one hop no proxy in front counts; remove `via`, or write `trusted_hops: 2`", at="via")
        return self


class PemHeader(Written):
    """A header with the certificate as URL-encoded PEM, which the proxy sets and never lets through from a client."""

    type: Literal["pem-header"]
    """This kind of source."""

    header: MatchedHeader = Field(examples=["x-client-certificate"])
    """Its name."""


class ClientCert(Written):
    """The headers of RFC 9440, which the proxy sets and never lets through from a client."""

    type: Literal["client-cert"]
    """This kind of source."""

    header: MatchedHeader = "client-cert"
    """The leaf."""

    chain_header: MatchedHeader = "client-cert-chain"
    """The intermediates."""


def _kind_of_source(value: object) -> str | None:
    kind = value.get("type") if isinstance(value, dict) else "source-certificate"
    return kind if isinstance(kind, str) else None


WrittenSource: TypeAlias = Annotated[
    Annotated[SourceCertificate, Tag("source-certificate")]
    | Annotated[SourcePrincipal, Tag("source-principal")]
    | Annotated[Xfcc, Tag("xfcc")]
    | Annotated[PemHeader, Tag("pem-header")]
    | Annotated[ClientCert, Tag("client-cert")],
    Discriminator(_kind_of_source),
]


class WrittenTokenSource(Written):
    """A header that carries the access token."""

    header: MatchedHeader = "authorization"
    """Its name."""

    scheme: Literal["bearer", "none"] = "bearer"
    """`bearer` for `Bearer <token>`, `none` when the header is the bare token."""


class WrittenEvidence(Written):
    """What may be read from a request to find out who sent it. Nothing else is ever read."""

    certificate_sources: Items[WrittenSource] = Field(default=(), examples=[[{"type": "xfcc", "trusted_hops": 1}]])
    """In order; two that disagree deny."""

    token_sources: Items[WrittenTokenSource] = Field(
        default=(WrittenTokenSource(),), examples=[[{"header": "authorization"}]], json_schema_extra={"minItems": 1}
    )
    """A request with a token in more than one of them is denied."""

    chain_verified_by: Literal["proxy", "bundles", "nobody"] | None = Field(default=None, examples=["proxy"])
    """Who verifies certificates, written whenever there are certificate sources. `proxy`: the proxy refuses what it cannot
    verify (Istio). `bundles`: this server does, against `trust_bundles`. `nobody`: certificates bind tokens and identify
    no one."""

    @model_validator(mode="after")
    def _consistent(self) -> "WrittenEvidence":
        if self.certificate_sources and self.chain_verified_by is None:
            raise refuse(
                "there are certificate sources and `chain_verified_by` is missing; write `proxy` (the proxy refuses "
                "certificates that it cannot verify), `bundles` (this server verifies them) or `nobody`"
            )
        if self.chain_verified_by not in {None, "proxy"} and any(
            isinstance(source, SourcePrincipal) for source in self.certificate_sources
        ):
            raise refuse(
                "`source-principal` is also filled from certificates that nobody verified; write "
                "`chain_verified_by: proxy` if the proxy does, or remove that source",
                at="certificate_sources",
            )
        if self.chain_verified_by not in {None, "proxy"} and any(
            isinstance(source, Xfcc) and source.via for source in self.certificate_sources
        ):
            raise refuse(
                "`via` names proxies by certificates that nobody verified, so anyone could take such a name; write "
                "`chain_verified_by: proxy` if the proxies refuse what they cannot verify, or ask from the proxy in front "
                "with `trusted_hops: 1`",
                at="certificate_sources",
            )
        if not self.token_sources:
            raise refuse("no token can be found; remove the key for `Authorization: Bearer`", at="token_sources")
        for kind, keys in (
            ("certificate_sources", [source.model_dump_json() for source in self.certificate_sources]),
            ("token_sources", [source.header for source in self.token_sources]),
        ):
            if len(set(keys)) != len(keys):
                raise refuse("the same source is written twice; keep one of the two", at=kind)
        return self
