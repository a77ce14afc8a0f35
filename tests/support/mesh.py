"""A caller, a real Envoy that asks for certificates, and servers behind it: what operations are tried on.

    server = ServerProcess(folder, mesh_spec(), policy__yaml=mesh_policy())
    with server, Mesh(folder, [server.address]) as mesh, mesh.load() as load:
        ...
    load.report.verify(at_least=500)

Envoy answers an allowed request itself, with the headers that reached it in place of an application: nothing but the check
can fail.
"""

import datetime as dt
import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from envoy_data_plane.envoy.config.bootstrap.v3 import Bootstrap
from envoy_data_plane.envoy.config.cluster.v3 import Cluster
from envoy_data_plane.envoy.config.core.v3 import (
    DataSource,
    HeaderValue,
    HeaderValueOption,
    HealthCheck,
    HealthCheckGrpcHealthCheck,
)
from envoy_data_plane.envoy.config.endpoint.v3 import Endpoint, LbEndpoint
from envoy_data_plane.envoy.config.route.v3 import DirectResponseAction
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import HttpConnectionManager
from envoy_data_plane.google.protobuf import Any as Packed

from ext_authz.demo.bootstrap import bootstrap
from ext_authz.demo.envoy import EnvoyProcess
from ext_authz.demo.key_pair import KeyPair
from ext_authz.demo.ports import choose_ports
from ext_authz.demo.proxy import (
    CheckFilter,
    ClientCertificates,
    DownstreamTls,
    ProxyCluster,
    ProxyListener,
    UpstreamTls,
)
from support.envoys import INSTALLED, require_binary
from support.pki import Leaf, authority, ec_key
from support.server import Json, route_policy, server_spec
from support.steady_load import Answer, Ask, Caller, SteadyLoad
from support.tokens import AUDIENCE, ISSUER, access_token, cnf_for, jwks, signing_key

__all__ = ["BILLING", "CALLER", "HOST", "ROOT", "THIEF", "Mesh", "bound_token", "mesh_policy", "mesh_spec", "wait_for"]

HOST = "billing.example.com"
BILLING = "spiffe://cluster.local/ns/billing/sa/api"
WEBSITE = "spiffe://cluster.local/ns/applications/sa/website"

ROOT = authority("cluster.local")
SERVER = ROOT.svid(BILLING, key=ec_key("server"), dns_sans=[HOST])
CALLER = ROOT.svid(WEBSITE, key=ec_key("caller"))
THIEF = ROOT.svid("spiffe://cluster.local/ns/applications/sa/thief", key=ec_key("thief"))

CHECK_SECONDS = 5.0
"""Envoy's timeout: what is tried here is whether an answer comes, on a machine that may be busy."""

SHOWN_HEADERS = ("x-subject", "x-policy-version")
"""Of the request as the application would get it; Envoy sends them back as `seen-…`."""


def mesh_policy(version: str = "1") -> str:
    """Rules for `/invoices` (a bound token), `/admin` (nobody here) and `/public`; `version` shows in a header."""
    inject = {"request_headers": {"x-subject": "${token.sub}", "x-policy-version": version}}
    token = {"issuers": ["corp"], "scopes": {"all": ["invoices.read"]}}
    return route_policy(
        {"name": "invoices", "matches": [{"path": {"value": "/invoices"}}], "require": {"peer": {}, "token": token}}
        | {"inject": inject},
        {
            "name": "admin",
            "matches": [{"path": {"value": "/admin"}}],
            "require": {"peer": {"service_accounts": ["admin"]}},
        },
        {"name": "public", "matches": [{"path": {"value": "/public"}}], "public": True},
        targets=[{"destination_principal": BILLING}],
    )


def mesh_spec(**parts: object) -> Json:
    """A server's `spec` for it, whose policy is in `policy.yaml`; `parts` replace members."""
    issuer = {"name": "corp", "issuer": ISSUER, "audiences": [AUDIENCE]}
    defaults: dict[str, object] = {
        "evidence": {"certificate_sources": [{"type": "source-certificate"}], "chain_verified_by": "proxy"},
        "issuers": [issuer | {"keys": {"inline": json.loads(jwks(signing_key()))}}],
        "policies": ["policy.yaml"],
    }
    return server_spec(**(defaults | parts))


def bound_token(leaf: Leaf, **changes: Any) -> str:
    """A token of now, bound to `leaf`."""
    arguments: dict[str, Any] = {"now": time.time(), "cnf": cnf_for(leaf.der), **changes}
    return access_token(**arguments)


