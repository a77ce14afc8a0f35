"""Who was proved: the peer on the connection and the token it presented."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, TypeAlias

from ext_authz.errors import Refusal
from ext_authz.facts import Provenance
from ext_authz.spiffe import SpiffeId

__all__ = ["Confirmation", "JsonValue", "Peer", "PeerCertificate", "Principals", "TrustedBy", "VerifiedToken"]

JsonValue: TypeAlias = bool | int | float | str | tuple["JsonValue", ...] | Mapping[str, "JsonValue"] | None
"""JSON as immutable values: arrays are tuples, objects are read-only mappings."""


class TrustedBy(StrEnum):
    """Who verified the peer's certificate chain."""

    NOBODY = "nobody"
    PROXY = "proxy"
    BUNDLE = "bundle"


@dataclass(frozen=True, slots=True)
class PeerCertificate:
    """The leaf certificate whose key the caller proved to the proxy. Binding needs no more; identity needs `Peer.spiffe_id`.

    Attributes:
        der: the certificate, DER.
        thumbprint: SHA-256 of `der`, 32 bytes (RFC 8705 §3.1).
        uri_sans: every URI subject alternative name, in order, unvalidated.
        dns_sans: every DNS subject alternative name.
        subject: RFC 4514 text of the subject.
        not_before: seconds since the epoch.
        not_after: seconds since the epoch.
    """

    der: bytes
    thumbprint: bytes
    uri_sans: tuple[str, ...]
    dns_sans: tuple[str, ...]
    subject: str
    not_before: float
    not_after: float


@dataclass(frozen=True, slots=True)
class Peer:
    """The caller on the TLS connection, as far as the trusted evidence shows it.

    Attributes:
        thumbprint: SHA-256 of the DER leaf (32 bytes), from the certificate or the XFCC `Hash`; None when the evidence has none.
        certificate: the parsed leaf, when the evidence holds one.
        spiffe_id: set only when the chain was verified (`trusted_by` is not NOBODY) and the leaf is a valid X509-SVID.
        trusted_by: who verified the chain.
        identity_refusal: why `spiffe_id` is None; a rule that requires an identity denies with it.
        provenance: where the evidence came from, in the configured order.
    """

    thumbprint: bytes | None
    certificate: PeerCertificate | None
    spiffe_id: SpiffeId | None
    trusted_by: TrustedBy
    identity_refusal: Refusal | None
    provenance: tuple[Provenance, ...]

    def __post_init__(self) -> None:
        """Refuse a peer that is neither identified nor says why not."""
        if (self.spiffe_id is None) == (self.identity_refusal is None):
            raise ValueError("a peer has either a SPIFFE ID or the reason why it has none")
        if self.spiffe_id is not None and self.trusted_by is TrustedBy.NOBODY:
            raise ValueError("a SPIFFE ID needs a verified chain")


@dataclass(frozen=True, slots=True)
class Confirmation:
    """The `cnf` claim (RFC 7800) as far as we can check it.

    Attributes:
        x5t_s256: SHA-256 of the DER certificate the token is bound to, 32 bytes (RFC 8705 §3.1).
    """

    x5t_s256: bytes


class VerifiedToken(NamedTuple):
    """An access token whose signature and RFC 9068 claims have been verified.

    A named tuple, as a busy gateway makes one for each of thousands of tokens a second.

    Attributes:
        issuer_name: the issuer's name in our configuration.
        issuer: `iss`.
        subject: `sub`.
        client_id: `client_id`, or None where the issuer is configured not to send it.
        audiences: `aud`.
        scopes: the members of `scope`.
        token_id: `jti`, or None.
        issued_at: `iat`, seconds since the epoch, or None.
        expires_at: `exp`, seconds since the epoch.
        not_before: `nbf`, or None.
        skew: seconds of clock difference its issuer is allowed.
        confirmation: what the token is bound to, or None for a plain bearer token.
        claims: all claims, read-only.
    """

    issuer_name: str
    issuer: str
    subject: str
    client_id: str | None
    audiences: tuple[str, ...]
    scopes: frozenset[str]
    token_id: str | None
    issued_at: float | None
    expires_at: float
    not_before: float | None
    skew: float
    confirmation: Confirmation | None
    claims: Mapping[str, JsonValue]


class Principals(NamedTuple):
    """Everyone a rule can speak of; None is absent, never invalid. A named tuple, as one is made for every request."""

    peer: Peer | None
    token: VerifiedToken | None
