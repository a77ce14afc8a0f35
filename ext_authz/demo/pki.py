"""The demo's public key infrastructure: an authority per trust domain, X509-SVIDs, self-signed client certificates.

Everything is generated, on P-256, and valid for a day. Times are arguments in seconds since the epoch.
"""

import datetime as dt
import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ext_authz.demo.key_pair import KeyPair

__all__ = ["Authority", "Credential", "self_signed"]

LIFETIME_SECONDS = 86_400
"""A day: longer than anyone watches the demo, shorter than anyone should keep its keys."""

_BACKDATED_SECONDS = 60


@dataclass(frozen=True, slots=True)
class Credential:
    """A certificate and its private key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def thumbprint(self) -> bytes:
        """SHA-256 of the DER certificate (RFC 8705 §3.1)."""
        return self.certificate.fingerprint(hashes.SHA256())

    @property
    def certificate_pem(self) -> bytes:
        """The certificate as PEM."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def write(self, directory: Path, name: str) -> KeyPair:
        """Write `name.pem` and `name-key.pem`; the key is readable by the owner alone."""
        certificate_file, key_file = directory / f"{name}.pem", directory / f"{name}-key.pem"
        certificate_file.write_bytes(self.certificate_pem)
        key_file.touch(mode=0o600)
        key_file.write_bytes(
            self.key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return KeyPair(str(certificate_file), str(key_file))


@dataclass(frozen=True, slots=True)
class Authority:
    """The certificate authority of one trust domain."""

    trust_domain: str
    credential: Credential

    @classmethod
    def create(cls, trust_domain: str, now: float) -> Self:
        """A new self-signed root."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = _name(f"{trust_domain} root", trust_domain)
        root_id = x509.UniformResourceIdentifier(f"spiffe://{trust_domain}")
        builder = (
            _builder(name, name, key, now)
            .add_extension(x509.SubjectAlternativeName([root_id]), critical=False)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_key_usage(is_authority=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        )
        return cls(trust_domain, Credential(builder.sign(key, hashes.SHA256()), key))

    @property
    def bundle_pem(self) -> bytes:
        """The trust bundle: what others verify our SVIDs against."""
        return self.credential.certificate_pem

    def issue(self, path: str, now: float, names: Sequence[str] = ()) -> Credential:
        """An X509-SVID for `spiffe://<trust domain><path>`; `names` are DNS names or IP addresses a server answers to."""
        key = ec.generate_private_key(ec.SECP256R1())
        issuer = self.credential
        uri = x509.UniformResourceIdentifier(f"spiffe://{self.trust_domain}{path}")
        builder = (
            _builder(_name(path.rpartition("/")[2], self.trust_domain), issuer.certificate.subject, key, now)
            .add_extension(x509.SubjectAlternativeName([uri, *_server_names(names)]), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(is_authority=False), critical=True)
            .add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),
                critical=False,
            )
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.key.public_key()), critical=False)
        )
        return Credential(builder.sign(issuer.key, hashes.SHA256()), key)


def self_signed(common_name: str, now: float, uri: str | None = None) -> Credential:
    """A client certificate that nobody vouches for: good for binding (RFC 8705 §2.2), never for identity.

    `uri` claims an identity all the same, as an attacker would.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name(common_name, "self-signed")
    builder = _builder(name, name, key, now).add_extension(_key_usage(is_authority=False), critical=True)
    if uri is not None:
        identifier = x509.UniformResourceIdentifier(uri)
        builder = builder.add_extension(x509.SubjectAlternativeName([identifier]), critical=False)
    return Credential(builder.sign(key, hashes.SHA256()), key)


def _name(common_name: str, organization: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization),
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
        ]
    )


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, now: float
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(dt.datetime.fromtimestamp(now - _BACKDATED_SECONDS, dt.UTC))
        .not_valid_after(dt.datetime.fromtimestamp(now + LIFETIME_SECONDS, dt.UTC))
    )


def _key_usage(*, is_authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not is_authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=is_authority,
        crl_sign=is_authority,
        encipher_only=False,
        decipher_only=False,
    )


def _server_names(names: Iterable[str]) -> Iterable[x509.GeneralName]:
    for name in names:
        try:
            yield x509.IPAddress(ipaddress.ip_address(name))
        except ValueError:
            yield x509.DNSName(name)
