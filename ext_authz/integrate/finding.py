"""What is missing in a proxy's setup, and the manifest that adds it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from ext_authz.integrate.contour import extension_service, http_proxy
from ext_authz.integrate.gateway_api import (
    client_traffic_policy,
    gateway_extension,
    listener_policy,
    security_policy,
    traffic_policy,
)
from ext_authz.integrate.istio import gateway_topology, mesh_provider, peer_certificate_filter, waypoint
from ext_authz.integrate.plain_envoy import check_filter
from ext_authz.integrate.platform import Document
from ext_authz.integrate.setup import Setup

__all__ = ["Finding", "Remedies"]

_Manifest: TypeAlias = Callable[[Setup], Document]

_FILTER: Mapping[str, _Manifest] = {
    "istio-sidecar": lambda setup: peer_certificate_filter(setup, "SIDECAR_INBOUND"),
    "istio-gateway": lambda setup: peer_certificate_filter(setup, "GATEWAY"),
    "envoy": check_filter,
}
_THUMBPRINT: Mapping[str, _Manifest] = {
    **_FILTER,
    "envoy-gateway": client_traffic_policy,
    "contour": http_proxy,
    "kgateway": listener_policy,
}
_CALLER: Mapping[str, _Manifest] = {**_THUMBPRINT, "istio-ambient": waypoint}
# of the HTTP connection manager
_REPLACE_XFCC: Document = {
    "forward_client_cert_details": "SANITIZE_SET",
    "set_current_client_cert_details": {"uri": True},
}
_XFCC: Mapping[str, _Manifest] = {
    # a sidecar appends, whatever is said: what comes before its element was let through by a gateway
    "istio-sidecar": lambda _: gateway_topology(),
    "istio-gateway": lambda _: gateway_topology(),
    "istio-ambient": waypoint,
    "envoy-gateway": client_traffic_policy,
    "kgateway": listener_policy,
    "envoy": lambda _: _REPLACE_XFCC,
}
_TIMEOUT: Mapping[str, _Manifest] = {
    "istio-sidecar": mesh_provider,
    "istio-gateway": mesh_provider,
    "istio-ambient": mesh_provider,
    "envoy-gateway": security_policy,
    "contour": extension_service,
    "kgateway": gateway_extension,
    "envoy": check_filter,
}
_FAIL_CLOSED: Mapping[str, _Manifest] = {**_TIMEOUT, "contour": http_proxy}
# of a route or a virtual host
_PER_ROUTE: Document = {
    "typed_per_filter_config": {
        "envoy.filters.http.ext_authz": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute",
            "check_settings": {"context_extensions": {"virtualhost": "api"}},
        }
    }
}
_EXTENSIONS: Mapping[str, _Manifest] = {
    "envoy-gateway": security_policy,
    "contour": http_proxy,
    "kgateway": traffic_policy,
    "envoy": lambda _: _PER_ROUTE,
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing to change.

    Attributes:
        title: what was seen.
        follows: what follows from it.
        change: what to do.
        manifest: the document that does it; None where there is none to show.
    """

    title: str
    follows: str
    change: str
    manifest: Document | None = None


@dataclass(frozen=True, slots=True)
class Remedies:
    """The documents of one platform that change what it sends; None where it cannot.

    Attributes:
        platform: its name.
        setup: arguments of the documents.
    """

    platform: str
    setup: Setup

    @property
    def filter(self) -> Document | None:
        """Sets the fields of the filter itself: certificate, TLS session, raw headers."""
        return self._made(_FILTER)

    @property
    def caller(self) -> Document | None:
        """Has the platform say who is calling."""
        return self._made(_CALLER)

    @property
    def thumbprint(self) -> Document | None:
        """Has the platform send the caller's certificate or its hash."""
        return self._made(_THUMBPRINT)

    @property
    def xfcc(self) -> Document | None:
        """Has the platform replace `x-forwarded-client-cert`."""
        return self._made(_XFCC)

    @property
    def timeout(self) -> Document | None:
        """Says how long to wait."""
        return self._made(_TIMEOUT)

    @property
    def fail_closed(self) -> Document | None:
        """Says that nothing passes without a decision."""
        return self._made(_FAIL_CLOSED)

    @property
    def extensions(self) -> Document | None:
        """Sets context extensions."""
        return self._made(_EXTENSIONS)

    def _made(self, manifests: Mapping[str, _Manifest]) -> Document | None:
        make = manifests.get(self.platform)
        return None if make is None else make(self.setup)
