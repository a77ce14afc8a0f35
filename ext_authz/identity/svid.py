"""X509-SVIDs (SPIFFE X509-SVID standard): the rules for leaves, and the chain to the bundle of their own trust domain.

The leaf rules are ours because no web-PKI verifier has them: cryptography's accepts two URI SANs, a leaf without key
usage, a 1024-bit RSA leaf and a leaf that is its own anchor.
"""

import datetime as dt
import math
from dataclasses import dataclass
from typing import TypeVar

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID

from ext_authz.errors import Reason, Refusal
from ext_authz.identity.bundle import Bundle, Bundles
from ext_authz.identity.certificate import Leaf
from ext_authz.spiffe import SpiffeId

__all__ = ["MIN_RSA_BITS", "VerifiedSvid", "check_leaf", "parse_workload_id", "verify_svid"]

Extension = TypeVar("Extension", bound=x509.ExtensionType)

MIN_RSA_BITS = 2048
"""NIST SP 800-131A: shorter RSA keys are disallowed."""

MAX_RSA_BITS = 8192
"""Of an intermediate: verification time grows with the square of the size; no authority in use has more than 4096."""

MAX_RSA_EXPONENT_BITS = 32
"""Of an intermediate: verification time grows with the exponent; authorities in use have 65537. What is as long as the
modulus takes a hundred times as long."""

_CLIENT_USAGES = frozenset({ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE})


@dataclass(frozen=True, slots=True)
class VerifiedSvid:
    """An X509-SVID that chains to the bundle of its trust domain.

    Attributes:
        spiffe_id: whom it identifies.
        not_before: seconds since the epoch: when the last certificate of the chain becomes valid.
        not_after: seconds since the epoch: when the first certificate of the chain expires.
    """

    spiffe_id: SpiffeId
    not_before: float
    not_after: float


def parse_workload_id(uris: tuple[str, ...]) -> SpiffeId:
    """The SPIFFE ID of a leaf with these URI SANs (X509-SVID §2).

    Raises:
        Refusal: SPIFFE_ID_MISSING for none, SVID_MALFORMED for more than one or for a trust domain's own ID,
            SPIFFE_ID_MALFORMED.
    """
    if not uris:
        raise Refusal(Reason.SPIFFE_ID_MISSING, "the certificate has no URI subject alternative name")
    if len(uris) > 1:
        raise Refusal(Reason.SVID_MALFORMED, "more than one URI subject alternative name")
    spiffe_id = SpiffeId.parse(uris[0])
    if not spiffe_id.path:
        # X509-SVID §4.1: a leaf's ID has a path
        raise Refusal(Reason.SVID_MALFORMED, "the SPIFFE ID names a trust domain, not a workload")
    return spiffe_id


def check_leaf(leaf: Leaf) -> SpiffeId:
    """The SPIFFE ID of a leaf that follows the rules for X509-SVIDs; its chain and its time are not looked at.

    Raises:
        Refusal: as `parse_workload_id`; SVID_MALFORMED for the other leaf rules.
    """
    spiffe_id = parse_workload_id(leaf.peer.uri_sans)
    extensions = leaf.certificate.extensions
    constraints = _extension(extensions, x509.BasicConstraints)
    if constraints is not None and constraints.ca:
        raise Refusal(Reason.SVID_MALFORMED, "a CA certificate is not a leaf")  # X509-SVID §4.1
    usage = _extension(extensions, x509.KeyUsage)
    if usage is None or not usage.digital_signature:
        raise Refusal(Reason.SVID_MALFORMED, "key usage without digitalSignature")  # X509-SVID §4.3
    if usage.key_cert_sign or usage.crl_sign:
        raise Refusal(Reason.SVID_MALFORMED, "key usage of a signing certificate")  # X509-SVID §4.3
    purposes = _extension(extensions, x509.ExtendedKeyUsage)
    if purposes is not None and _CLIENT_USAGES.isdisjoint(purposes):
        # X509-SVID §4.4 leaves the extension optional; RFC 5280 §4.2.1.12: where it is, it restricts
        raise Refusal(Reason.SVID_MALFORMED, "extended key usage without clientAuth")
    _check_key(leaf.certificate)
    return spiffe_id


