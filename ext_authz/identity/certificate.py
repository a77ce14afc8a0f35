"""DER to certificate values. Whatever a certificate holds, the outcome is a value or CERTIFICATE_MALFORMED."""

import hashlib
from dataclasses import dataclass

from cryptography import x509

from ext_authz.errors import Reason, Refusal
from ext_authz.evidence.pem import MAX_CERTIFICATE_BYTES
from ext_authz.principal import PeerCertificate

__all__ = ["Leaf", "load_certificate", "parse_certificate", "parse_leaf"]


@dataclass(frozen=True, slots=True)
class Leaf:
    """A leaf certificate, parsed and nothing more.

    Attributes:
        peer: what it says, as values.
        certificate: for verification.
    """

    peer: PeerCertificate
    certificate: x509.Certificate


def load_certificate(der: bytes) -> x509.Certificate:
    """DER to a certificate whose extensions can be read.

    Raises:
        Refusal: CERTIFICATE_MALFORMED.
    """
    if len(der) > MAX_CERTIFICATE_BYTES:
        raise Refusal(Reason.CERTIFICATE_MALFORMED, f"a certificate of more than {MAX_CERTIFICATE_BYTES} bytes")
    try:
        certificate = x509.load_der_x509_certificate(der)
        # parsed on first access: a malformed or duplicate extension shows here and nowhere later
        _ = certificate.extensions
    except Exception:  # noqa: BLE001 - hostile DER makes the parser raise ValueError, x509 errors, warnings and others
        raise Refusal(Reason.CERTIFICATE_MALFORMED, "not an X.509 certificate that can be read") from None
    return certificate


def parse_leaf(der: bytes) -> Leaf:
    """DER to a leaf.

    Raises:
        Refusal: CERTIFICATE_MALFORMED.
    """
    certificate = load_certificate(der)
    try:
        peer = _describe(der, certificate)
    except Exception:  # noqa: BLE001 - as above: names and times are decoded on access
        raise Refusal(Reason.CERTIFICATE_MALFORMED, "a certificate whose names or times cannot be read") from None
    return Leaf(peer, certificate)


def parse_certificate(der: bytes) -> PeerCertificate:
    """DER to what the certificate says.

    Raises:
        Refusal: CERTIFICATE_MALFORMED.
    """
    return parse_leaf(der).peer


def _describe(der: bytes, certificate: x509.Certificate) -> PeerCertificate:
    try:
        sans = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        uris: list[str] = []
        names: list[str] = []
    else:
        uris = sans.get_values_for_type(x509.UniformResourceIdentifier)
        names = sans.get_values_for_type(x509.DNSName)
    return PeerCertificate(
        der=der,
        thumbprint=hashlib.sha256(der).digest(),
        uri_sans=tuple(uris),
        dns_sans=tuple(names),
        subject=certificate.subject.rfc4514_string(),
        not_before=certificate.not_valid_before_utc.timestamp(),
        not_after=certificate.not_valid_after_utc.timestamp(),
    )
