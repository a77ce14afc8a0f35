"""Envoy's bootstrap as typed configuration: listeners with mutual TLS, the ext_authz filter, and where requests go.

Fields whose value is Envoy's default are not written, so that a bootstrap built here is accepted by every Envoy from
1.36 on: an older Envoy refuses a bootstrap that names a field it does not know.
"""

import datetime as dt

from envoy_data_plane.envoy.config.accesslog.v3 import AccessLog
from envoy_data_plane.envoy.config.bootstrap.v3 import Admin, Bootstrap, BootstrapStaticResources
from envoy_data_plane.envoy.config.cluster.v3 import (
    CircuitBreakers,
    CircuitBreakersThresholds,
    Cluster,
    ClusterDiscoveryType,
)
from envoy_data_plane.envoy.config.core.v3 import (
    Address,
    ApiVersion,
    DataSource,
    GrpcService,
    GrpcServiceEnvoyGrpc,
    Http1ProtocolOptions,
    Http2ProtocolOptions,
    Pipe,
    RetryPolicy,
    SocketAddress,
    SubstitutionFormatString,
    TransportSocket,
)
from envoy_data_plane.envoy.config.endpoint.v3 import ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints
from envoy_data_plane.envoy.config.listener.v3 import Filter, FilterChain, Listener
from envoy_data_plane.envoy.config.route.v3 import Route, RouteAction, RouteConfiguration, RouteMatch, VirtualHost
from envoy_data_plane.envoy.extensions.access_loggers.stream.v3 import StdoutAccessLog
from envoy_data_plane.envoy.extensions.filters.http.ext_authz.v3 import CheckSettings, ExtAuthz, ExtAuthzPerRoute
from envoy_data_plane.envoy.extensions.filters.http.router.v3 import Router
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import (
    HttpConnectionManager,
    HttpFilter,
)
from envoy_data_plane.envoy.extensions.transport_sockets.tls.v3 import (
    CertificateValidationContext,
    CommonTlsContext,
    DownstreamTlsContext,
    TlsCertificate,
    UpstreamTlsContext,
)
from envoy_data_plane.envoy.extensions.upstreams.http.v3 import (
    HttpProtocolOptions,
    HttpProtocolOptionsExplicitHttpConfig,
)
from envoy_data_plane.envoy.type.v3 import HttpStatus
from envoy_data_plane.google.protobuf import Any, Struct

from ext_authz.demo.key_pair import KeyPair
from ext_authz.demo.proxy import CheckFilter, DownstreamTls, ProxyCluster, ProxyListener

__all__ = ["EXT_AUTHZ_FILTER", "bootstrap", "check_filter"]

EXT_AUTHZ_FILTER = "envoy.filters.http.ext_authz"
RETRIES = 2
"""Of a call whose connection broke."""

MAX_RETRIES = 1_024
"""At the same time, as many as calls by Envoy's default; by default it makes three, and one connection carries many calls."""

_TLS = "envoy.transport_sockets.tls"
_HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


def bootstrap(
    listeners: tuple[ProxyListener, ...],
    clusters: tuple[ProxyCluster, ...],
    admin: tuple[str, int] = ("127.0.0.1", 0),
) -> Bootstrap:
    """The whole configuration; write `.to_json()` to a file for `envoy --config-path`."""
    return Bootstrap(
        admin=Admin(address=_socket_address(*admin)),
        static_resources=BootstrapStaticResources(
            listeners=[_listener(listener) for listener in listeners],
            clusters=[_cluster(cluster) for cluster in clusters],
        ),
    )


def check_filter(settings: CheckFilter) -> HttpFilter:
    """The ext_authz filter as Envoy reads it."""
    config = ExtAuthz(
        grpc_service=GrpcService(
            envoy_grpc=GrpcServiceEnvoyGrpc(cluster_name=settings.cluster),
            timeout=dt.timedelta(seconds=settings.timeout),
            # a call that a server took with it when it ended is made again; a decision may be asked for twice
            retry_policy=RetryPolicy(retry_on="reset", num_retries=RETRIES),
        ),
        transport_api_version=ApiVersion.V3,
        include_peer_certificate=settings.include_peer_certificate,
        include_tls_session=settings.include_tls_session,
        encode_raw_headers=settings.encode_raw_headers,
        validate_mutations=settings.validate_mutations,
        failure_mode_allow=settings.failure_mode_allow,
        status_on_error=HttpStatus(code=settings.status_on_error),
        filter_enabled_metadata=settings.enabled_metadata,
    )
    return HttpFilter(name=EXT_AUTHZ_FILTER, typed_config=Any.pack(config))


