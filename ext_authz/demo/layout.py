"""The directory a demo runs from: keys and certificates, configuration of every part, and the description for callers."""

import json
from dataclasses import astuple, dataclass, field
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

from envoy_data_plane.envoy.config.bootstrap.v3 import Bootstrap

from ext_authz.demo.bootstrap import bootstrap
from ext_authz.demo.json_web import base64url
from ext_authz.demo.key_pair import KeyPair
from ext_authz.demo.pki import Authority, Credential, self_signed
from ext_authz.demo.ports import are_free, choose_ports
from ext_authz.demo.proxy import (
    CheckFilter,
    ClientCertDetails,
    ClientCertificates,
    DownstreamTls,
    ForwardClientCertDetails,
    ProxyCluster,
    ProxyListener,
    TrustChainVerification,
)
from ext_authz.demo.stack import Endpoint, Stack

__all__ = ["Placement", "Ports", "envoy_bootstrap", "prepare"]

_WORKLOADS = {"billing": "/ns/billing/sa/api", "catalog": "/ns/catalog/sa/web"}
_SERVER_NAMES = {
    "billing": ["billing.example.com"],
    "catalog": ["catalog.example.com"],
    "edge": ["api.example.com", "tenant-a.example.com"],
    "auth": ["auth.example.com"],
}


@dataclass(frozen=True, slots=True)
class Ports:
    """Every TCP port of a stack; the defaults are what the documentation shows."""

    billing: int = 10443
    catalog: int = 10444
    edge: int = 10445
    auth: int = 10446
    plain: int = 10080
    envoy_admin: int = 10901
    ext_authz: int = 10900
    ext_authz_admin: int = 10902
    upstream: int = 10903
    authorization_server: int = 10904

    @classmethod
    def free(cls, *, any_ports: bool = False) -> "Ports":
        """The default ports if all are free on loopback (and any would not do), else others."""
        defaults = astuple(cls())
        return cls(*(choose_ports(len(defaults)) if any_ports or not are_free(defaults) else defaults))


@dataclass(frozen=True, slots=True)
class Placement:
    """Where the parts run and how they reach each other; the defaults are processes on loopback.

    Attributes:
        root: the directory as the parts see it; None for where it is.
        bind: the address all parts listen on.
        public: the address at which callers reach Envoy's listeners.
        auth_host: host of the authorization server's URL, for callers and for ext-authz.
        ext_authz: host of ext-authz as Envoy sees it.
        upstream: host of the upstream as Envoy sees it.
        authorization_server: host of the authorization server as Envoy sees it.
        ports: of everything.
        decision_log_command: prints ext-authz's log; without one the log is a file.
    """

    root: str | None = None
    bind: str = "127.0.0.1"
    public: str = "127.0.0.1"
    auth_host: str = "127.0.0.1"
    ext_authz: str = "127.0.0.1"
    upstream: str = "127.0.0.1"
    authorization_server: str = "127.0.0.1"
    ports: Ports = field(default_factory=Ports)
    decision_log_command: tuple[str, ...] = ()

    @classmethod
    def containers(cls, root: str = "/demo") -> "Placement":
        """The services of `docker-compose.yml`, with the directory mounted at `root`."""
        return cls(
            root=root,
            bind="0.0.0.0",  # noqa: S104 - a container's own network
            auth_host="auth.example.com",
            ext_authz="ext-authz",
            upstream="upstream",
            authorization_server="authorization-server",
            decision_log_command=("docker-compose", "logs", "--no-color", "--no-log-prefix", "ext-authz"),
        )

    @property
    def issuer(self) -> str:
        """The authorization server's identifier."""
        return f"https://{self.auth_host}:{self.ports.auth}"


def prepare(directory: Path, placement: Placement, now: float) -> Stack:
    """Write everything a stack needs into `directory`; what is there from an earlier run is replaced.

    Args:
        directory: created when missing, readable by the owner alone.
        placement: where the parts will run.
        now: seconds since the epoch; certificates are valid from here on.
    """
    directory = directory.absolute()
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    authority = Authority.create("cluster.local", now)
    partner = Authority.create("partner.example", now)
    for root in (authority, partner):
        (directory / f"{root.trust_domain}.pem").write_bytes(root.bundle_pem)
    (directory / "roots.pem").write_bytes(authority.bundle_pem + partner.bundle_pem)
    for name, names in _SERVER_NAMES.items():
        path = _WORKLOADS.get(name, f"/ns/platform/sa/{name}")
        authority.issue(path, now, [*names, "localhost", "127.0.0.1"]).write(directory, f"server-{name}")
    clients = _client_credentials(authority, partner, now)
    for name, credential in clients.items():
        credential.write(directory, f"client-{name}")
    _write_configuration(directory, placement, base64url(clients["batch"].thumbprint))
    ports = placement.ports
    stack = Stack(
        directory=directory,
        endpoints={
            **{
                name: Endpoint(placement.public, getattr(ports, name), names[0])
                for name, names in _SERVER_NAMES.items()
            },
            "plain": Endpoint(placement.public, ports.plain, "api.example.com", is_tls=False),
        },
        issuer=placement.issuer,
        ca_file="cluster.local.pem",
        credentials={name: KeyPair(f"client-{name}.pem", f"client-{name}-key.pem") for name in clients},
        decision_log_file=None if placement.decision_log_command else "ext-authz.log",
        decision_log_command=placement.decision_log_command,
    )
    stack.write()
    return stack


