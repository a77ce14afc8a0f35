"""One Envoy version between the clients and the shared services: a sidecar with a listener per setting, and a gateway.

Listeners are named after what they do. The gateway (`front`) is an Envoy of the same version whose listeners send
everything on to a listener of the first, so that two proxies in a row are two processes.
"""

import datetime as dt
import ssl
import time
import urllib.parse
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from e2e import client, istio
from e2e.client import Header, Reply
from e2e.services import GATEWAY, HOST, ROOT, Services
from e2e.upstream import Seen
from envoy_data_plane.envoy.config.accesslog.v3 import AccessLog
from envoy_data_plane.envoy.config.bootstrap.v3 import Bootstrap
from envoy_data_plane.envoy.config.core.v3 import SubstitutionFormatString
from envoy_data_plane.envoy.extensions.access_loggers.stream.v3 import StdoutAccessLog
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import (
    HttpConnectionManager,
    HttpConnectionManagerUpgradeConfig,
)
from envoy_data_plane.envoy.extensions.transport_sockets.tls.v3 import (
    DownstreamTlsContext,
    SubjectAltNameMatcher,
    SubjectAltNameMatcherSanType,
)
from envoy_data_plane.envoy.type.matcher.v3 import StringMatcher
from envoy_data_plane.google.protobuf import Any as Packed
from envoy_data_plane.google.protobuf import Struct
from support.pki import Leaf
from support.server import Json, ServerProcess

from ext_authz.demo.bootstrap import bootstrap
from ext_authz.demo.envoy import EnvoyProcess
from ext_authz.demo.key_pair import KeyPair
from ext_authz.demo.proxy import (
    CheckFilter,
    ClientCertDetails,
    ClientCertificates,
    DownstreamTls,
    ForwardClientCertDetails,
    ProxyCluster,
    ProxyListener,
    TrustChainVerification,
    UpstreamTls,
)

__all__ = ["Stack", "edit_manager", "edit_tls", "envoy_between"]

_LOG_SECONDS = 10.0


def edit_manager(config: Bootstrap, listener: str, change: Callable[[HttpConnectionManager], None]) -> None:
    """Apply `change` to the HTTP connection manager of a listener."""
    chain = _listener(config, listener).filter_chains[0]
    packed = chain.filters[0].typed_config
    assert packed is not None
    manager = packed.unpack()
    assert isinstance(manager, HttpConnectionManager)
    change(manager)
    chain.filters[0].typed_config = Packed.pack(manager)


def edit_tls(config: Bootstrap, listener: str, change: Callable[[DownstreamTlsContext], None]) -> None:
    """Apply `change` to the TLS of a listener."""
    socket = _listener(config, listener).filter_chains[0].transport_socket
    assert socket is not None
    assert socket.typed_config is not None
    context = socket.typed_config.unpack()
    assert isinstance(context, DownstreamTlsContext)
    change(context)
    socket.typed_config = Packed.pack(context)


def _listener(config: Bootstrap, name: str) -> Any:
    assert config.static_resources is not None
    return next(listener for listener in config.static_resources.listeners if listener.name == name)


@dataclass(frozen=True)
class _Sidecar:
    """The listeners of the first Envoy."""

    server: KeyPair
    front: KeyPair
    ca_file: str

    def listeners(self) -> tuple[ProxyListener, ...]:
        """One for each setting under test."""
        checked = CheckFilter("checked", encode_raw_headers=False)
        details = ClientCertDetails(subject=True, uri=True, dns=True)
        append = ProxyListener(
            "append",
            tls=self.tls(TrustChainVerification.ACCEPT_UNTRUSTED),
            forward_client_cert_details=ForwardClientCertDetails.APPEND_FORWARD,
            client_cert_details=details,
            check=checked,
        )
        sanitize = replace(
            append,
            name="sanitize",
            forward_client_cert_details=ForwardClientCertDetails.SANITIZE,
            client_cert_details=None,
        )
        only_xfcc = replace(checked, cluster="mesh", include_peer_certificate=False)
        strict = self.tls(TrustChainVerification.VERIFY_TRUST_CHAIN, required=True)
        hash_only = replace(append, name="hash-only", tls=strict, check=only_xfcc)
        sanitize_set = replace(
            hash_only,
            name="sanitize-set",
            forward_client_cert_details=ForwardClientCertDetails.SANITIZE_SET,
            client_cert_details=ClientCertDetails(subject=True, cert=True, uri=True, dns=True),
        )
        forward_only = replace(
            hash_only,
            name="forward-only",
            forward_client_cert_details=ForwardClientCertDetails.FORWARD_ONLY,
            client_cert_details=None,
            check=replace(only_xfcc, cluster="forwarded"),
        )
        # what a client says on a listener without TLS
        always_forward = replace(
            forward_only,
            name="always-forward",
            tls=None,
            forward_client_cert_details=ForwardClientCertDetails.ALWAYS_FORWARD_ONLY,
            context_extensions={"listener": "plain"},
        )
        two_hops = replace(hash_only, name="two-hops", check=replace(only_xfcc, cluster="two-hops"))
        sni = replace(sanitize, name="sni", tls=DownstreamTls(self.front), context_extensions={"listener": "sni"})
        return (
            append,
            replace(append, name="append-raw", check=replace(checked, encode_raw_headers=True)),
            sanitize,
            replace(sanitize, name="sanitize-raw", check=replace(checked, encode_raw_headers=True)),
            replace(append, name="unvalidated", check=replace(checked, validate_mutations=False)),
            replace(sanitize, name="no-certificate", check=replace(checked, include_peer_certificate=False)),
            replace(sanitize, name="normalized"),
            replace(sanitize, name="upgrades"),
            hash_only,
            sanitize_set,
            forward_only,
            always_forward,
            two_hops,
            sni,
            replace(sni, name="no-sni", check=replace(checked, include_tls_session=False)),
            # ways in which Check fails
            replace(
                two_hops,
                name="two-hops-allowing",
                check=replace(only_xfcc, cluster="two-hops", failure_mode_allow=True),
            ),
            replace(sanitize, name="failing", check=replace(checked, cluster="failing", timeout=0.5)),
            replace(always_forward, name="wrong-tls", check=CheckFilter("forwarded-plain")),
            replace(always_forward, name="no-client-certificate", check=CheckFilter("forwarded-anonymous")),
        )

    def tls(self, verification: TrustChainVerification, *, required: bool = False) -> DownstreamTls:
        """The workload's TLS; client certificates are asked for."""
        return DownstreamTls(self.server, ClientCertificates(self.ca_file, verification, required=required))


