"""Istio: a provider in the mesh configuration, a CUSTOM policy that names it, and what istiod itself does not set.

The policy's only rule is empty, so that every request is asked about: a rule that matches paths would let a request pass
unasked whenever Istio reads its path in another way than this server.
"""

from collections.abc import Mapping

from ext_authz.integrate.platform import Destination, Document, Part, Platform, metadata
from ext_authz.integrate.setup import Setup

__all__ = [
    "AMBIENT",
    "GATEWAY",
    "PROVIDER",
    "SIDECAR",
    "authorization_policy",
    "gateway_topology",
    "mesh_provider",
    "peer_authentication",
    "peer_certificate_filter",
    "waypoint",
]

PROVIDER = "ext-authz"
"""The provider's name in the mesh configuration, which policies refer to."""

XFCC_ANNOTATION = "ambient.istio.io/xfcc-include-client-identity"
"""From Istio 1.30: the waypoint writes the caller's SPIFFE ID into `x-forwarded-client-cert`."""

_EXT_AUTHZ = "type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthz"


def mesh_provider(setup: Setup) -> Document:
    """The part of Istio's mesh configuration that names the server. Without `timeout` Istio waits 600 seconds."""
    provider = {
        "name": PROVIDER,
        "envoyExtAuthzGrpc": {
            "service": setup.host_name,
            "port": setup.port,
            "timeout": setup.seconds,
            "failOpen": False,
            "statusOnError": "503",
        },
    }
    return {"meshConfig": {"extensionProviders": [provider]}}


def gateway_topology() -> Document:
    """Gateways replace `x-forwarded-client-cert` by what they saw themselves."""
    return {
        "meshConfig": {"defaultConfig": {"gatewayTopology": {"forwardClientCertDetails": "SANITIZE_SET"}}},
    }


def authorization_policy(setup: Setup, attachment: Document) -> Document:
    """Every request to what `attachment` selects is asked about."""
    return {
        "apiVersion": "security.istio.io/v1",
        "kind": "AuthorizationPolicy",
        "metadata": metadata("ext-authz", setup.target_namespace),
        "spec": {**attachment, "action": "CUSTOM", "provider": {"name": PROVIDER}, "rules": [{}]},
    }


def peer_certificate_filter(setup: Setup, context: str) -> Document:
    """An EnvoyFilter for what a provider cannot say: send the certificate, the TLS server name and raw headers.

    Args:
        setup: selects the pods.
        context: `SIDECAR_INBOUND` or `GATEWAY`.
    """
    ext_authz: Mapping[str, object] = {
        "@type": _EXT_AUTHZ,
        "include_peer_certificate": True,
        "include_tls_session": True,
        "encode_raw_headers": True,
    }
    chain = {
        "filter": {
            "name": "envoy.filters.network.http_connection_manager",
            "subFilter": {"name": "envoy.filters.http.ext_authz"},
        }
    }
    patch = {
        "applyTo": "HTTP_FILTER",
        "match": {"context": context, "listener": {"filterChain": chain}},
        "patch": {"operation": "MERGE", "value": {"typed_config": ext_authz}},
    }
    return {
        "apiVersion": "networking.istio.io/v1alpha3",
        "kind": "EnvoyFilter",
        "metadata": metadata("ext-authz-evidence", setup.target_namespace),
        "spec": {"workloadSelector": {"labels": dict(setup.selector)}, "configPatches": [patch]},
    }


def peer_authentication(setup: Setup) -> Document:
    """The workload accepts connections with a certificate of the mesh only."""
    return {
        "apiVersion": "security.istio.io/v1",
        "kind": "PeerAuthentication",
        "metadata": metadata("ext-authz", setup.target_namespace),
        "spec": {"selector": _labels(setup), "mtls": {"mode": "STRICT"}},
    }


def waypoint(setup: Setup) -> Document:
    """A waypoint that tells who is calling."""
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "Gateway",
        "metadata": {
            **metadata(setup.gateway, setup.target_namespace),
            "labels": {"istio.io/waypoint-for": "service"},
            "annotations": {XFCC_ANNOTATION: "true"},
        },
        "spec": {
            "gatewayClassName": "istio-waypoint",
            "listeners": [{"name": "mesh", "port": 15008, "protocol": "HBONE"}],
        },
    }


def _labels(setup: Setup) -> Document:
    return {"matchLabels": dict(setup.selector)}


def _provider_part(setup: Setup) -> Part:
    return Part(
        Destination.ISTIOD,
        "merge into Istio's mesh configuration; a list of providers that is there already must keep its entries",
        mesh_provider(setup),
    )


