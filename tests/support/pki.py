"""Keys, authorities and certificates for tests, sound or with any defect, and the texts Envoy makes of them.

    ca = authority("cluster.local")
    leaf = ca.svid("spiffe://cluster.local/ns/a/sa/b")
    leaf.url_encoded_pem     # `source.certificate`
    xfcc(leaf, by="spiffe://cluster.local/ns/b/sa/c")

Keys are made once per name and kind for the whole run; certificates are cheap. Default validity spans `NOW` and the
real clock, so that the same builders serve pure tests and tests with a real Envoy.
"""

import base64
import datetime as dt
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TypeAlias
from urllib.parse import quote

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

__all__ = [
    "NOW",
    "Authority",
    "Key",
    "Leaf",
    "authority",
    "ec_key",
    "ed25519_key",
    "key_pem",
    "make_certificate",
    "pem_of",
    "rsa_key",
    "self_signed",
    "url_encode_pem",
    "xfcc",
]

NOW = 1_795_000_000.0
"""The time most tests run at: seconds since the epoch, in November 2026."""

YEAR = 365 * 86_400.0
DIGITAL_SIGNATURE = frozenset({"digital_signature"})
CA_USAGE = frozenset({"key_cert_sign", "crl_sign"})
BOTH_AUTH = (ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH)

Key: TypeAlias = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey


@cache
def ec_key(name: str = "default") -> ec.EllipticCurvePrivateKey:
    """The P-256 key called `name`."""
    del name
    return ec.generate_private_key(ec.SECP256R1())


@cache
def rsa_key(name: str = "default", bits: int = 2048) -> rsa.RSAPrivateKey:
    """The RSA key called `name`."""
    del name
    return rsa.generate_private_key(public_exponent=65537, key_size=bits)


@cache
def ed25519_key(name: str = "default") -> ed25519.Ed25519PrivateKey:
    """The Ed25519 key called `name`."""
    del name
    return ed25519.Ed25519PrivateKey.generate()


def key_pem(key: Key) -> bytes:
    """PKCS #8 PEM, not encrypted."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def pem_of(*certificates: x509.Certificate) -> bytes:
    """One PEM text of all `certificates` in order."""
    return b"".join(certificate.public_bytes(serialization.Encoding.PEM) for certificate in certificates)


def url_encode_pem(pem: bytes) -> str:
    """PEM as Envoy encodes it in `source.certificate` and XFCC `Cert`: space, newline, `+`, `/`, `=`."""
    return quote(pem.decode(), safe="-")


@dataclass(frozen=True)
class Leaf:
    """A certificate and its key."""

    certificate: x509.Certificate
    key: Key
    chain: tuple[x509.Certificate, ...] = ()

    @property
    def der(self) -> bytes:
        """DER of the certificate."""
        return self.certificate.public_bytes(serialization.Encoding.DER)

    @property
    def pem(self) -> bytes:
        """PEM of the certificate alone."""
        return pem_of(self.certificate)

    @property
    def chain_pem(self) -> bytes:
        """PEM of the certificate and its intermediates, as a TLS client presents them."""
        return pem_of(self.certificate, *self.chain)

    @property
    def key_pem(self) -> bytes:
        """PKCS #8 PEM of the key."""
        return key_pem(self.key)

    @property
    def url_encoded_pem(self) -> str:
        """`source.certificate`, XFCC `Cert`."""
        return url_encode_pem(self.pem)

    @property
    def url_encoded_chain(self) -> str:
        """XFCC `Chain`: leaf first."""
        return url_encode_pem(self.chain_pem)

    @property
    def thumbprint(self) -> bytes:
        """SHA-256 of the DER."""
        return hashlib.sha256(self.der).digest()

    @property
    def x5t_s256(self) -> str:
        """`cnf.x5t#S256` (RFC 8705 §3.1)."""
        return base64.urlsafe_b64encode(self.thumbprint).rstrip(b"=").decode()

    @property
    def client_cert(self) -> str:
        """RFC 9440 `Client-Cert`."""
        return f":{base64.b64encode(self.der).decode()}:"

    @property
    def client_cert_chain(self) -> str:
        """RFC 9440 `Client-Cert-Chain`."""
        return ", ".join(
            f":{base64.b64encode(certificate.public_bytes(serialization.Encoding.DER)).decode()}:"
            for certificate in self.chain
        )


def _time(seconds: float) -> dt.datetime:
    return dt.datetime.fromtimestamp(seconds, dt.UTC)


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)] if common_name else [])


def _key_usage(names: frozenset[str]) -> x509.KeyUsage:
    every = (
        "digital_signature",
        "content_commitment",
        "key_encipherment",
        "data_encipherment",
        "key_agreement",
        "key_cert_sign",
        "crl_sign",
        "encipher_only",
        "decipher_only",
    )
    assert names <= set(every)
    return x509.KeyUsage(**{name: name in names for name in every})


