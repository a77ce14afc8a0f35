"""Who may ask the demo's authorization server for what, and how they prove who they are: with a certificate."""

import datetime as dt
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Self
from urllib.parse import unquote_to_bytes

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from ext_authz.demo.json_web import base64url

__all__ = ["AuthenticationMethod", "Client", "ClientCertificate", "TrustBundles", "clients_from_file"]

# Envoy under SANITIZE_SET with `cert: true` writes exactly this, from the connection and from nothing else
_XFCC = re.compile(r'(?:By=[^;,"]*;)*Hash=[0-9a-f]{64};Cert="([A-Za-z0-9%._~-]+)"')


class AuthenticationMethod(StrEnum):
    """`token_endpoint_auth_method` (RFC 8705 §2.1.1, §2.2.1, RFC 7591 §2)."""

    TLS_CLIENT_AUTH = "tls_client_auth"
    SELF_SIGNED_TLS_CLIENT_AUTH = "self_signed_tls_client_auth"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Client:
    """One registered client; the names are those of RFC 7591 and RFC 8705 where they have one.

    Attributes:
        client_id: its name.
        token_endpoint_auth_method: how it authenticates.
        grant_types: what it may do at the token endpoint.
        scope: what it may ask for.
        resources: what it may ask tokens for (RFC 8707); the first is the default.
        tls_client_auth_san_uri: for `tls_client_auth`: the URI SAN its certificate must have.
        certificate_thumbprints: for `self_signed_tls_client_auth`: base64url SHA-256 of each registered certificate.
        redirect_uris: for `authorization_code`, compared exactly.
        tls_client_certificate_bound_access_tokens: False only for a client that shows what unbound tokens are worth.
        access_token_lifetime: seconds; negative for a client that shows what an expired token is worth.
        may_introspect: the introspection endpoint answers it.
        may_administer: it may rotate the signing key.
    """

    client_id: str
    token_endpoint_auth_method: AuthenticationMethod
    grant_types: frozenset[str]
    scope: frozenset[str]
    resources: tuple[str, ...]
    tls_client_auth_san_uri: str | None = None
    certificate_thumbprints: frozenset[str] = frozenset()
    redirect_uris: frozenset[str] = frozenset()
    tls_client_certificate_bound_access_tokens: bool = True
    access_token_lifetime: int = 300
    may_introspect: bool = False
    may_administer: bool = False

    def authenticates_with(self, certificate: "ClientCertificate | None", bundles: "TrustBundles", now: float) -> bool:
        """Whether the certificate on the connection proves that this client is asking."""
        match self.token_endpoint_auth_method:
            case AuthenticationMethod.NONE:
                return True
            case AuthenticationMethod.SELF_SIGNED_TLS_CLIENT_AUTH:
                return certificate is not None and certificate.thumbprint in self.certificate_thumbprints
            case AuthenticationMethod.TLS_CLIENT_AUTH:
                return (
                    certificate is not None
                    and certificate.uri == self.tls_client_auth_san_uri
                    and bundles.vouch_for(certificate, now)
                )


@dataclass(frozen=True, slots=True)
class ClientCertificate:
    """The certificate whose key the client proved to Envoy; nobody has verified its chain yet.

    Attributes:
        certificate: parsed.
        thumbprint: `x5t#S256`.
        uri: its only URI SAN, or None.
    """

    certificate: x509.Certificate
    thumbprint: str
    uri: str | None

    @classmethod
    def from_xfcc(cls, header: str | None) -> Self | None:
        """From `x-forwarded-client-cert`, as the Envoy in front of us sets it; None when there is no certificate.

        Raises:
            ValueError: it is not what that Envoy writes.
        """
        if header is None:
            return None
        matched = _XFCC.fullmatch(header)
        if matched is None:
            raise ValueError("the client certificate is not in the form that the proxy sends")
        certificate = x509.load_pem_x509_certificate(unquote_to_bytes(matched[1]))
        try:
            names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
            uris = names.get_values_for_type(x509.UniformResourceIdentifier)
        except x509.ExtensionNotFound:
            uris = []
        thumbprint = base64url(certificate.fingerprint(hashes.SHA256()))
        return cls(certificate, thumbprint, uris[0] if len(uris) == 1 else None)


class TrustBundles:
    """The roots of each trust domain."""

    def __init__(self, files: Mapping[str, str]) -> None:
        """Read the PEM file of each trust domain."""
        self._roots = {
            domain: x509.load_pem_x509_certificates(Path(file).read_bytes()) for domain, file in files.items()
        }

    def vouch_for(self, certificate: ClientCertificate, now: float) -> bool:
        """Whether the chain of a certificate leads to a root of the trust domain that it names."""
        domain = (certificate.uri or "").removeprefix("spiffe://").partition("/")[0]
        roots = self._roots.get(domain)
        if not roots:
            return False
        at = dt.datetime.fromtimestamp(now, dt.UTC)
        verifier = PolicyBuilder().store(Store(roots)).time(at).build_client_verifier()
        try:
            verifier.verify(certificate.certificate, [])
        except VerificationError:
            return False
        return True


def clients_from_file(file: Path) -> dict[str, Client]:
    """The registered clients by id, from a JSON list."""
    clients = {}
    for entry in json.loads(file.read_text()):
        fields = {
            **entry,
            "token_endpoint_auth_method": AuthenticationMethod(entry["token_endpoint_auth_method"]),
            "resources": tuple(entry["resources"]),
        }
        for name in ("grant_types", "scope", "certificate_thumbprints", "redirect_uris"):
            fields[name] = frozenset(entry.get(name, ()))
        clients[entry["client_id"]] = Client(**fields)
    return clients
