"""URL-encoded PEM, as Envoy and nginx send certificates: `source.certificate`, XFCC `Cert` and `Chain`, headers.

RFC 7468 is the PEM, RFC 3986 §2.1 the encoding. `+` is itself, never a space.
"""

import base64
import binascii
import re
from urllib.parse import unquote_to_bytes

from ext_authz.errors import Reason, Refusal

__all__ = [
    "MAX_CERTIFICATE_BYTES",
    "MAX_CHAIN_LENGTH",
    "MAX_PEM_TEXT_LENGTH",
    "parse_url_encoded_chain",
    "parse_url_encoded_pem",
]

MAX_CERTIFICATE_BYTES = 16_384
"""DER bytes of one certificate: some ten times a usual one; a TLS stack sends no more than a handshake message holds."""

MAX_CHAIN_LENGTH = 10
"""Certificates in one chain, leaf included; TLS stacks verify no deeper than this."""

MAX_PEM_TEXT_LENGTH = 65_536
"""Characters of URL-encoded text: as a header it could not be longer behind Envoy's default limit of 60 KiB."""

# RFC 3986 unreserved, the rest of the base64 alphabet (senders differ in whether they encode it), pct-encoded
_URL_ENCODED = re.compile(r"(?:[A-Za-z0-9._~+/=-]++|%[0-9A-Fa-f]{2})+")

# RFC 7468 §3, stricttextualmsg with either line end and lines of up to 76 characters (some encoders follow MIME)
_BEGIN, _END = rb"-----BEGIN CERTIFICATE-----\r?\n", rb"-----END CERTIFICATE-----"
_LINES = rb"(?:[A-Za-z0-9+/=]{1,76}\r?\n)+"
_PEM = re.compile(rb"%b(%b)%b(?:\r?\n)?" % (_BEGIN, _LINES, _END))
_CHAIN = re.compile(rb"(?:%b%b%b(?:\r?\n|\Z)){1,%d}" % (_BEGIN, _LINES, _END, MAX_CHAIN_LENGTH))
_EACH_BLOCK = re.compile(rb"%b(%b)%b" % (_BEGIN, _LINES, _END))


def parse_url_encoded_pem(text: str) -> bytes:
    """URL-encoded PEM of exactly one certificate to its DER.

    Raises:
        Refusal: CERTIFICATE_MALFORMED. Whether the DER is a certificate is not looked at.
    """
    pem = _PEM.fullmatch(_decoded(text))
    if pem is None:
        raise Refusal(Reason.CERTIFICATE_MALFORMED, "not exactly one PEM block of a certificate")
    return _der(pem[1])


def parse_url_encoded_chain(text: str) -> tuple[bytes, ...]:
    """URL-encoded PEM of one or more certificates to their DER, in order.

    Raises:
        Refusal: as `parse_url_encoded_pem`, and for more than `MAX_CHAIN_LENGTH` certificates.
    """
    pem = _decoded(text)
    if not _CHAIN.fullmatch(pem):
        raise Refusal(Reason.CERTIFICATE_MALFORMED, "not one to ten PEM blocks of certificates")
    return tuple(_der(block) for block in _EACH_BLOCK.findall(pem))


def _decoded(text: str) -> bytes:
    if len(text) > MAX_PEM_TEXT_LENGTH:
        raise Refusal(Reason.CERTIFICATE_MALFORMED, f"longer than {MAX_PEM_TEXT_LENGTH} characters")
    if not _URL_ENCODED.fullmatch(text):
        raise Refusal(Reason.CERTIFICATE_MALFORMED, "not URL-encoded text")
    return unquote_to_bytes(text)


def _der(lines: bytes) -> bytes:
    encoded = lines.replace(b"\r", b"").replace(b"\n", b"")
    try:
        der = base64.b64decode(encoded, validate=True)
    except binascii.Error:
        raise Refusal(Reason.CERTIFICATE_MALFORMED, "the PEM block is not base64") from None
    if base64.b64encode(der) != encoded:
        raise Refusal(Reason.CERTIFICATE_MALFORMED, "the PEM block is not canonical base64")
    if len(der) > MAX_CERTIFICATE_BYTES:
        raise Refusal(Reason.CERTIFICATE_MALFORMED, f"a certificate of more than {MAX_CERTIFICATE_BYTES} bytes")
    return der
