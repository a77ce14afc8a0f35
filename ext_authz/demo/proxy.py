"""What a demo or test Envoy is to be: its listeners, its ext_authz filter, its clusters. `bootstrap` turns it into Envoy's own."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import (
    HttpConnectionManagerForwardClientCertDetails as ForwardClientCertDetails,
)
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import (
    HttpConnectionManagerSetCurrentClientCertDetails as ClientCertDetails,
)
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import HttpFilter
from envoy_data_plane.envoy.extensions.transport_sockets.tls.v3 import (
    CertificateValidationContextTrustChainVerification as TrustChainVerification,
)
from envoy_data_plane.envoy.type.matcher.v3 import MetadataMatcher
from envoy_data_plane.envoy.type.v3 import StatusCode

from ext_authz.demo.key_pair import KeyPair

__all__ = [
    "CheckFilter",
    "ClientCertDetails",
    "ClientCertificates",
    "DownstreamTls",
    "ForwardClientCertDetails",
    "ProxyCluster",
    "ProxyListener",
    "TrustChainVerification",
    "UpstreamTls",
]


@dataclass(frozen=True, slots=True)
class ClientCertificates:
    """How a listener treats client certificates.

    Attributes:
        ca_file: PEM file of the roots that a chain is verified against.
        verification: VERIFY_TRUST_CHAIN refuses the connection of an untrusted certificate, ACCEPT_UNTRUSTED leaves the
            verdict to others.
        required: refuse a connection without a certificate.
    """

    ca_file: str
    verification: TrustChainVerification = TrustChainVerification.VERIFY_TRUST_CHAIN
    required: bool = False


@dataclass(frozen=True, slots=True)
class DownstreamTls:
    """TLS of a listener; without `client_certificates` none is asked for."""

    certificate: KeyPair
    client_certificates: ClientCertificates | None = None
    alpn: tuple[str, ...] = ("h2", "http/1.1")


@dataclass(frozen=True, slots=True)
class CheckFilter:
    """Envoy's ext_authz HTTP filter, by default as it should be run: closed on failure.

    Attributes:
        cluster: the `ProxyCluster` that answers Check.
        timeout: seconds for one Check.
        include_peer_certificate: send `source.certificate`.
        include_tls_session: send `tls_session.sni`.
        encode_raw_headers: send `header_map` in place of `headers`: without it Envoy shows `!` for bytes it sends on.
        validate_mutations: refuse invalid header changes with 500.
        failure_mode_allow: let requests through when Check fails.
        status_on_error: answered when Check fails.
        enabled_metadata: check only requests whose dynamic metadata matches (what istiod generates for CUSTOM).
    """

    cluster: str = "ext_authz"
    timeout: float = 1.0
    include_peer_certificate: bool = True
    include_tls_session: bool = True
    encode_raw_headers: bool = True
    validate_mutations: bool = True
    failure_mode_allow: bool = False
    status_on_error: StatusCode = StatusCode.ServiceUnavailable
    enabled_metadata: MetadataMatcher | None = None


@dataclass(frozen=True, slots=True)
class ProxyListener:
    """One listener: the place of one workload's sidecar, or of a gateway.

    Attributes:
        name: for statistics and logs.
        port: TCP port on `address`; 0 lets the system choose (see `EnvoyProcess.ports`).
        address: IP address to bind.
        tls: None for plain text.
        forward_client_cert_details: what becomes of `x-forwarded-client-cert`.
        client_cert_details: what Envoy writes into it besides `By` and `Hash`.
        check: the ext_authz filter, or None for a listener that asks nobody.
        context_extensions: `CheckRequest.attributes.context_extensions`.
        filters_before: HTTP filters ahead of ext_authz.
        filters_after: HTTP filters between ext_authz and the router.
        cluster: where every request goes.
    """

    name: str
    port: int = 0
    address: str = "127.0.0.1"
    tls: DownstreamTls | None = None
    forward_client_cert_details: ForwardClientCertDetails = ForwardClientCertDetails.SANITIZE
    client_cert_details: ClientCertDetails | None = None
    check: CheckFilter | None = field(default_factory=CheckFilter)
    context_extensions: Mapping[str, str] = field(default_factory=dict)
    filters_before: tuple[HttpFilter, ...] = ()
    filters_after: tuple[HttpFilter, ...] = ()
    cluster: str = "upstream"


@dataclass(frozen=True, slots=True)
class UpstreamTls:
    """TLS towards a cluster.

    Attributes:
        ca_file: PEM file of the roots the server must chain to.
        server_name: SNI.
        certificate: our client certificate, for mutual TLS.
    """

    ca_file: str
    server_name: str = ""
    certificate: KeyPair | None = None


@dataclass(frozen=True, slots=True)
class ProxyCluster:
    """Where requests or Check calls are sent.

    Attributes:
        name: what listeners and filters call it.
        address: `host:port` or `unix:/absolute/path`; a host name is resolved by DNS.
        http2: speak HTTP/2 (gRPC needs it).
        tls: None for plain text.
    """

    name: str
    address: str
    http2: bool = False
    tls: UpstreamTls | None = None