def wait_for(condition: Callable[[], object], what: str, seconds: float = 30.0) -> None:
    """Until `condition` holds; fail when it does not."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, f"not in {seconds} s: {what}"
        time.sleep(0.02)


class Mesh:
    """The Envoy; runs while its `with` block does.

    Attributes:
        envoy: itself.
        folder: for its files, and for callers' keys.
        own: what Envoy's listener presents, which has `folder/edge.pem` and `folder/edge.key`.
    """

    def __init__(
        self,
        folder: Path,
        endpoints: Sequence[str],
        *,
        tls: UpstreamTls | None = None,
        health_checks: bool = False,
        edit: Callable[[Bootstrap], None] = lambda _: None,
        edit_cluster: Callable[[Cluster], None] = lambda _: None,
        version: str = INSTALLED,
        concurrency: int = 1,
    ) -> None:
        """Prepare.

        Args:
            folder: that exists.
            endpoints: addresses of the servers, `host:port`.
            tls: towards them.
            health_checks: ask their gRPC health, as often as a test can wait for.
            edit: changes the bootstrap.
            edit_cluster: changes the cluster of the servers.
            version: of Envoy.
            concurrency: its worker threads.
        """
        self.folder = folder
        self._write("edge.pem", SERVER.chain_pem)
        self._write("edge.key", SERVER.key_pem)
        self._write("clients.pem", ROOT.pem)
        clients = ClientCertificates(str(folder / "clients.pem"), required=True)
        listener = ProxyListener(
            "edge",
            tls=DownstreamTls(KeyPair(str(folder / "edge.pem"), str(folder / "edge.key")), clients),
            check=CheckFilter(timeout=CHECK_SECONDS),
        )
        # no application is asked, so its cluster leads nowhere
        nowhere = ProxyCluster("upstream", f"127.0.0.1:{choose_ports(1)[0]}")
        config = bootstrap((listener,), (ProxyCluster("ext_authz", endpoints[0], http2=True, tls=tls), nowhere))
        _answer_with_what_came(config)
        assert config.static_resources is not None
        cluster = config.static_resources.clusters[0]
        assert cluster.load_assignment is not None
        first = cluster.load_assignment.endpoints[0].lb_endpoints[0]
        for address in endpoints[1:]:
            cluster.load_assignment.endpoints[0].lb_endpoints.append(_another(first, address))
        if health_checks:
            cluster.health_checks = [_health_check()]
        edit_cluster(cluster)
        edit(config)
        self.envoy = EnvoyProcess(require_binary(version), config, folder, concurrency=concurrency)

    def __enter__(self) -> Self:
        self.envoy.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.envoy.stop()

    def caller(self, leaf: Leaf = CALLER, *, authorities: bytes = ROOT.pem, token: str | None = None) -> Caller:
        """The holder of `leaf`, by default with a token that is bound to it."""
        return Caller.of(leaf, authorities, bound_token(leaf) if token is None else token, self.folder)

    def load(self, asks: tuple[Ask, ...] | None = None, *, caller: Caller | None = None, **options: Any) -> SteadyLoad:
        """A load that begins with its `with` block; by default `usual_asks`."""
        usual = self.usual_asks() if asks is None else asks
        return SteadyLoad(self.envoy.ports["edge"], caller or self.caller(), usual, host=HOST, **options)

    def usual_asks(self, verify: Callable[[Answer], str] | None = None) -> tuple[Ask, ...]:
        """Mostly a token where it belongs, and between them what must be denied: by policy, a stolen token, and none."""
        invoices = Ask("/invoices/1", verify=verify or _has_subject)
        stolen = f"Bearer {bound_token(THIEF)}"
        return (
            *[invoices] * 4,
            Ask("/admin", status=403),
            *[invoices] * 4,
            Ask("/invoices/stolen", status=401, authorization=stolen),
            Ask("/public"),
            Ask("/invoices/anonymous", status=401, authorization=""),
        )

    def stat(self, name: str) -> int:
        """One of Envoy's statistics about the servers' cluster."""
        return self.envoy.stat(f"cluster.ext_authz.{name}")

    def _write(self, name: str, content: bytes) -> None:
        (self.folder / name).write_bytes(content)


def _has_subject(answer: Answer) -> str:
    return "" if answer.headers.get("seen-x-subject") else "no subject was injected"


def _answer_with_what_came(config: Bootstrap) -> None:
    """Envoy itself answers an allowed request, as the application would see it."""
    assert config.static_resources is not None
    (http_filter,) = config.static_resources.listeners[0].filter_chains[0].filters
    assert http_filter.typed_config is not None
    manager = http_filter.typed_config.unpack()
    assert isinstance(manager, HttpConnectionManager)
    assert manager.route_config is not None
    (route,) = manager.route_config.virtual_hosts[0].routes
    route.route = None
    route.direct_response = DirectResponseAction(status=200, body=DataSource(inline_string="allowed"))
    route.response_headers_to_add = [
        HeaderValueOption(header=HeaderValue(key=f"seen-{name}", value=f"%REQ({name.upper()})%"))
        for name in SHOWN_HEADERS
    ]
    # a line for each of thousands of requests helps nobody
    manager.access_log = []
    http_filter.typed_config = Packed.pack(manager)


def _another(first: LbEndpoint, address: str) -> LbEndpoint:
    assert first.endpoint is not None
    host, _, port = address.rpartition(":")
    written: Mapping[str, Any] = first.to_dict()
    copy = LbEndpoint.from_dict(written)
    assert isinstance(copy.endpoint, Endpoint)
    assert copy.endpoint.address is not None
    assert copy.endpoint.address.socket_address is not None
    copy.endpoint.address.socket_address.address = host
    copy.endpoint.address.socket_address.port_value = int(port)
    return copy


def _health_check() -> HealthCheck:
    return HealthCheck(
        timeout=dt.timedelta(seconds=5),
        interval=dt.timedelta(milliseconds=200),
        no_traffic_interval=dt.timedelta(milliseconds=200),
        unhealthy_threshold=2,
        healthy_threshold=1,
        grpc_health_check=HealthCheckGrpcHealthCheck(),
    )
