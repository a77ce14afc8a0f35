"""What every Envoy under test is connected to: one `ext-authz serve` per kind of evidence, and an upstream.

All servers have the same policies; they differ in what they may read from a request and in how Envoy reaches them.
"""

import contextlib
import json
import time
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from e2e.upstream import Upstream
from support.pki import Leaf, authority, ec_key, self_signed
from support.server import ServerProcess, document, server_spec
from support.tokens import AUDIENCE, ISSUER, access_token, cnf_for, jwks, signing_key

from ext_authz.demo.key_pair import KeyPair
from ext_authz.demo.ports import choose_ports
from ext_authz.demo.proxy import ProxyCluster, UpstreamTls

BILLING = "spiffe://cluster.local/ns/billing/sa/api"
GATEWAY = "spiffe://cluster.local/ns/istio-system/sa/gateway"
WEBSITE = "spiffe://cluster.local/ns/applications/sa/website"

HOST = "billing.example.com"
TENANT_HOST = "tenant.example.com"

ROOT = authority("cluster.local")
STRANGERS = authority("stranger.example")
SERVER = ROOT.svid(BILLING, key=ec_key("server"), dns_sans=[HOST, TENANT_HOST])
FRONT = ROOT.svid(GATEWAY, key=ec_key("front"), dns_sans=[HOST])
# a gateway's certificate is for browsers: it has no SPIFFE ID
GATEWAY_SERVER = ROOT.leaf(key=ec_key("gateway server"), dns_sans=[HOST])
CALLER = ROOT.svid(WEBSITE, key=ec_key("caller"), dns_sans=["website.applications.svc"], subject="website")
THIEF = ROOT.svid("spiffe://cluster.local/ns/applications/sa/thief", key=ec_key("thief"))
APP = self_signed(key=ec_key("app"), subject="an app")
IMPOSTOR = self_signed(key=ec_key("impostor"), subject="website", uri_sans=[WEBSITE])
FOREIGNER = STRANGERS.svid(WEBSITE, key=ec_key("foreigner"))
_CHECK_SERVER = ROOT.svid(
    "spiffe://cluster.local/ns/auth/sa/ext-authz", key=ec_key("check"), dns_sans=["ext-authz.test"]
)
_CHECK_CLIENT = ROOT.svid("spiffe://cluster.local/ns/billing/sa/envoy", key=ec_key("check client"))

ISTIO_CLUSTER = "outbound|9000||ext-authz.auth.svc.cluster.local"

SMALL_MESSAGE_BYTES = 16_384
"""The largest CheckRequest that the `two-hops` server takes."""

INJECTED = {
    "request_headers": {
        "x-subject": "${token.sub}",
        "x-caller": "${peer.spiffe_id}",
        "x-tenant": "${token.claims.tenant}",
    },
    "remove_request_headers": ["authorization", "x-internal"],
    "response_headers": {"x-decided-by": "ext-authz", "x-rule-subject": "${token.sub}"},
    "dynamic_metadata": {"subject": "${token.sub}", "caller": {"spiffe_id": "${peer.spiffe_id}"}},
    "set_query_parameters": {"tenant": "${token.claims.tenant}"},
    "remove_query_parameters": ["debug"],
    "client_certificate": "x-client-certificate",
}


def _rule(name: str, path: str, **parts: object) -> dict[str, object]:
    return {"name": name, "matches": [{"path": {"value": path}}], **parts}


def _policies() -> list[str]:
    token = {"issuers": ["corp"], "scopes": {"all": ["invoices.read"]}}
    peer = {"namespaces": ["applications"], "trust_domains": ["cluster.local"]}
    rules = [
        _rule("invoices", "/invoices", require={"peer": peer, "token": token}, inject=INJECTED),
        _rule("bound", "/bound", require={"token": token}, inject={"request_headers": {"x-subject": "${token.sub}"}}),
        _rule(
            "workloads",
            "/workloads",
            require={"peer": {}},
            inject={"request_headers": {"x-caller": "${peer.spiffe_id}"}},
        ),
        _rule("admin", "/admin", require={"peer": {"service_accounts": ["admin"]}}),
        _rule("public", "/public", public=True),
        {"name": "read-only", "matches": [{"path": {"value": "/read-only"}, "method": "GET"}], "public": True},
    ]
    tenant = {
        "targets": [{"context_extensions": {"listener": "sni"}, "sni": TENANT_HOST}],
        "hostnames": [TENANT_HOST, "other.example.com"],
        "rules": [_rule("tenant", "/", public=True)],
    }
    return [
        document("RoutePolicy", "billing", {"targets": [{"destination_principal": BILLING}], "rules": rules}),
        document("RoutePolicy", "plain", {"targets": [{"context_extensions": {"listener": "plain"}}], "rules": rules}),
        document("RoutePolicy", "tenant", tenant),
        # counts where no policy names the destination: at the gateway
        document("RoutePolicy", "gateway", {"hostnames": [HOST], "rules": rules}),
    ]


def token_for(leaf: Leaf | None, **claims: Any) -> str:
    """An access token of now, bound to `leaf` unless None."""
    bound = {} if leaf is None else {"cnf": cnf_for(leaf.der)}
    return access_token(now=time.time(), **(bound | claims))


