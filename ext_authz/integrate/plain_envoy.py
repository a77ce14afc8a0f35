"""Envoy without a control plane: a whole bootstrap to take apart.

Written for every Envoy from 1.36 on: no field that an older one does not know.
"""

from ext_authz.integrate.platform import Destination, Document, Part, Platform
from ext_authz.integrate.setup import Setup

__all__ = ["ENVOY", "bootstrap", "check_cluster", "check_filter"]

_TYPE = "type.googleapis.com/envoy."
_TLS = "/etc/envoy/tls"


def check_filter(setup: Setup) -> Document:
    """The HTTP filter; it stands first, and right before `envoy.filters.http.router` if nothing else is needed."""
    return {
        "name": "envoy.filters.http.ext_authz",
        "typed_config": {
            "@type": f"{_TYPE}extensions.filters.http.ext_authz.v3.ExtAuthz",
            "transport_api_version": "V3",
            "grpc_service": {
                "envoy_grpc": {"cluster_name": "ext-authz"},
                "timeout": setup.seconds,
                # a call that a server took with it when it ended is made again, within the same timeout
                "retry_policy": {"retry_on": "reset", "num_retries": 2},
            },
            "include_peer_certificate": True,
            "include_tls_session": True,
            "encode_raw_headers": True,
            "validate_mutations": True,
            "failure_mode_allow": False,
            "status_on_error": {"code": "ServiceUnavailable"},
        },
    }


def check_cluster(setup: Setup) -> Document:
    """Where the server is: HTTP/2, each address on its own, asked whether it is well."""
    return {
        "name": "ext-authz",
        "type": "STRICT_DNS",
        "connect_timeout": "1s",
        "lb_policy": "LEAST_REQUEST",
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": f"{_TYPE}extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": {"http2_protocol_options": {}},
            }
        },
        # by default 1024 calls at a time, and three that are made again; what is above it fails, and a failure denies
        "circuit_breakers": {
            "thresholds": [{"max_requests": 8_192, "max_pending_requests": 8_192, "max_retries": 8_192}]
        },
        "health_checks": [
            {
                "timeout": "1s",
                "interval": "2s",
                "unhealthy_threshold": 2,
                "healthy_threshold": 1,
                "grpc_health_check": {},
            }
        ],
        "load_assignment": _endpoints("ext-authz", setup.host_name, setup.port),
    }


def bootstrap(setup: Setup) -> Document:
    """A listener with mutual TLS that asks about every request."""
    manager = {
        "@type": f"{_TYPE}extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "ingress",
        # what a client wrote into the header is replaced by what this Envoy saw
        "forward_client_cert_details": "SANITIZE_SET",
        "set_current_client_cert_details": {"uri": True},
        "http_filters": [
            check_filter(setup),
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": f"{_TYPE}extensions.filters.http.router.v3.Router"},
            },
        ],
        "route_config": {
            "name": "ingress",
            "virtual_hosts": [
                {
                    "name": "api",
                    "domains": [setup.host],
                    "typed_per_filter_config": {
                        "envoy.filters.http.ext_authz": {
                            "@type": f"{_TYPE}extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute",
                            "check_settings": {"context_extensions": {"virtualhost": "api"}},
                        }
                    },
                    "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "api"}}],
                }
            ],
        },
    }
    tls = {
        "@type": f"{_TYPE}extensions.transport_sockets.tls.v3.DownstreamTlsContext",
        "require_client_certificate": True,
        "common_tls_context": {
            "alpn_protocols": ["h2", "http/1.1"],
            "tls_certificates": [
                {
                    "certificate_chain": {"filename": f"{_TLS}/tls.crt"},
                    "private_key": {"filename": f"{_TLS}/tls.key"},
                }
            ],
            "validation_context": {"trusted_ca": {"filename": f"{_TLS}/ca.crt"}},
        },
    }
    listener = {
        "name": "ingress",
        "address": _socket_address("0.0.0.0", 8443),  # noqa: S104 - a gateway listens to the network
        "filter_chains": [
            {
                "filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}],
                "transport_socket": {"name": "envoy.transport_sockets.tls", "typed_config": tls},
            }
        ],
    }
    upstream = {
        "name": "api",
        "type": "STRICT_DNS",
        "connect_timeout": "1s",
        "load_assignment": _endpoints("api", f"api.{setup.target_namespace}.svc.{setup.cluster_domain}", 8080),
    }
    return {"static_resources": {"listeners": [listener], "clusters": [check_cluster(setup), upstream]}}


def _endpoints(cluster: str, host: str, port: int) -> Document:
    endpoint = {"endpoint": {"address": _socket_address(host, port)}}
    return {"cluster_name": cluster, "endpoints": [{"lb_endpoints": [endpoint]}]}


def _socket_address(host: str, port: int) -> Document:
    return {"socket_address": {"address": host, "port_value": port}}


def _parts(setup: Setup) -> tuple[Part, ...]:
    purpose = "a whole bootstrap; what matters is the filter, the cluster `ext-authz` and `forward_client_cert_details`"
    return (Part(Destination.ENVOY, purpose, bootstrap(setup)),)


ENVOY = Platform(
    name="envoy",
    title="Envoy without a control plane",
    proves=(
        "the client's key: `x5t#S256` is checked against the certificate on the connection",
        "the client's SPIFFE ID, where its certificate holds one and `ca.crt` signed it",
        "the destination: `targets` with `context_extensions`, `sni` or `destination_principal`",
    ),
    cannot=(
        (
            "identify callers under `trust_chain_verification: ACCEPT_UNTRUSTED`: tokens can then be bound to any certificate, "
            "and the server must say `chain_verified_by: nobody` or `bundles`"
        ),
    ),
    evidence={
        "certificate_sources": [{"type": "source-certificate"}, {"type": "xfcc", "trusted_hops": 1}],
        "chain_verified_by": "proxy",
    },
    parts=_parts,
)
