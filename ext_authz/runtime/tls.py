"""The listener's certificate, key and client authorities: read, checked, and replaced while serving."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from ext_authz.config.settings import TlsSettings
from ext_authz.errors import ConfigurationError

if TYPE_CHECKING:
    import grpc

__all__ = ["ServerCertificates", "TlsMaterial", "read_tls"]


@dataclass(frozen=True, slots=True)
class TlsMaterial:
    """One consistent set of PEM texts.

    Attributes:
        chain: server certificates, leaf first.
        key: the leaf's private key.
        client_authorities: who may vouch for Envoy; None when clients present no certificate.
    """

    chain: bytes
    key: bytes
    client_authorities: bytes | None


def read_tls(settings: TlsSettings) -> TlsMaterial:
    """Read the files and check that a handshake can succeed with them.

    Raises:
        ConfigurationError: a file cannot be read or parsed, or the key is not the certificate's. Rotation that writes
            two files one after the other passes through that state, so the caller keeps what it has and looks again.
    """
    chain = _read(settings.certificate_file)
    key = _read(settings.key_file)
    authorities = None if settings.client_ca_file is None else _read(settings.client_ca_file)
    leaf = _certificates(chain, settings.certificate_file)[0]
    if authorities is not None:
        _certificates(authorities, str(settings.client_ca_file))
    try:
        private_key = load_pem_private_key(key, password=None)
    except (ValueError, TypeError):
        raise ConfigurationError((f"{settings.key_file}: not an unencrypted PEM private key",)) from None
    if private_key.public_key() != leaf.public_key():
        raise ConfigurationError(
            (f"{settings.key_file}: not the key of the first certificate in {settings.certificate_file}",)
        )
    return TlsMaterial(chain, key, authorities)


class ServerCertificates:
    """What new connections are served with; connections that exist keep what they began with.

    Attributes:
        on_replace: called after each replacement, by whoever replaces.
    """

    def __init__(self, material: TlsMaterial) -> None:
        """Begin with `material`."""
        self.on_replace: Callable[[], None] = lambda: None
        self._material = material
        self._replacement: TlsMaterial | None = None

    @property
    def material(self) -> TlsMaterial:
        """What the next connection gets."""
        return self._material

    def replace(self, material: TlsMaterial) -> bool:
        """Serve new connections with `material`; False when that is what they get already.

        Raises:
            ConfigurationError: mutual TLS would be switched on or off, which grpcio fixes when it starts to listen.
        """
        if (material.client_authorities is None) != (self._material.client_authorities is None):
            raise ConfigurationError(("listener.tls.client_ca_file: adding or removing it needs a restart",))
        if material == self._material:
            return False
        self._material = self._replacement = material
        self.on_replace()
        return True

    def credentials(self) -> "grpc.ServerCredentials":
        """For `add_secure_port`; follows `replace`."""
        import grpc  # noqa: PLC0415 - only who serves with it has imported it

        return grpc.dynamic_ssl_server_credentials(
            _configuration(self._material),
            self._fetch,  # type: ignore[arg-type]  # the stubs forget that None means no change
            require_client_authentication=self._material.client_authorities is not None,
        )

    def _fetch(self) -> "grpc.ServerCertificateConfiguration | None":
        # grpcio calls this from its own threads before each handshake; None keeps the current configuration
        replacement, self._replacement = self._replacement, None
        return None if replacement is None else _configuration(replacement)


def _configuration(material: TlsMaterial) -> "grpc.ServerCertificateConfiguration":
    import grpc  # noqa: PLC0415 - as above

    return grpc.ssl_server_certificate_configuration(
        [(material.key, material.chain)], root_certificates=material.client_authorities
    )


def _read(file: str) -> bytes:
    try:
        return Path(file).read_bytes()
    except OSError as error:
        raise ConfigurationError((f"{file}: cannot be read: {error.strerror}",)) from None


def _certificates(pem: bytes, file: str) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError:
        raise ConfigurationError((f"{file}: holds no PEM certificate, or a malformed one",)) from None
