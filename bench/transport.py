"""Checks per second of both transports on one core: `python -m bench.transport`; takes half a minute.

Needs `h2load` (Debian: nghttp2-client). The server has one core and h2load another, where the machine has two. `empty`
answers every call with the same prepared bytes. `decision` parses the request, verifies token, certificate and binding
from their caches, matches a rule and serializes the answer; it counts and logs nothing.
"""

import asyncio
import os
import re
import shutil
import subprocess
import tempfile
from multiprocessing import Pipe, Process
from multiprocessing.connection import Connection
from pathlib import Path

from support.check_requests import check_request
from support.deployment import BILLING, CALLER, Deployment, bound_token
from support.tokens import NOW

from ext_authz.authorizer import authorize
from ext_authz.config.settings import ListenerSettings
from ext_authz.decision import Allow
from ext_authz.runtime.event_loop import loop_factory
from ext_authz.runtime.grpc_frame import frame
from ext_authz.runtime.health import Health
from ext_authz.runtime.transport import CHECK_METHOD, CheckCall
from ext_authz.runtime.transport_choice import transport_named
from ext_authz.wire.check_request import parse_check_request
from ext_authz.wire.check_response import serialize

CALLS = {"h2": 60_000, "grpcio": 8_000}
SECONDS = 60
"""The most that one run may take."""

REQUEST = check_request(
    path="/invoices/1",
    headers={"authorization": f"Bearer {bound_token()}", "user-agent": "bench", "x-request-id": "1" * 36},
    destination_principal=BILLING,
    source_certificate=CALLER.url_encoded_pem,
)


def decide() -> CheckCall:
    """The core without the runtime around it."""
    snapshot = Deployment().snapshot

    def check(request: bytes, deadline: float | None, traceparent: str | None = None) -> bytes:  # noqa: ARG001 - a CheckCall
        outcome = authorize(parse_check_request(request), snapshot, NOW)
        assert isinstance(outcome, Allow)
        return serialize(outcome)

    return check


def empty() -> CheckCall:
    """Nothing but the transport."""
    answer = decide()(REQUEST, None)
    assert isinstance(answer, bytes), "a decision from warm caches waits for nothing"

    def check(request: bytes, deadline: float | None, traceparent: str | None = None) -> bytes:  # noqa: ARG001 - a CheckCall
        return answer

    return check


HANDLERS = {"empty": empty, "decision": decide}


def serve(transport: str, handler: str, pipe: Connection) -> None:
    """One server, until the other end of the pipe says something."""
    if (os.cpu_count() or 1) > 1:
        os.sched_setaffinity(0, {0})

    async def run() -> None:
        listener = ListenerSettings(address="127.0.0.1:0")
        serving = transport_named(transport)(listener, HANDLERS[handler](), Health())
        pipe.send(await serving.start())
        await asyncio.to_thread(pipe.recv)
        await serving.drain(1.0)

    with asyncio.Runner(loop_factory=loop_factory() if transport == "h2" else None) as runner:
        runner.run(run())


def measure(transport: str, handler: str, body: Path) -> float:
    """Checks per second."""
    ours, theirs = Pipe()
    process = Process(target=serve, args=(transport, handler, theirs), daemon=True)
    process.start()
    try:
        command = ["taskset", "-c", "1"] if (os.cpu_count() or 1) > 1 and shutil.which("taskset") else []
        command += ["h2load", "-n", str(CALLS[transport]), "-c", "4", "-m", "50", "-d", str(body)]
        command += ["-H", "content-type: application/grpc", "-H", "te: trailers", f"http://{ours.recv()}{CHECK_METHOD}"]
        printed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=SECONDS).stdout
        rate = re.search(r"([0-9.]+) req/s", printed)
        done = re.search(r"([0-9]+) succeeded, 0 failed, 0 errored", printed)
        if rate is None or done is None or int(done[1]) != CALLS[transport]:
            raise SystemExit(f"h2load did not succeed:\n{printed}")
        return float(rate[1])
    finally:
        ours.send("stop")
        process.join(5)
        process.kill()


def main() -> None:
    """Print the table."""
    if shutil.which("h2load") is None:
        raise SystemExit("transport: h2load is not installed (Debian: nghttp2-client)")
    with tempfile.TemporaryDirectory() as folder:
        body = Path(folder) / "body"
        body.write_bytes(frame(REQUEST))
        print(f"{len(REQUEST)} byte CheckRequest, 4 connections with 50 streams each, checks per second on one core\n")
        print(f"{'handler':10}{'grpcio':>10}{'h2':>10}{'h2/grpcio':>11}")
        for handler in HANDLERS:
            rates = {transport: measure(transport, handler, body) for transport in CALLS}
            ratio = rates["h2"] / rates["grpcio"]
            print(f"{handler:10}{rates['grpcio']:>10,.0f}{rates['h2']:>10,.0f}{ratio:>10.1f}x")


if __name__ == "__main__":
    main()