def _client_credentials(authority: Authority, partner: Authority, now: float) -> dict[str, Credential]:
    website = "/ns/applications/sa/mywebsite"
    return {
        "mywebsite": authority.issue(website, now),
        # the same workload after its certificate was renewed
        "mywebsite-renewed": authority.issue(website, now),
        "reporting": authority.issue("/ns/applications/sa/reporting", now),
        "operator": authority.issue("/ns/platform/sa/operator", now),
        "partner": partner.issue("/ns/orders/sa/gateway", now),
        "app": self_signed("app on a phone", now),
        "app-renewed": self_signed("app on a phone", now),
        "batch": self_signed("batch", now),
        # what an attacker can make: the right name under no authority, and under the wrong one
        "impostor": self_signed("impostor", now, f"spiffe://cluster.local{website}"),
        "partner-impostor": Authority("cluster.local", partner.credential).issue(website, now),
    }


def _write_configuration(directory: Path, placement: Placement, batch_thumbprint: str) -> None:
    root = placement.root or str(directory)
    ports = placement.ports
    values = {
        "root": root,
        "issuer": placement.issuer,
        "check_address": f"{placement.bind}:{ports.ext_authz}",
        "admin_address": f"{placement.bind}:{ports.ext_authz_admin}",
        "batch_thumbprint": batch_thumbprint,
    }
    for source, target in _data_files(files("ext_authz.demo") / "data", directory):
        text = source.read_text()
        for name, value in values.items():
            text = text.replace("{{" + name + "}}", value)
        target.parent.mkdir(exist_ok=True)
        target.write_text(text)
    settings = {
        "issuer": placement.issuer,
        "host": placement.bind,
        "port": ports.authorization_server,
        "clients_file": f"{root}/clients.json",
        "trust_bundles": {domain: f"{root}/{domain}.pem" for domain in ("cluster.local", "partner.example")},
    }
    (directory / "authorization-server.json").write_text(json.dumps(settings, indent=2) + "\n")
    (directory / "envoy.json").write_text(envoy_bootstrap(root, placement).to_json(indent=2) + "\n")


def _data_files(source: Traversable, target: Path) -> list[tuple[Traversable, Path]]:
    found: list[tuple[Traversable, Path]] = []
    for entry in source.iterdir():
        if entry.is_dir():
            found += _data_files(entry, target / entry.name)
        else:
            found.append((entry, target / entry.name))
    return found


def envoy_bootstrap(root: str, placement: Placement) -> Bootstrap:
    """Envoy's configuration: two workloads with mutual TLS, two gateways without, and the authorization server."""
    ports = placement.ports

    def tls(name: str, *, asks_clients: bool = True) -> DownstreamTls:
        pair = KeyPair(f"{root}/server-{name}.pem", f"{root}/server-{name}-key.pem")
        # self-signed certificates bind tokens, so Envoy lets them in; ext-authz decides whom a certificate identifies
        clients = ClientCertificates(f"{root}/roots.pem", TrustChainVerification.ACCEPT_UNTRUSTED)
        return DownstreamTls(pair, clients if asks_clients else None)

    workloads = [
        ProxyListener(
            name,
            getattr(ports, name),
            placement.bind,
            tls(name),
            # as an Istio sidecar: what the client wrote stays, on the left of what Envoy appends
            forward_client_cert_details=ForwardClientCertDetails.APPEND_FORWARD,
            client_cert_details=ClientCertDetails(uri=True),
        )
        for name in _WORKLOADS
    ]
    edge = {"gateway": "edge"}
    gateways = [
        ProxyListener("edge", ports.edge, placement.bind, tls("edge", asks_clients=False), context_extensions=edge),
        ProxyListener(
            "plain",
            ports.plain,
            placement.bind,
            forward_client_cert_details=ForwardClientCertDetails.APPEND_FORWARD,
            context_extensions=edge,
        ),
    ]
    auth = ProxyListener(
        "auth",
        ports.auth,
        placement.bind,
        tls("auth"),
        forward_client_cert_details=ForwardClientCertDetails.SANITIZE_SET,
        client_cert_details=ClientCertDetails(cert=True),
        check=None,
        cluster="authorization_server",
    )
    clusters = (
        ProxyCluster("upstream", f"{placement.upstream}:{ports.upstream}"),
        ProxyCluster("authorization_server", f"{placement.authorization_server}:{ports.authorization_server}"),
        ProxyCluster(CheckFilter().cluster, f"{placement.ext_authz}:{ports.ext_authz}", http2=True),
    )
    return bootstrap((*workloads, *gateways, auth), clusters, ("127.0.0.1", ports.envoy_admin))
