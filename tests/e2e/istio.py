"""The listeners that istiod generates for `action: CUSTOM` AuthorizationPolicies, at a sidecar and at a gateway.

In front of ext_authz stands an RBAC filter that only notes which policy matches (shadow rules); ext_authz runs where
that note begins with the provider's name.
"""

import datetime as dt

from e2e.services import ISTIO_CLUSTER
from envoy_data_plane.envoy.config.core.v3 import (
    ApiVersion,
    DataSource,
    GrpcService,
    GrpcServiceEnvoyGrpc,
    TypedExtensionConfig,
)
from envoy_data_plane.envoy.config.rbac.v3 import (
    Permission,
    PermissionSet,
    Policy,
    Principal,
    PrincipalSet,
    RbacAction,
)
from envoy_data_plane.envoy.config.rbac.v3 import Rbac as RbacRules
from envoy_data_plane.envoy.extensions.filters.http.ext_authz.v3 import ExtAuthz
from envoy_data_plane.envoy.extensions.filters.http.rbac.v3 import Rbac
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import (
    HttpConnectionManager,
    HttpConnectionManagerPathWithEscapedSlashesAction,
    HttpConnectionManagerUpgradeConfig,
    HttpFilter,
)
from envoy_data_plane.envoy.extensions.transport_sockets.tls.v3 import (
    DownstreamTlsContext,
    SpiffeCertValidatorConfig,
    SpiffeCertValidatorConfigTrustDomain,
)
from envoy_data_plane.envoy.type.matcher.v3 import (
    MetadataMatcher,
    MetadataMatcherPathSegment,
    PathMatcher,
    StringMatcher,
    ValueMatcher,
)
from envoy_data_plane.envoy.type.v3 import HttpStatus, StatusCode
from envoy_data_plane.google.protobuf import Any as Packed

from ext_authz.demo.key_pair import KeyPair
from ext_authz.demo.proxy import (
    ClientCertDetails,
    ClientCertificates,
    DownstreamTls,
    ForwardClientCertDetails,
    ProxyListener,
    TrustChainVerification,
)

__all__ = ["ASKED_PREFIX", "as_istiod_validates", "as_istiod_writes_the_manager", "listeners"]

ASKED_PREFIX = "/invoices"
"""`to: [{operation: {paths: [/invoices*]}}]`."""

_PROVIDER = "istio-ext-authz-ext-authz"
_STAT_PREFIX = "istio_ext_authz_"
_RBAC_FILTER = "envoy.filters.http.rbac"


def listeners(server: KeyPair, gateway: KeyPair, ca_file: str) -> tuple[ProxyListener, ...]:
    """A sidecar that asks about some paths, one that asks about all (`rules: [{}]`), and a gateway."""
    clients = ClientCertificates(ca_file, TrustChainVerification.VERIFY_TRUST_CHAIN, required=True)
    some = Permission(url_path=PathMatcher(path=StringMatcher(prefix=ASKED_PREFIX)))
    sidecar = {
        "tls": DownstreamTls(server, clients),
        "forward_client_cert_details": ForwardClientCertDetails.APPEND_FORWARD,
        "client_cert_details": ClientCertDetails(subject=True, uri=True, dns=True),
    }
    at_gateway = {
        "tls": DownstreamTls(gateway, clients),
        "forward_client_cert_details": ForwardClientCertDetails.SANITIZE_SET,
        "client_cert_details": ClientCertDetails(subject=True, cert=True, uri=True, dns=True),
    }
    return tuple(
        ProxyListener(name, check=None, filters_before=_custom_action(asked), **flavour)  # type: ignore[arg-type]  # as above
        for name, asked, flavour in (
            ("istio-sidecar", some, sidecar),
            ("istio-everything", Permission(any=True), sidecar),
            ("istio-gateway", some, at_gateway),
        )
    )


def _custom_action(asked: Permission) -> tuple[HttpFilter, HttpFilter]:
    """The pair of filters for one policy."""
    permission = Permission(and_rules=PermissionSet(rules=[Permission(or_rules=PermissionSet(rules=[asked]))]))
    principal = Principal(and_ids=PrincipalSet(ids=[Principal(any=True)]))
    rules = RbacRules(
        action=RbacAction.DENY,
        policies={f"{_PROVIDER}-ns[foo]-policy[p]-rule[0]": Policy(permissions=[permission], principals=[principal])},
    )
    noted = MetadataMatcher(
        filter=_RBAC_FILTER,
        path=[MetadataMatcherPathSegment(key=f"{_STAT_PREFIX}shadow_effective_policy_id")],
        value=ValueMatcher(string_match=StringMatcher(prefix=_PROVIDER)),
    )
    authority = ISTIO_CLUSTER.rpartition("|")[2]
    check = ExtAuthz(
        grpc_service=GrpcService(
            envoy_grpc=GrpcServiceEnvoyGrpc(cluster_name=ISTIO_CLUSTER, authority=authority),
            # `timeout` of the provider; 600 s when it is not set
            timeout=dt.timedelta(seconds=1),
        ),
        transport_api_version=ApiVersion.V3,
        status_on_error=HttpStatus(code=StatusCode.Forbidden),
        filter_enabled_metadata=noted,
    )
    shadow = Rbac(shadow_rules=rules, shadow_rules_stat_prefix=_STAT_PREFIX)
    return (
        HttpFilter(name=_RBAC_FILTER, typed_config=Packed.pack(shadow)),
        HttpFilter(name="envoy.filters.http.ext_authz", typed_config=Packed.pack(check)),
    )


def as_istiod_writes_the_manager(manager: HttpConnectionManager) -> None:
    """What the mesh's defaults make of a request before any filter sees it (path normalisation `BASE`)."""
    manager.normalize_path = True
    manager.path_with_escaped_slashes_action = HttpConnectionManagerPathWithEscapedSlashesAction.KEEP_UNCHANGED
    manager.proxy_100_continue = True
    manager.server_name = "istio-envoy"
    manager.upgrade_configs = [HttpConnectionManagerUpgradeConfig(upgrade_type="websocket")]


def as_istiod_validates(context: DownstreamTlsContext, ca_file: str) -> None:
    """STRICT mutual TLS: a SPIFFE certificate of a trust domain of the mesh."""
    assert context.common_tls_context is not None
    validation = context.common_tls_context.validation_context
    assert validation is not None
    domain = SpiffeCertValidatorConfigTrustDomain(name="cluster.local", trust_bundle=DataSource(filename=ca_file))
    validation.trusted_ca = None
    validation.custom_validator_config = TypedExtensionConfig(
        name="envoy.tls.cert_validator.spiffe",
        typed_config=Packed.pack(SpiffeCertValidatorConfig(trust_domains=[domain])),
    )