def _listener(settings: ProxyListener) -> Listener:
    filters = [*settings.filters_before, *([check_filter(settings.check)] if settings.check else ())]
    filters += [*settings.filters_after, HttpFilter(name="envoy.filters.http.router", typed_config=Any.pack(Router()))]
    per_route = {}
    if settings.context_extensions:
        check = ExtAuthzPerRoute(check_settings=CheckSettings(context_extensions=dict(settings.context_extensions)))
        per_route[EXT_AUTHZ_FILTER] = Any.pack(check)
    route = Route(match=RouteMatch(prefix="/"), route=RouteAction(cluster=settings.cluster))
    # an empty path (CONNECT) or `*` matches no prefix: Envoy answers 404 after ext_authz has been asked
    virtual_host = VirtualHost(name=settings.name, domains=["*"], routes=[route], typed_per_filter_config=per_route)
    manager = HttpConnectionManager(
        stat_prefix=settings.name,
        route_config=RouteConfiguration(name=settings.name, virtual_hosts=[virtual_host]),
        http_filters=filters,
        forward_client_cert_details=settings.forward_client_cert_details,
        set_current_client_cert_details=settings.client_cert_details,
        access_log=[_access_log(settings.name)],
        # what the client sent is what ext-authz judges: no filter before it has repaired the path
        normalize_path=False,
    )
    chain = FilterChain(
        filters=[Filter(name="envoy.filters.network.http_connection_manager", typed_config=Any.pack(manager))],
        transport_socket=_downstream(settings.tls) if settings.tls else None,
    )
    return Listener(
        name=settings.name,
        address=_socket_address(settings.address, settings.port),
        filter_chains=[chain],
        # a port that somebody else listens on is an error, not one to share
        enable_reuse_port=False,
    )


def _access_log(listener: str) -> AccessLog:
    """One JSON line per request on standard output; the query is left out because it can hold a token."""
    line = {
        "listener": listener,
        "request_id": "%REQ(X-REQUEST-ID)%",
        "method": "%REQ(:METHOD)%",
        "path": "%PATH(NQ:PATH)%",
        "host": "%REQ(:AUTHORITY)%",
        "status": "%RESPONSE_CODE%",
        "details": "%RESPONSE_CODE_DETAILS%",
        "duration_ms": "%DURATION%",
    }
    log = StdoutAccessLog(log_format=SubstitutionFormatString(json_format=Struct.from_dict(line)))
    return AccessLog(name="envoy.access_loggers.stdout", typed_config=Any.pack(log))


def _downstream(tls: DownstreamTls) -> TransportSocket:
    validation = None
    if tls.client_certificates is not None:
        validation = CertificateValidationContext(
            trusted_ca=DataSource(filename=tls.client_certificates.ca_file),
            trust_chain_verification=tls.client_certificates.verification,
        )
    context = DownstreamTlsContext(
        common_tls_context=CommonTlsContext(
            tls_certificates=[_certificate(tls.certificate)],
            validation_context=validation,
            alpn_protocols=list(tls.alpn),
        ),
        require_client_certificate=tls.client_certificates is not None and tls.client_certificates.required,
    )
    return TransportSocket(name=_TLS, typed_config=Any.pack(context))


def _certificate(pair: KeyPair) -> TlsCertificate:
    return TlsCertificate(
        certificate_chain=DataSource(filename=pair.certificate_file), private_key=DataSource(filename=pair.key_file)
    )


def _cluster(settings: ProxyCluster) -> Cluster:
    socket = None
    if settings.tls is not None:
        common = CommonTlsContext(
            tls_certificates=[_certificate(settings.tls.certificate)] if settings.tls.certificate else [],
            validation_context=CertificateValidationContext(trusted_ca=DataSource(filename=settings.tls.ca_file)),
        )
        context = UpstreamTlsContext(common_tls_context=common, sni=settings.tls.server_name)
        socket = TransportSocket(name=_TLS, typed_config=Any.pack(context))
    if settings.http2:
        explicit = HttpProtocolOptionsExplicitHttpConfig(http2_protocol_options=Http2ProtocolOptions())
    else:
        explicit = HttpProtocolOptionsExplicitHttpConfig(http_protocol_options=Http1ProtocolOptions())
    endpoint = LbEndpoint(endpoint=Endpoint(address=_address(settings.address)))
    is_unix = settings.address.startswith("unix:")
    return Cluster(
        name=settings.name,
        connect_timeout=dt.timedelta(seconds=2),
        # STATIC, the default, wants an IP address or a path; STRICT_DNS takes an IP address too
        type=ClusterDiscoveryType.STATIC if is_unix else ClusterDiscoveryType.STRICT_DNS,
        load_assignment=ClusterLoadAssignment(
            cluster_name=settings.name, endpoints=[LocalityLbEndpoints(lb_endpoints=[endpoint])]
        ),
        circuit_breakers=_breakers() if settings.http2 else None,
        transport_socket=socket,
        typed_extension_protocol_options={_HTTP_OPTIONS: Any.pack(HttpProtocolOptions(explicit_http_config=explicit))},
    )


def _breakers() -> CircuitBreakers:
    return CircuitBreakers(thresholds=[CircuitBreakersThresholds(max_retries=MAX_RETRIES)])


def _address(text: str) -> Address:
    if text.startswith("unix:"):
        return Address(pipe=Pipe(path=text.removeprefix("unix:")))
    host, _, port = text.rpartition(":")
    return _socket_address(host, int(port))


def _socket_address(host: str, port: int) -> Address:
    return Address(socket_address=SocketAddress(address=host, port_value=port))