def _policy_part(setup: Setup, attachment: Document) -> Part:
    return Part(
        Destination.KUBERNETES,
        "ask about every request; which of them need what is decided by the server's own policies",
        authorization_policy(setup, attachment),
    )


def _filter_part(setup: Setup, context: str) -> Part:
    return Part(
        Destination.KUBERNETES,
        "send the caller's certificate, the TLS server name and headers byte by byte",
        peer_certificate_filter(setup, context),
    )


def _sidecar(setup: Setup) -> tuple[Part, ...]:
    return (
        _provider_part(setup),
        Part(
            Destination.KUBERNETES, "callers without a certificate of the mesh are refused", peer_authentication(setup)
        ),
        _policy_part(setup, {"selector": _labels(setup)}),
        _filter_part(setup, "SIDECAR_INBOUND"),
    )


def _gateway(setup: Setup) -> tuple[Part, ...]:
    return (
        _provider_part(setup),
        Part(
            Destination.ISTIOD,
            "merge into Istio's mesh configuration; this is what gateways with mutual TLS do by default",
            gateway_topology(),
        ),
        _policy_part(setup, {"selector": _labels(setup)}),
        _filter_part(setup, "GATEWAY"),
    )


def _ambient(setup: Setup) -> tuple[Part, ...]:
    reference = {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": setup.gateway}
    return (
        _provider_part(setup),
        Part(
            Destination.KUBERNETES,
            "the waypoint says who is calling (Istio 1.30 or later); bind services with the label istio.io/use-waypoint",
            waypoint(setup),
        ),
        _policy_part(setup, {"targetRefs": [reference]}),
    )


_EVIDENCE: Document = {
    "certificate_sources": [{"type": "source-certificate"}, {"type": "xfcc", "trusted_hops": 1}],
    "chain_verified_by": "proxy",
}

SIDECAR = Platform(
    name="istio-sidecar",
    title="Istio with sidecars",
    proves=(
        "the caller's SPIFFE ID, which the sidecar verified",
        (
            "the caller's key: `x5t#S256` is checked against the certificate on the connection, or against the `Hash` that "
            "the sidecar appends to x-forwarded-client-cert where the EnvoyFilter is not wanted"
        ),
        "the destination: `targets` with `destination_principal`",
    ),
    cannot=(
        "tell a caller that a gateway forwards: behind a gateway the certificate is the gateway's, so bind tokens there",
        "use `context_extensions` as targets: Istio sends none",
        "allow requests while the server is down: `failOpen` is off, clients get 503",
    ),
    evidence=_EVIDENCE,
    parts=_sidecar,
    ignores_host_port=True,
)

GATEWAY = Platform(
    name="istio-gateway",
    title="An Istio ingress gateway",
    proves=(
        "the client's key, where the Gateway's server says `tls.mode: MUTUAL` or `OPTIONAL_MUTUAL`: `x5t#S256` is checked",
        "the client's SPIFFE ID, where its certificate holds one and the gateway's CA signed it",
        "the TLS server name: `targets` with `sni`",
    ),
    cannot=(
        "see a certificate where the server says `tls.mode: SIMPLE`: bound tokens are denied there",
        "see one that a load balancer in front took off: TLS must end at the gateway",
        "allow requests while the server is down: `failOpen` is off, clients get 503",
    ),
    evidence=_EVIDENCE,
    parts=_gateway,
    ignores_host_port=True,
    # as Istio's own charts install it
    setup=Setup(target_namespace="istio-system", selector={"istio": "ingressgateway"}),
)

AMBIENT = Platform(
    name="istio-ambient",
    title="Istio ambient with a waypoint",
    proves=("the caller's SPIFFE ID, which ztunnel verified and the waypoint passes on (Istio 1.30 or later)",),
    cannot=(
        (
            "check `x5t#S256`: TLS ends in ztunnel and the waypoint passes on a name, no certificate and no hash. A token with "
            "`cnf` is denied (`binding_thumbprint_unavailable`), never let through"
        ),
        (
            "bind by anything but the name: issue tokens without `cnf`, and require "
            "`binding: {mode: required, accept: [spiffe-id], spiffe_id_claim: <claim>}`; where the key must be proved, use a sidecar"
        ),
        "tell workloads apart by `destination_principal`: TLS does not end at the waypoint; choose policies by `hostnames`",
    ),
    evidence={"certificate_sources": [{"type": "xfcc", "trusted_hops": 1}], "chain_verified_by": "proxy"},
    parts=_ambient,
    ignores_host_port=True,
)
