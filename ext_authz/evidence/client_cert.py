"""`Client-Cert` and `Client-Cert-Chain` (RFC 9440), as a proxy sets them after it removed what the client sent."""

from ext_authz.errors import Reason, Refusal
from ext_authz.evidence.pem import MAX_CERTIFICATE_BYTES, MAX_CHAIN_LENGTH
from ext_authz.evidence.structured_fields import parse_byte_sequence, parse_byte_sequences

__all__ = ["parse_client_cert"]


def parse_client_cert(certificate: str | None, chain: str | None) -> tuple[bytes, tuple[bytes, ...]] | None:
    """The leaf and the certificates above it, DER.

    Args:
        certificate: `Client-Cert` (RFC 9440 §2.2), all lines joined with `,`; None when absent.
        chain: `Client-Cert-Chain` (RFC 9440 §2.3), likewise; it does not hold the leaf.

    Returns:
        None when both are absent.

    Raises:
        Refusal: CERTIFICATE_HEADER_MALFORMED, also for a second `Client-Cert`, which is an item and never a list;
            CERTIFICATE_CHAIN_WITHOUT_LEAF (RFC 9440 §2.3).
    """
    if certificate is None:
        if chain is not None:
            raise Refusal(Reason.CERTIFICATE_CHAIN_WITHOUT_LEAF, "a certificate chain without its leaf")
        return None
    leaf = parse_byte_sequence(certificate)
    above = () if chain is None else parse_byte_sequences(chain)
    if len(above) >= MAX_CHAIN_LENGTH:
        raise Refusal(Reason.CERTIFICATE_HEADER_MALFORMED, f"a chain of more than {MAX_CHAIN_LENGTH} certificates")
    for der in (leaf, *above):
        if not 0 < len(der) <= MAX_CERTIFICATE_BYTES:
            raise Refusal(
                Reason.CERTIFICATE_HEADER_MALFORMED,
                f"a certificate that is empty or of more than {MAX_CERTIFICATE_BYTES} bytes",
            )
    return leaf, above