def make_certificate(
    key: Key,
    issuer_key: Key,
    *,
    subject: str = "",
    issuer: x509.Name,
    uri_sans: Sequence[str] = (),
    dns_sans: Sequence[str] = (),
    other_sans: Sequence[x509.GeneralName] = (),
    is_ca: bool | None = False,
    path_length: int | None = None,
    key_usage: frozenset[str] | None = DIGITAL_SIGNATURE,
    extended_key_usage: Sequence[x509.ObjectIdentifier] | None = BOTH_AUTH,
    extended_key_usage_critical: bool = False,
    not_before: float = NOW - YEAR,
    not_after: float = NOW + 5 * YEAR,
    extensions: Sequence[tuple[x509.ExtensionType, bool]] = (),
    serial: int | None = None,
    with_key_identifiers: bool = True,
) -> x509.Certificate:
    """A certificate with exactly these parts; None leaves an extension out. Nothing checks that it makes sense."""
    builder = (
        x509.CertificateBuilder()
        .subject_name(_name(subject))
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number() if serial is None else serial)
        .not_valid_before(_time(not_before))
        .not_valid_after(_time(not_after))
    )
    sans: list[x509.GeneralName] = [x509.UniformResourceIdentifier(uri) for uri in uri_sans]
    sans += [x509.DNSName(name) for name in dns_sans]
    sans += other_sans
    if sans:
        # RFC 5280 §4.1.2.6: critical where the subject is empty
        builder = builder.add_extension(x509.SubjectAlternativeName(sans), critical=not subject)
    if is_ca is not None:
        builder = builder.add_extension(x509.BasicConstraints(is_ca, path_length), critical=True)
    if key_usage is not None:
        builder = builder.add_extension(_key_usage(key_usage), critical=True)
    if extended_key_usage is not None:
        builder = builder.add_extension(x509.ExtendedKeyUsage(extended_key_usage), critical=extended_key_usage_critical)
    if with_key_identifiers:
        builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        builder = builder.add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False
        )
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical=critical)
    algorithm = None if isinstance(issuer_key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return builder.sign(issuer_key, algorithm)


@dataclass(frozen=True)
class Authority:
    """A certificate authority: a root, or an intermediate with the certificates above it."""

    certificate: x509.Certificate
    key: Key
    above: tuple[x509.Certificate, ...] = ()

    @property
    def pem(self) -> bytes:
        """PEM of its own certificate: a bundle when it is a root."""
        return pem_of(self.certificate)

    def intermediate(self, name: str, **parts: object) -> "Authority":
        """An authority below this one."""
        key = ec_key(f"intermediate {name}")
        arguments: dict[str, object] = {
            "subject": name,
            "issuer": self.certificate.subject,
            "is_ca": True,
            "key_usage": CA_USAGE,
            "extended_key_usage": None,
            **parts,
        }
        certificate = make_certificate(key, self.key, **arguments)  # type: ignore[arg-type]  # parts as in make_certificate
        # a chain as presented leaves the root out
        above = (certificate, *self.above)
        return Authority(certificate, key, above)

    def leaf(self, *, key: Key | None = None, **parts: object) -> Leaf:
        """A leaf with `parts` as in `make_certificate`."""
        own = ec_key("leaf") if key is None else key
        arguments: dict[str, object] = {"issuer": self.certificate.subject, **parts}
        certificate = make_certificate(own, self.key, **arguments)  # type: ignore[arg-type]  # as above
        return Leaf(certificate, own, self.above)

    def svid(self, spiffe_id: str, *, key: Key | None = None, **parts: object) -> Leaf:
        """An X509-SVID as SPIRE and istiod issue them: one URI SAN, no subject, digitalSignature."""
        return self.leaf(key=key, **{"uri_sans": [spiffe_id], **parts})


def authority(name: str = "cluster.local", *, key: Key | None = None, **parts: object) -> Authority:
    """A root authority; the same name has the same key, in a new certificate."""
    own = ec_key(f"authority {name}") if key is None else key
    arguments: dict[str, object] = {
        "subject": f"root of {name}",
        "issuer": _name(f"root of {name}"),
        "is_ca": True,
        "key_usage": CA_USAGE,
        "extended_key_usage": None,
        "not_before": NOW - 5 * YEAR,
        "not_after": NOW + 10 * YEAR,
        **parts,
    }
    return Authority(make_certificate(own, own, **arguments), own)  # type: ignore[arg-type]  # as above


def self_signed(*, key: Key | None = None, subject: str = "self", **parts: object) -> Leaf:
    """A leaf that nobody vouches for (RFC 8705 §2.2)."""
    own = ec_key("self-signed") if key is None else key
    arguments: dict[str, object] = {"subject": subject, "issuer": _name(subject), **parts}
    return Leaf(make_certificate(own, own, **arguments), own)  # type: ignore[arg-type]  # as above


def xfcc(
    leaf: Leaf | None = None,
    *,
    by: str | Sequence[str] = "spiffe://cluster.local/ns/default/sa/server",
    uris: Sequence[str] | None = None,
    dns: Sequence[str] = (),
    with_hash: bool = True,
    with_cert: bool = False,
    with_chain: bool = False,
    with_subject: bool = True,
) -> str:
    """One XFCC element exactly as Envoy writes it: By, Hash, then Cert, Chain, Subject, URI, DNS as configured.

    By, URI and DNS are neither quoted nor escaped; Cert, Chain and Subject are quoted.
    """
    pairs = [f"By={name}" for name in ([by] if isinstance(by, str) else by)]
    sans: list[str] = []
    if leaf is not None:
        if with_hash:
            pairs.append(f"Hash={leaf.thumbprint.hex()}")
        if with_cert:
            pairs.append(f'Cert="{leaf.url_encoded_pem}"')
        if with_chain:
            pairs.append(f'Chain="{leaf.url_encoded_chain}"')
        if with_subject:
            subject = leaf.certificate.subject.rfc4514_string().replace('"', '\\"')
            pairs.append(f'Subject="{subject}"')
        try:
            extension = leaf.certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
            sans = extension.value.get_values_for_type(x509.UniformResourceIdentifier)
        except x509.ExtensionNotFound:
            sans = []
    # Envoy writes `URI=` for a certificate without one
    pairs += [f"URI={uri}" for uri in (uris if uris is not None else sans or [""])]
    pairs += [f"DNS={name}" for name in dns]
    return ";".join(pairs)
