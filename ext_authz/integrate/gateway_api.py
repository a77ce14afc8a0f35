"""Gateways of the Kubernetes Gateway API: Envoy Gateway, kgateway, and the API's own filter."""

from ext_authz.integrate.platform import Destination, Document, Part, Platform, metadata
from ext_authz.integrate.setup import Setup

__all__ = [
    "ENVOY_GATEWAY",
    "GATEWAY_API",
    "KGATEWAY",
    "client_traffic_policy",
    "external_auth_route",
    "gateway_extension",
    "listener_policy",
    "reference_grant",
    "security_policy",
    "traffic_policy",
]

_GROUP = "gateway.networking.k8s.io"
_ENVOY_GATEWAY = "gateway.envoyproxy.io"
_KGATEWAY = "gateway.kgateway.dev"


def security_policy(setup: Setup) -> Document:
    """Envoy Gateway asks about every request of the Gateway, whose name policies may choose by.

    All headers are sent where none are named. Without `timeout` Envoy Gateway waits 10 seconds.
    """
    return {
        "apiVersion": f"{_ENVOY_GATEWAY}/v1alpha1",
        "kind": "SecurityPolicy",
        "metadata": metadata("ext-authz", setup.target_namespace),
        "spec": {
            "targetRefs": [_gateway(setup)],
            "extAuth": {
                "failOpen": False,
                "statusOnError": 503,
                "timeout": setup.milliseconds,
                "contextExtensions": [{"name": "gateway", "type": "Value", "value": setup.gateway}],
                "grpc": {"backendRefs": [_backend(setup)]},
            },
        },
    }


def client_traffic_policy(setup: Setup) -> Document:
    """Envoy Gateway verifies client certificates and replaces `x-forwarded-client-cert` by what it saw itself."""
    return {
        "apiVersion": f"{_ENVOY_GATEWAY}/v1alpha1",
        "kind": "ClientTrafficPolicy",
        "metadata": metadata("ext-authz", setup.target_namespace),
        "spec": {
            "targetRefs": [_gateway(setup)],
            "headers": {"xForwardedClientCert": {"mode": "SanitizeSet", "certDetailsToAdd": ["URI"]}},
            "tls": {
                "clientValidation": {
                    "optional": False,
                    "caCertificateRefs": [{"group": "", "kind": "Secret", "name": "client-ca"}],
                }
            },
        },
    }


def reference_grant(setup: Setup, group: str, kind: str) -> Document:
    """Objects of `kind` in the target's namespace may name the server."""
    return {
        "apiVersion": f"{_GROUP}/v1beta1",
        "kind": "ReferenceGrant",
        "metadata": metadata(f"ext-authz-{setup.target_namespace}", setup.namespace),
        "spec": {
            "from": [{"group": group, "kind": kind, "namespace": setup.target_namespace}],
            "to": [{"group": "", "kind": "Service", "name": setup.service}],
        },
    }


def gateway_extension(setup: Setup) -> Document:
    """The server, as kgateway knows it. `type` is read by its older releases only."""
    return {
        "apiVersion": f"{_KGATEWAY}/v1alpha1",
        "kind": "GatewayExtension",
        "metadata": metadata("ext-authz", setup.target_namespace),
        "spec": {
            "type": "ExtAuth",
            "extAuth": {
                "grpcService": {"backendRef": _backend(setup), "requestTimeout": setup.milliseconds},
                "failOpen": False,
                "statusOnError": 503,
            },
        },
    }


def traffic_policy(setup: Setup) -> Document:
    """Have kgateway ask about every request of the Gateway; `context_extensions` name it to our policies."""
    return {
        "apiVersion": f"{_KGATEWAY}/v1alpha1",
        "kind": "TrafficPolicy",
        "metadata": metadata("ext-authz", setup.target_namespace),
        "spec": {
            "targetRefs": [_gateway(setup)],
            "extAuth": {
                "extensionRef": {"name": "ext-authz"},
                "contextExtensions": {"gateway": setup.gateway},
            },
        },
    }


def listener_policy(setup: Setup) -> Document:
    """Have kgateway replace `x-forwarded-client-cert` by what it saw itself; by default it removes it."""
    details = {"mode": "SanitizeSet", "details": {"uri": True}}
    return {
        "apiVersion": f"{_KGATEWAY}/v1alpha1",
        "kind": "ListenerPolicy",
        "metadata": metadata("ext-authz", setup.target_namespace),
        "spec": {
            "targetRefs": [_gateway(setup)],
            "default": {"httpSettings": {"forwardClientCertDetails": details}},
        },
    }


