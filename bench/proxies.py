"""The Envoy of the end-to-end benchmark: three listeners that differ in who is asked about a request."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from envoy_data_plane.envoy.config.core.v3 import DataSource
from envoy_data_plane.envoy.config.route.v3 import DirectResponseAction, Route
from envoy_data_plane.envoy.config.route.v3 import RouteMatch as EnvoyRouteMatch
from envoy_data_plane.envoy.extensions.filters.http.jwt_authn.v3 import (
    JwtAuthentication,
    JwtClaimToHeader,
    JwtProvider,
    JwtRequirement,
    RequirementRule,
)
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import (
    HttpConnectionManager,
    HttpFilter,
)
from envoy_data_plane.google.protobuf import Any as Packed
from support.pki import authority, ec_key, key_pem
from support.tokens import AUDIENCE, ISSUER

from bench.workload import BILLING
from ext_authz.demo.bootstrap import bootstrap
from ext_authz.demo.envoy import EnvoyProcess, envoy_binary
from ext_authz.demo.key_pair import KeyPair
from ext_authz.demo.proxy import CheckFilter, ClientCertificates, DownstreamTls, ProxyCluster, ProxyListener

__all__ = ["running_envoy"]


@contextmanager
def running_envoy(check: str, keys: str, folder: Path, prefix: list[str]) -> Iterator[dict[str, int]]:
    """Ports by listener: `none`, `jwt_authn`, `ext_authz`.

    Args:
        check: `host:port` of ext-authz.
        keys: the issuer's JWKS.
        folder: for its files.
        prefix: of the command, to choose a core.
    """
    pair, roots = _server_certificate(folder)
    tls = DownstreamTls(pair, ClientCertificates(roots, required=True), alpn=("http/1.1",))
    jwt = HttpFilter(name="envoy.filters.http.jwt_authn", typed_config=Packed.pack(_jwt_authn(keys)))
    listeners = (
        ProxyListener("none", tls=tls, check=None, cluster="ext_authz"),
        ProxyListener("jwt_authn", tls=tls, check=None, filters_before=(jwt,), cluster="ext_authz"),
        ProxyListener("ext_authz", tls=tls, check=CheckFilter(), cluster="ext_authz"),
    )
    config = bootstrap(listeners, (ProxyCluster("ext_authz", check, http2=True),))
    if config.static_resources is None:
        raise AssertionError("a bootstrap has listeners")
    for listener in config.static_resources.listeners:
        chain = listener.filter_chains[0]
        packed = chain.filters[0].typed_config
        manager = None if packed is None else packed.unpack()
        if not isinstance(manager, HttpConnectionManager) or manager.route_config is None:
            raise AssertionError("a listener has an HTTP connection manager with routes")
        # an access log per request is the same on all three, and not what is measured
        manager.access_log = []
        answer = Route(match=EnvoyRouteMatch(prefix="/"), direct_response=DirectResponseAction(status=200))
        manager.route_config.virtual_hosts[0].routes = [answer]
        chain.filters[0].typed_config = Packed.pack(manager)
    with EnvoyProcess(_with_prefix(envoy_binary(), prefix, folder), config, folder) as envoy:
        yield envoy.ports


def _with_prefix(binary: Path, prefix: list[str], folder: Path) -> Path:
    """An executable that runs `binary` under `prefix`: EnvoyProcess takes one file."""
    if not prefix:
        return binary
    script = folder / "envoy-on-one-core"
    script.write_text(f'#!/bin/sh\nexec {" ".join(prefix)} {binary} "$@"\n')
    script.chmod(0o755)
    return script


def _server_certificate(folder: Path) -> tuple[KeyPair, str]:
    root = authority()
    # the workload's own identity becomes `destination.principal`
    leaf = root.svid(BILLING, key=ec_key("bench server"))
    certificate, key, roots = folder / "server.pem", folder / "server.key", folder / "roots.pem"
    certificate.write_bytes(leaf.pem)
    key.write_bytes(key_pem(leaf.key))
    roots.write_bytes(root.pem)
    return KeyPair(str(certificate), str(key)), str(roots)


def _jwt_authn(keys: str) -> JwtAuthentication:
    provider = JwtProvider(
        issuer=ISSUER,
        audiences=[AUDIENCE],
        local_jwks=DataSource(inline_string=keys),
        forward=True,
        claim_to_headers=[
            JwtClaimToHeader(header_name="x-subject", claim_name="sub"),
            JwtClaimToHeader(header_name="x-client", claim_name="client_id"),
            JwtClaimToHeader(header_name="x-scopes", claim_name="scope"),
        ],
    )
    rule = RequirementRule(match=EnvoyRouteMatch(prefix="/"), requires=JwtRequirement(provider_name="corp"))
    return JwtAuthentication(providers={"corp": provider}, rules=[rule])
