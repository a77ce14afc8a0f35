"""Certificates that a running Envoy reads anew: secrets in files, as an agent beside it writes them (SDS from files)."""

import json
from pathlib import Path
from typing import Any

from envoy_data_plane.envoy.config.core.v3 import ApiVersion, ConfigSource, PathConfigSource, TransportSocket
from envoy_data_plane.envoy.extensions.transport_sockets.tls.v3 import (
    CommonTlsContext,
    DownstreamTlsContext,
    SdsSecretConfig,
    UpstreamTlsContext,
)
from envoy_data_plane.google.protobuf import Any as Packed

from support.pki import Leaf

__all__ = ["Secrets"]

_SECRET = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"


class Secrets:
    """Secrets by name, each in a file of its own."""

    def __init__(self, folder: Path) -> None:
        """Keep them in `folder`, which exists."""
        self._folder = folder

    def present(self, name: str, leaf: Leaf) -> None:
        """Have Envoy present `leaf` from its next handshake on."""
        chain, key = leaf.chain_pem.decode(), leaf.key_pem.decode()
        pair = {"certificate_chain": {"inline_string": chain}, "private_key": {"inline_string": key}}
        self._write(name, {"tls_certificate": pair})

    def trust(self, name: str, authorities: bytes) -> None:
        """Have Envoy accept what `authorities` (PEM) vouch for from its next handshake on."""
        trusted = {"trusted_ca": {"inline_string": authorities.decode()}}
        self._write(name, {"validation_context": trusted})

    def downstream(self, own: str, clients: str) -> TransportSocket:
        """TLS of a listener that requires a certificate of its clients.

        Args:
            own: what it presents.
            clients: whom it trusts.
        """
        context = DownstreamTlsContext(self._common(own, clients), require_client_certificate=True)
        return TransportSocket(name="envoy.transport_sockets.tls", typed_config=Packed.pack(context))

    def upstream(self, own: str, servers: str, server_name: str) -> TransportSocket:
        """TLS towards a cluster, with arguments as `downstream`."""
        context = UpstreamTlsContext(self._common(own, servers), sni=server_name)
        return TransportSocket(name="envoy.transport_sockets.tls", typed_config=Packed.pack(context))

    def _common(self, own: str, trusted: str) -> CommonTlsContext:
        return CommonTlsContext(
            tls_certificate_sds_secret_configs=[self._configured(own)],
            validation_context_sds_secret_config=self._configured(trusted),
        )

    def _configured(self, name: str) -> SdsSecretConfig:
        source = PathConfigSource(path=str(self._file(name)))
        return SdsSecretConfig(name, ConfigSource(path_config_source=source, resource_api_version=ApiVersion.V3))

    def _file(self, name: str) -> Path:
        return self._folder / f"secret-{name}.json"

    def _write(self, name: str, secret: dict[str, Any]) -> None:
        resource = {"@type": _SECRET, "name": name, **secret}
        # Envoy looks when a file is moved to its place
        written = self._folder / f".secret-{name}.new"
        written.write_text(json.dumps({"resources": [resource]}))
        written.replace(self._file(name))
