"""Both transports, each on an event loop of its own, with a service that does what a test needs.

with running(kind) as server, grpc.insecure_channel(server.address) as channel:
    assert call(channel, b"x") == b"x"
"""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import grpc
import pytest
import uvloop

from ext_authz.config.settings import ListenerSettings
from ext_authz.runtime.grpc_transport import GrpcTransport
from ext_authz.runtime.h2_transport import H2Transport
from ext_authz.runtime.health import Health
from ext_authz.runtime.tls import ServerCertificates
from ext_authz.runtime.transport import CHECK_METHOD, Transport

__all__ = [
    "HEALTH_CHECK",
    "HEALTH_WATCH",
    "KINDS",
    "Kind",
    "Running",
    "Service",
    "call",
    "code_of",
    "running",
    "secure_channel",
]

HEALTH_CHECK = "/grpc.health.v1.Health/Check"
HEALTH_WATCH = "/grpc.health.v1.Health/Watch"

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Kind:
    """A transport and the event loop it runs on."""

    name: str
    transport: Callable[..., Transport]
    new_loop: Callable[[], asyncio.AbstractEventLoop]

    @property
    def is_h2(self) -> bool:
        """Whether the native HTTP/2 server is behind it."""
        return self.transport is H2Transport


KINDS = [
    pytest.param(Kind("grpcio", GrpcTransport, asyncio.new_event_loop), id="grpcio"),
    pytest.param(Kind("h2", H2Transport, uvloop.new_event_loop), id="h2"),
    pytest.param(Kind("h2-asyncio", H2Transport, asyncio.new_event_loop), id="h2-asyncio"),
]


class LoopThread:
    """An event loop in a thread, so that tests can be plain functions and never share a loop with a server."""

    def __init__(self, new_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
        self.loop = new_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()

    def run(self, coroutine: Coroutine[Any, Any, Result]) -> Result:
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(30)

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()


class Service:
    """Echoes. `wait:<seconds>` waits first, `hold` until `release` or cancellation; `large:<n>` answers `n` bytes.

    Attributes:
        deadlines: of each call, in order.
        traceparents: as `deadlines`.
        held: calls that are held now.
        most_held: the most there ever were.
        cancelled: calls that were cancelled while they waited.
        answer: what every call is answered with instead; after `slow_seconds` when the request holds `/slow`.
        slow_seconds: see `answer`.
        asked_at: when the last call came, `time.monotonic()`.
    """

    def __init__(self) -> None:
        self.answer: bytes | None = None
        self.slow_seconds = 0.3
        self.asked_at = 0.0
        self.deadlines: list[float | None] = []
        self.traceparents: list[str | None] = []
        self.held = 0
        self.most_held = 0
        self.cancelled = 0
        self._released = asyncio.Event()

    def check(self, request: bytes, deadline: float | None, traceparent: str | None = None) -> bytes | Awaitable[bytes]:
        self.asked_at = time.monotonic()
        self.deadlines.append(deadline)
        self.traceparents.append(traceparent)
        if self.answer is not None:
            return (
                self._wait(partial(asyncio.sleep, self.slow_seconds), self.answer)
                if b"/slow" in request
                else self.answer
            )
        if request.startswith(b"wait:"):
            return self._wait(partial(asyncio.sleep, float(request[5:])), request)
        if request.startswith(b"hold"):
            return self._wait(self._released.wait, request)
        if request.startswith(b"large:"):
            return bytes(int(request[6:]))
        return request

    async def _wait(self, until: Callable[[], Awaitable[object]], answer: bytes) -> bytes:
        self.held += 1
        self.most_held = max(self.held, self.most_held)
        try:
            await until()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.held -= 1
        return answer

    def release(self) -> None:
        self._released.set()


class Running:
    """A transport that serves."""

    def __init__(self, kind: Kind, listener: ListenerSettings, certificates: ServerCertificates | None) -> None:
        self.kind = kind
        self.thread = LoopThread(kind.new_loop)

        async def start() -> tuple[Service, Health, Transport, str]:
            service, health = Service(), Health()
            transport = kind.transport(listener, service.check, health, certificates)
            return service, health, transport, await transport.start()

        try:
            self.service, self.health, self.transport, self.address = self.thread.run(start())
        except BaseException:
            self.thread.close()
            raise

    @property
    def target(self) -> tuple[str, int]:
        """Of a TCP address."""
        host, _, port = self.address.rpartition(":")
        return host, int(port)

    def drain(self, seconds: float = 0.0) -> None:
        self.thread.run(self.transport.drain(seconds))

    def soon(self, action: Callable[..., object], *arguments: object) -> None:
        """Do something on the server's loop."""
        self.thread.loop.call_soon_threadsafe(action, *arguments)


@contextmanager
def running(kind: Kind, certificates: ServerCertificates | None = None, **listener: Any) -> Iterator[Running]:
    """A transport with `ListenerSettings(**listener)` on a free port, drained at the end."""
    settings = ListenerSettings(**{"address": "127.0.0.1:0", "drain_seconds": 2.0, **listener})
    server = Running(kind, settings, certificates)
    try:
        yield server
    finally:
        server.drain()
        server.thread.close()


def call(
    channel: grpc.Channel,
    request: bytes,
    method: str = CHECK_METHOD,
    timeout: float | None = 10.0,
    *,
    wait_for_ready: bool = False,
) -> bytes:
    """One unary call; with `wait_for_ready` connections that fail are made anew until `timeout`."""
    response = channel.unary_unary(method, None, None)(request, timeout=timeout, wait_for_ready=wait_for_ready)
    assert isinstance(response, bytes)
    return response


def code_of(action: Callable[[], object]) -> grpc.StatusCode:
    """The status that `action` fails with."""
    with pytest.raises(grpc.RpcError) as error:
        action()
    code = error.value.code()
    assert isinstance(code, grpc.StatusCode)
    return code


def secure_channel(address: str, root: bytes, **client: bytes) -> grpc.Channel:
    """To `server.test` at `address`, with a connection of its own."""
    return grpc.secure_channel(
        address,
        grpc.ssl_channel_credentials(root, client.get("key"), client.get("chain")),
        options=(("grpc.ssl_target_name_override", "server.test"), ("grpc.use_local_subchannel_pool", 1)),
    )
