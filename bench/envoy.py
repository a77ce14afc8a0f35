"""Through a real Envoy: what a request waits longer with ext_authz, against nobody asked and against Envoy's own jwt_authn.

    python -m bench.envoy [--effort quick]

One client on mutual TLS sends one request after another to three listeners of one Envoy that differ in nothing else, in
short turns. Envoy answers itself (a direct response), so there is no upstream to wait for. `jwt_authn` checks signature,
issuer, audience and lifetime and sets three headers from claims; it can check neither the binding nor the scope.
"""

import socket
import ssl
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from support.pki import authority, key_pem
from support.tokens import jwks, signing_key

from bench import workload
from bench.figures import Effort, Report, Unavailable, percentile, say, standalone
from bench.load import on_core
from bench.serve import TRANSPORT_NAMES
from bench.server import our_server
from bench.timing import cores, pinned

__all__ = ["run"]

REQUESTS = {Effort.FULL: 6_000, Effort.QUICK: 1_000, Effort.SMOKE: 60}
TURN = 20
"""Requests in a row to one listener."""

WARM_UP = 100
TOKENS = 64
LISTENERS = ("none", "jwt_authn", "ext_authz")


def run(effort: Effort) -> Report:
    """Each transport behind its own Envoy."""
    report = Report("envoy")
    for transport in TRANSPORT_NAMES:
        try:
            _through(report, transport, effort)
        except Unavailable as error:
            report.skip(transport, str(error))
    return report


def _through(report: Report, transport: str, effort: Effort) -> None:
    try:
        from bench.proxies import running_envoy  # noqa: PLC0415 - Envoy is optional
    except ImportError as error:
        raise Unavailable(f"no Envoy installed: {error}") from None
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        table = workload.routes(10)
        with (
            our_server(transport, folder / "server", table=table) as check,
            running_envoy(check, jwks(signing_key("RS256")).decode(), folder, on_core(cores()[1], [])) as ports,
        ):
            latencies = _measure(ports, folder, REQUESTS[effort])
    what = f"ext-authz on {transport}, sequential requests, {REQUESTS[effort]} each"
    for listener in LISTENERS:
        for percent in (50, 99):
            report.add(f"{transport}_{listener}_p{percent}_ms", percentile(latencies[listener], percent), "ms", what)
    for percent in (50, 99):
        asked = percentile(latencies["ext_authz"], percent)
        for other in ("none", "jwt_authn"):
            added = asked - percentile(latencies[other], percent)
            against = "no ext_authz" if other == "none" else other
            report.add(f"{transport}_added_to_{other}_p{percent}_ms", added, "ms", f"against {against}, {what}")


@dataclass(frozen=True, slots=True)
class _Client:
    connection: ssl.SSLSocket
    requests: Sequence[bytes]


def _measure(ports: dict[str, int], folder: Path, count: int) -> dict[str, list[float]]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=authority().pem.decode())
    context.check_hostname = False
    leaf = workload.callers()[0]
    certificate, key = folder / "client.pem", folder / "client.key"
    certificate.write_bytes(leaf.pem)
    key.write_bytes(key_pem(leaf.key))
    context.load_cert_chain(certificate, key)
    heads = [_head(f"/service-0/invoices/{number}", workload.token(number, caller=leaf)) for number in range(TOKENS)]
    clients = {listener: _Client(_connect(ports[listener], context), heads) for listener in LISTENERS}
    latencies: dict[str, list[float]] = {listener: [] for listener in LISTENERS}
    try:
        with pinned(cores()[1]):
            for listener, client in clients.items():
                for number in range(WARM_UP):
                    _ask(client, number, listener)
            for start in range(0, count, TURN):
                for listener, client in clients.items():
                    samples = latencies[listener]
                    for number in range(start, start + TURN):
                        samples.append(_ask(client, number, listener))
    finally:
        for client in clients.values():
            client.connection.close()
    return latencies


def _head(target: str, token: str) -> bytes:
    lines = (
        f"GET {target} HTTP/1.1",
        f"host: {workload.HOST}",
        f"authorization: Bearer {token}",
        "accept: application/json",
        "user-agent: bench",
    )
    return "\r\n".join((*lines, "", "")).encode()


def _connect(port: int, context: ssl.SSLContext) -> ssl.SSLSocket:
    raw = socket.create_connection(("127.0.0.1", port), 10)
    raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return context.wrap_socket(raw, server_hostname=workload.HOST)


def _ask(client: _Client, number: int, listener: str) -> float:
    """Milliseconds from the first byte sent to the head of the answer."""
    request = client.requests[number % len(client.requests)]
    started = time.perf_counter_ns()
    client.connection.sendall(request)
    answer = client.connection.recv(65_536)
    elapsed = (time.perf_counter_ns() - started) / 1_000_000
    if not answer.startswith(b"HTTP/1.1 200") or not answer.endswith(b"\r\n\r\n"):
        raise AssertionError(f"{listener}: {answer[:500]!r}")
    return elapsed


if __name__ == "__main__":
    say("envoy")
    standalone(run, __doc__)