def verify_svid(
    leaf: Leaf,
    intermediates: tuple[x509.Certificate, ...],
    bundles: Bundles,
    now: float,
) -> VerifiedSvid:
    """Verify a leaf against the bundle of its own trust domain.

    Args:
        leaf: as parsed.
        intermediates: untrusted certificates that may link it to an authority, of each name at most one.
        bundles: every trust domain's authorities.
        now: seconds since the epoch.

    Raises:
        Refusal: as `check_leaf`; TRUST_DOMAIN_UNKNOWN, CERTIFICATE_NOT_YET_VALID, CERTIFICATE_EXPIRED (the leaf),
            CERTIFICATE_UNTRUSTED (the chain: also for an empty bundle and for an authority that has expired).
    """
    spiffe_id = check_leaf(leaf)
    bundle = bundles.get(spiffe_id.trust_domain)
    if bundle is None:
        raise Refusal(Reason.TRUST_DOMAIN_UNKNOWN, "no bundle for the trust domain of the certificate")
    if now < leaf.peer.not_before:
        raise Refusal(Reason.CERTIFICATE_NOT_YET_VALID, "the certificate is not valid yet")
    if now > leaf.peer.not_after:
        raise Refusal(Reason.CERTIFICATE_EXPIRED, "the certificate has expired")
    if bundle.policy is None:
        raise Refusal(Reason.CERTIFICATE_UNTRUSTED, "the bundle of the trust domain is empty")
    links = _links(intermediates, bundle)
    # X.509 counts whole seconds
    policy = bundle.policy.time(dt.datetime.fromtimestamp(math.floor(now), dt.UTC))
    try:
        chain = policy.build_client_verifier().verify(leaf.certificate, links).chain
    except Exception:  # noqa: BLE001 - VerificationError, and whatever a hostile chain makes the verifier raise
        raise Refusal(Reason.CERTIFICATE_UNTRUSTED, "no chain to the bundle of the trust domain") from None
    return VerifiedSvid(
        spiffe_id,
        not_before=max(certificate.not_valid_before_utc.timestamp() for certificate in chain),
        not_after=min(certificate.not_valid_after_utc.timestamp() for certificate in chain),
    )


def _links(intermediates: tuple[x509.Certificate, ...], bundle: Bundle) -> list[x509.Certificate]:
    """What may stand between a leaf and the authorities, so that there is one way through it and each step is short.

    The verifier tries every certificate that has the name of an issuer, again at each step. Anyone can send nine of one
    name that sign each other, and a hundred signatures would then be verified while everyone else waits.
    """
    # two sources may show the same one, and some send the root as well
    links = [one for one in dict.fromkeys(intermediates) if one not in bundle.certificates]
    try:
        names = {one.subject for one in links}
        keys = [one.public_key() for one in links]
    except Exception:  # noqa: BLE001 - hostile names and keys raise ValueError, UnsupportedAlgorithm and others
        raise Refusal(Reason.CERTIFICATE_UNTRUSTED, "a name or key above the leaf cannot be read") from None
    # RFC 5280 §6.1.3: the name is what links a certificate to the one above
    if len(names) != len(links):
        raise Refusal(Reason.CERTIFICATE_UNTRUSTED, "two certificates above the leaf have one name")
    if any(_is_slow(key) for key in keys):
        raise Refusal(Reason.CERTIFICATE_UNTRUSTED, "an RSA key above the leaf takes too long to verify with")
    return links


def _is_slow(key: CertificatePublicKeyTypes) -> bool:
    return isinstance(key, rsa.RSAPublicKey) and (
        key.key_size > MAX_RSA_BITS or key.public_numbers().e.bit_length() > MAX_RSA_EXPONENT_BITS
    )


def _check_key(certificate: x509.Certificate) -> None:
    try:
        key = certificate.public_key()
    except Exception:  # noqa: BLE001 - hostile keys raise ValueError, UnsupportedAlgorithm and others
        raise Refusal(Reason.SVID_MALFORMED, "a public key that cannot be read") from None
    if isinstance(key, rsa.RSAPublicKey) and key.key_size < MIN_RSA_BITS:
        raise Refusal(Reason.SVID_MALFORMED, f"an RSA key of fewer than {MIN_RSA_BITS} bits")


def _extension(extensions: x509.Extensions, kind: type[Extension]) -> Extension | None:
    try:
        return extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None