def _as_tests_need(manager: HttpConnectionManager) -> None:
    line = {
        "target": "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%",
        "metadata": "%DYNAMIC_METADATA(envoy.filters.http.ext_authz)%",
        "metadata_subject": "%DYNAMIC_METADATA(envoy.filters.http.ext_authz:subject)%",
    }
    log = StdoutAccessLog(log_format=SubstitutionFormatString(json_format=Struct.from_dict(line)))
    # the connection of a malformed request is closed at once, not after a second
    manager.delayed_close_timeout = dt.timedelta(milliseconds=50)
    manager.access_log.append(AccessLog(name="envoy.access_loggers.stdout", typed_config=Packed.pack(log)))


def _normalizing(manager: HttpConnectionManager) -> None:
    manager.normalize_path = True


def _upgrading(manager: HttpConnectionManager) -> None:
    manager.upgrade_configs = [HttpConnectionManagerUpgradeConfig(upgrade_type="websocket")]
    manager.proxy_100_continue = True


def _only_the_gateway(context: DownstreamTlsContext) -> None:
    common = context.common_tls_context
    assert common is not None
    assert common.validation_context is not None
    common.validation_context.match_typed_subject_alt_names = [
        SubjectAltNameMatcher(san_type=SubjectAltNameMatcherSanType.URI, matcher=StringMatcher(exact=GATEWAY))
    ]


def sidecar_bootstrap(services: Services) -> Bootstrap:
    """The first Envoy."""
    plain = _Sidecar(services.server_pair, services.front_pair, services.root_file).listeners()
    generated = istio.listeners(services.server_pair, services.gateway_pair, services.root_file)
    listeners = (*plain, *generated)
    config = bootstrap(listeners, services.clusters())
    for listener in generated:
        edit_manager(config, listener.name, istio.as_istiod_writes_the_manager)
        if listener.name != "istio-gateway":
            edit_tls(config, listener.name, lambda context: istio.as_istiod_validates(context, services.root_file))
    for listener in listeners:
        edit_manager(config, listener.name, _as_tests_need)
    edit_manager(config, "normalized", _normalizing)
    edit_manager(config, "upgrades", _upgrading)
    # whoever else gets in could write any XFCC
    edit_tls(config, "forward-only", _only_the_gateway)
    return config


def front_bootstrap(services: Services, ports: dict[str, int]) -> Bootstrap:
    """The gateway: asks nobody, says who the client is, and sends everything to the first Envoy."""
    clients = ClientCertificates(services.root_file, TrustChainVerification.VERIFY_TRUST_CHAIN, required=True)
    details = ClientCertDetails(subject=True, cert=True, uri=True, dns=True)
    to_sidecar = UpstreamTls(services.root_file, server_name=HOST, certificate=services.front_pair)
    listeners = [
        ProxyListener(
            f"{mode}-to-{behind}",
            tls=DownstreamTls(services.front_pair, clients),
            forward_client_cert_details=details_mode,
            client_cert_details=details,
            check=None,
            cluster=behind,
        )
        for behind in ("forward-only", "two-hops")
        for mode, details_mode in (
            ("set", ForwardClientCertDetails.SANITIZE_SET),
            ("append", ForwardClientCertDetails.APPEND_FORWARD),
        )
    ]
    clusters = [ProxyCluster(name, f"127.0.0.1:{ports[name]}", tls=to_sidecar) for name in ("forward-only", "two-hops")]
    return bootstrap(tuple(listeners), tuple(clusters))