class Services:
    """Everything that Envoys of any version share. Servers start when first asked for and stop with `close`.

    Attributes:
        directory: for keys, logs and sockets.
        upstream: records what gets through.
    """

    def __init__(self, directory: Path) -> None:
        """Start the upstream; `directory` must be short enough for Unix sockets in it."""
        self.directory = directory
        self._stack = contextlib.ExitStack()
        self.upstream = self._stack.enter_context(Upstream())
        self._tls_port, self._tcp_port = choose_ports(2)
        self.started: dict[str, ServerProcess] = {}
        self.root_file = self._write("root.pem", ROOT.pem)
        self.front_pair = self.key_pair("front", FRONT)
        self.gateway_pair = self.key_pair("gateway", GATEWAY_SERVER)
        self.server_pair = self.key_pair("server", SERVER)

    def close(self) -> None:
        """Stop everything."""
        self._stack.close()

    def key_pair(self, name: str, leaf: Leaf) -> KeyPair:
        """`leaf` as files."""
        return KeyPair(self._write(f"{name}.pem", leaf.chain_pem), self._write(f"{name}.key", leaf.key_pem))

    def clusters(self) -> tuple[ProxyCluster, ...]:
        """How an Envoy reaches the upstream and every server, by the server's name."""
        check_client = self.key_pair("check-client", _CHECK_CLIENT)
        tls = UpstreamTls(self.root_file, server_name="ext-authz.test", certificate=check_client)
        address = f"127.0.0.1:{self._tls_port}"
        return (
            ProxyCluster("upstream", self.upstream.address),
            ProxyCluster("checked", f"unix:{self._socket('checked')}", http2=True),
            ProxyCluster("mesh", f"unix:{self._socket('mesh')}", http2=True),
            ProxyCluster("two-hops", f"127.0.0.1:{self._tcp_port}", http2=True),
            ProxyCluster("forwarded", address, http2=True, tls=tls),
            # for servers that come and go
            ProxyCluster("failing", f"unix:{self.failing_socket}", http2=True),
            # as istiod names it
            ProxyCluster(ISTIO_CLUSTER, f"unix:{self._socket('mesh')}", http2=True),
            # wrong ways to reach the server that asks for a certificate
            ProxyCluster("forwarded-anonymous", address, http2=True, tls=UpstreamTls(self.root_file)),
            ProxyCluster("forwarded-plain", address, http2=True),
        )

    @property
    def failing_socket(self) -> Path:
        """Where the cluster `failing` looks for a server; nobody listens unless a test does."""
        return self._socket("failing")

    @cached_property
    def checked(self) -> ServerProcess:
        """Reads the certificate attribute and XFCC, verifies chains itself."""
        sources = [{"type": "source-certificate"}, {"type": "xfcc", "trusted_hops": 1}]
        bundles = [{"trust_domain": "cluster.local", "files": [self.root_file]}]
        return self._serve(
            "checked",
            {"address": f"unix:{self._socket('checked')}"},
            {"certificate_sources": sources, "chain_verified_by": "bundles"},
            trust_bundles=bundles,
        )

    @cached_property
    def mesh(self) -> ServerProcess:
        """Reads XFCC alone and trusts the proxy's verification, as in an Istio mesh."""
        evidence = {"certificate_sources": [{"type": "xfcc", "trusted_hops": 1}], "chain_verified_by": "proxy"}
        return self._serve("mesh", {"address": f"unix:{self._socket('mesh')}"}, evidence)

    @cached_property
    def forwarded(self) -> ServerProcess:
        """Reads the XFCC element that the gateway wrote and others forward; speaks mutual TLS with Envoy."""
        pair = self.key_pair("check-server", _CHECK_SERVER)
        tls = {"certificate_file": pair.certificate_file, "key_file": pair.key_file, "client_ca_file": self.root_file}
        sources = [{"type": "xfcc", "trusted_hops": 1, "by": [GATEWAY]}]
        evidence = {"certificate_sources": sources, "chain_verified_by": "proxy"}
        return self._serve("forwarded", {"address": f"127.0.0.1:{self._tls_port}", "tls": tls}, evidence)

    @cached_property
    def two_hops(self) -> ServerProcess:
        """Reads the XFCC element before the last, which the gateway wrote; takes small messages only."""
        sources = [{"type": "xfcc", "trusted_hops": 2, "by": [GATEWAY], "via": [GATEWAY]}]
        evidence = {"certificate_sources": sources, "chain_verified_by": "proxy"}
        listener = {"address": f"127.0.0.1:{self._tcp_port}", "maximum_message_bytes": SMALL_MESSAGE_BYTES}
        return self._serve("two-hops", listener, evidence)

    def prepare(
        self, name: str, listener: Mapping[str, object], evidence: Mapping[str, object], **spec: object
    ) -> ServerProcess:
        """A server that is not started yet."""
        folder = self.directory / name
        folder.mkdir()
        files = {f"policy-{number}__yaml": text for number, text in enumerate(_policies())}
        issuer = {
            "name": "corp",
            "issuer": ISSUER,
            "audiences": [AUDIENCE],
            "keys": {"inline": json.loads(jwks(signing_key()))},
        }
        parts = {"evidence": evidence, "issuers": [issuer], "policies": ["policy-*.yaml"], **spec}
        return ServerProcess(folder, server_spec(listener={**listener, "drain_seconds": 1}, **parts), **files)

    def _serve(
        self, name: str, listener: Mapping[str, object], evidence: Mapping[str, object], **spec: object
    ) -> ServerProcess:
        server = self._stack.enter_context(self.prepare(name, listener, evidence, **spec))
        self.started[name] = server
        return server

    def _socket(self, name: str) -> Path:
        return self.directory / f"{name}.sock"

    def _write(self, name: str, content: bytes) -> str:
        file = self.directory / name
        file.write_bytes(content)
        return str(file)