def external_auth_route(setup: Setup) -> Document:
    """A route whose requests are asked about, for gateways that know the API's own (experimental) filter."""
    external_auth = {"protocol": "GRPC", "backendRef": _backend(setup), "grpc": {}}
    return {
        "apiVersion": f"{_GROUP}/v1",
        "kind": "HTTPRoute",
        "metadata": metadata("api", setup.target_namespace),
        "spec": {
            "parentRefs": [{"name": setup.gateway}],
            "hostnames": [setup.host],
            "rules": [
                {
                    "filters": [{"type": "ExternalAuth", "externalAuth": external_auth}],
                    "backendRefs": [{"name": "api", "port": 8080}],
                }
            ],
        },
    }


def _gateway(setup: Setup) -> Document:
    return {"group": _GROUP, "kind": "Gateway", "name": setup.gateway}


def _backend(setup: Setup) -> Document:
    return {"name": setup.service, "namespace": setup.namespace, "port": setup.port}


def _grant(setup: Setup, group: str, kind: str) -> tuple[Part, ...]:
    if setup.namespace == setup.target_namespace:
        return ()
    purpose = f"a {kind} of another namespace may name the server's service"
    return (Part(Destination.KUBERNETES, purpose, reference_grant(setup, group, kind)),)


def _envoy_gateway(setup: Setup) -> tuple[Part, ...]:
    return (
        Part(
            Destination.KUBERNETES,
            "verify client certificates (against `ca.crt` of the Secret client-ca) and tell the server about them",
            client_traffic_policy(setup),
        ),
        Part(Destination.KUBERNETES, "ask about every request", security_policy(setup)),
        *_grant(setup, _ENVOY_GATEWAY, "SecurityPolicy"),
    )


def _kgateway(setup: Setup) -> tuple[Part, ...]:
    return (
        Part(
            Destination.KUBERNETES,
            "tell the server about client certificates; the Gateway verifies them by its own `spec.tls.frontend`",
            listener_policy(setup),
        ),
        Part(Destination.KUBERNETES, "where the server is", gateway_extension(setup)),
        Part(Destination.KUBERNETES, "ask about every request", traffic_policy(setup)),
        *_grant(setup, _KGATEWAY, "GatewayExtension"),
    )


def _external_auth(setup: Setup) -> tuple[Part, ...]:
    purpose = "ask about every request of the route; replace its name and backend by your own"
    return (
        Part(Destination.KUBERNETES, purpose, external_auth_route(setup)),
        *_grant(setup, _GROUP, "HTTPRoute"),
    )


ENVOY_GATEWAY = Platform(
    name="envoy-gateway",
    title="Envoy Gateway (1.8 or later)",
    proves=(
        "the client's key: `x5t#S256` is checked against the `Hash` in x-forwarded-client-cert, which the gateway replaces",
        "the client's SPIFFE ID, where its certificate holds one and the CA in the ClientTrafficPolicy signed it",
        "the gateway: `targets` with `context_extensions`",
    ),
    cannot=(
        "send the certificate itself in the request: there is no such field, so `source-certificate` stays empty",
        "send the TLS server name or headers byte by byte: no `targets` with `sni`; repeated headers arrive as one",
        (
            "bind tokens of clients that connect without a certificate; with `optional: true` they may connect and use "
            "unbound routes"
        ),
    ),
    evidence={"certificate_sources": [{"type": "xfcc", "trusted_hops": 1}], "chain_verified_by": "proxy"},
    parts=_envoy_gateway,
    ignores_host_port=True,
)

KGATEWAY = Platform(
    name="kgateway",
    title="kgateway",
    proves=(
        (
            "the client's key, where the Gateway verifies client certificates (`spec.tls.frontend`): `x5t#S256` is checked "
            "against the `Hash` in x-forwarded-client-cert, which the gateway replaces"
        ),
        "the client's SPIFFE ID, where its certificate holds one",
        "the gateway: `targets` with `context_extensions`",
    ),
    cannot=(
        (
            "check `x5t#S256` in releases whose ListenerPolicy does not know `forwardClientCertDetails` (those before the middle of "
            "2026): leave it out, read `{type: source-principal}`, issue tokens without `cnf` and require "
            "`binding: {mode: required, accept: [spiffe-id], spiffe_id_claim: <claim>}`. A token with `cnf` is denied there "
            "(`binding_thumbprint_unavailable`), never let through"
        ),
        "send the certificate itself, the TLS server name or headers byte by byte: the extension has no such fields",
    ),
    evidence={"certificate_sources": [{"type": "xfcc", "trusted_hops": 1}], "chain_verified_by": "proxy"},
    parts=_kgateway,
    ignores_host_port=True,
)

GATEWAY_API = Platform(
    name="gateway-api",
    title="Any gateway with the Gateway API's ExternalAuth filter (experimental)",
    proves=("tokens, and what the route says",),
    cannot=(
        (
            "prove who is on the connection: the filter says nothing about certificates. Tokens with `cnf` are denied "
            "(`binding_certificate_missing`); use the gateway's own resources where there are some"
        ),
        "say how long to wait: the gateway decides",
    ),
    evidence={"certificate_sources": []},
    parts=_external_auth,
    ignores_host_port=True,
)