def envoy_between(binary: Path, config: Bootstrap, directory: Path) -> EnvoyProcess:
    """An Envoy of its own that is not started yet."""
    directory.mkdir(parents=True)
    return EnvoyProcess(binary, config, directory)


class Stack:
    """Envoys of one version and what is needed to ask them.

    Attributes:
        version: of the Envoys.
        services: shared with the other versions.
        envoy: the first.
        front: the gateway.
    """

    def __init__(self, version: str, binary: Path, services: Services) -> None:
        """Nothing is started yet."""
        self.version = version
        self.services = services
        self._binary = binary
        self._directory = services.directory / f"envoy-{version}"
        self.envoy = envoy_between(binary, sidecar_bootstrap(services), self._directory / "sidecar")
        self.front: EnvoyProcess | None = None

    def __enter__(self) -> Self:
        self.envoy.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.front is not None:
            self.front.stop()
        self.envoy.stop()

    def with_front(self) -> Self:
        """Start the gateway too."""
        if self.front is None:
            config = front_bootstrap(self.services, self.envoy.ports)
            self.front = envoy_between(self._binary, config, self._directory / "front").start()
        return self

    def another(self, name: str, config: Bootstrap) -> EnvoyProcess:
        """One more Envoy of this version, to be started and stopped by the caller."""
        return envoy_between(self._binary, config, self._directory / f"{name}-{uuid.uuid4().hex[:8]}")

    def send(
        self,
        listener: str,
        target: str,
        *,
        leaf: Leaf | None = None,
        token: str | None = None,
        headers: Sequence[Header] = (),
        method: str = "GET",
        host: str = HOST,
        server_name: str = HOST,
        http2: bool = False,
        body: bytes = b"",
    ) -> Reply:
        """One request to a listener, by name, of either Envoy.

        Args:
            listener: of the first Envoy, or `front:` and one of the gateway.
            target: sent as it is.
            leaf: the client's certificate.
            token: sent as `Authorization: Bearer`.
            headers: in order, after `host` and `authorization`.
            method: sent as it is.
            host: Host header or `:authority`.
            server_name: SNI.
            http2: speak HTTP/2.
            body: sent with its length.
        """
        port = self.port(listener)
        context = None if listener in PLAIN_TEXT else self.context(leaf, http2=http2)
        bearer: list[Header] = [] if token is None else [("authorization", f"Bearer {token}")]
        send = client.over_http2 if http2 else client.over_http1
        return send(
            port,
            context,
            server_name,
            method=method,
            target=target,
            headers=[("host", host), *bearer, *headers],
            body=body,
        )

    @staticmethod
    def below(prefix: str) -> str:
        """A path below `prefix` that no other request has."""
        return f"{prefix}/{uuid.uuid4().hex[:12]}"

    def port(self, listener: str) -> int:
        """Of a listener named as in `send`."""
        kind, colon, name = listener.partition(":")
        if not colon:
            return self.envoy.ports[kind]
        assert self.front is not None
        return self.front.ports[name]

    def context(self, leaf: Leaf | None, *, http2: bool = False) -> ssl.SSLContext:
        """A client's TLS."""
        return client.tls_context(ROOT.pem, leaf, self.services.directory, "h2" if http2 else "http/1.1")

    def arrived(self, marker: str) -> list[Seen]:
        """What reached the upstream with `marker` in its target, decoded or not."""
        return [
            seen
            for seen in self.services.upstream.requests
            if marker in seen.target or marker in urllib.parse.unquote(seen.target)
        ]

    def decision(self, server: ServerProcess, marker: str) -> Json:
        """The decision about the one request whose path holds `marker`."""
        found: list[Json] = []

        def is_logged() -> bool:
            found[:] = [record for record in server.decisions() if marker in record["path"]]
            return bool(found)

        server.wait_for(is_logged, f"logging a decision about {marker}", _LOG_SECONDS)
        assert len(found) == 1, found
        return found[0]

    def access_log(self, marker: str) -> Json:
        """The line with dynamic metadata about the request whose target holds `marker`."""
        deadline = time.monotonic() + _LOG_SECONDS
        while time.monotonic() < deadline:
            for line in self.envoy.access_log():
                if "metadata" in line and marker in str(line["target"]):
                    return line
            time.sleep(0.02)
        raise AssertionError(f"Envoy {self.version} did not log the request {marker}")

    def report(self) -> str:
        """What an investigation needs: the last lines of everything that ran."""
        parts = [f"Envoy {self.version}:\n{self.envoy.process.log_tail()}"]
        if self.front is not None:
            parts.append(f"Envoy {self.version} as gateway:\n{self.front.process.log_tail()}")
        for name, server in self.services.started.items():
            lines = "\n".join(server.lines[-4:])
            parts.append(f"ext-authz `{name}`:\n{lines}\n{server.stderr}")
        return "\n\n".join(parts)


PLAIN_TEXT = frozenset({"always-forward", "wrong-tls", "no-client-certificate"})
"""Listeners without TLS."""
