"""Check and Health over grpcio's asyncio server."""

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeAlias

import grpc
from grpc import aio

from ext_authz.config.settings import ListenerSettings
from ext_authz.errors import Refusal
from ext_authz.runtime.connection_limit import affordable
from ext_authz.runtime.health import AUTHORIZATION_SERVICE, HEALTH_SERVICE, Health
from ext_authz.runtime.tls import ServerCertificates
from ext_authz.runtime.transport import CheckCall, message_ceiling
from ext_authz.telemetry.traceparent import HEADER as TRACEPARENT

__all__ = ["GrpcTransport"]

_Context: TypeAlias = "aio.ServicerContext[bytes, bytes]"

_KEEPALIVE = (
    # a peer that vanished without closing the connection is noticed within 80 seconds
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.keepalive_permit_without_calls", 1),
    # Envoy's `connection_keepalive` may ping as often as the operator likes: never answer with GOAWAY, because the
    # calls it fails are decided by `failure_mode_allow`
    ("grpc.http2.max_ping_strikes", 0),
)

MAX_PENDING = 20_000
"""Calls that wait in the library, 15 KB each: 300 MB at most, and eight seconds of its work, longer than Envoy waits for one."""


def _queue(calls: int) -> tuple[tuple[str, int], ...]:
    """Let so many calls wait for the event loop.

    The library reads calls in threads of its own, and by default cancels some of them when 1,000 wait and all when 3,000
    do: one burst of four Envoy threads. What it cancels is decided by `failure_mode_allow`.
    """
    bounded = min(calls, MAX_PENDING)
    return ("grpc.server.max_pending_requests", bounded), ("grpc.server.max_pending_requests_hard_limit", bounded)


class GrpcTransport:
    """Serves `check` and `health` at the listener's address."""

    def __init__(
        self,
        listener: ListenerSettings,
        check: CheckCall,
        health: Health,
        certificates: ServerCertificates | None = None,
        *,
        reads_traceparent: bool = False,
    ) -> None:
        """Prepare; `start` listens.

        Args:
            listener: address and limits.
            check: the service.
            health: what to say to health checks.
            certificates: for TLS, None for plain text.
            reads_traceparent: hand the service the `traceparent` of each call, which is Envoy's own span.
        """
        handler = _traced_check_handler(check) if reads_traceparent else _check_handler(check)
        connections = affordable(listener.maximum_connections)
        self._listener = listener
        self._certificates = certificates
        self._server = aio.server(
            handlers=(
                grpc.method_handlers_generic_handler(
                    AUTHORIZATION_SERVICE, {"Check": grpc.unary_unary_rpc_method_handler(handler)}
                ),
                grpc.method_handlers_generic_handler(
                    HEALTH_SERVICE,
                    {
                        "Check": grpc.unary_unary_rpc_method_handler(_health_check_handler(health)),
                        "Watch": grpc.unary_stream_rpc_method_handler(_health_watch_handler(health)),
                    },
                ),
            ),
            options=(
                ("grpc.max_receive_message_length", message_ceiling(listener.maximum_message_bytes)),
                ("grpc.max_concurrent_streams", listener.maximum_concurrent_streams),
                ("grpc.max_allowed_incoming_connections", connections),
                *_queue(connections * listener.maximum_concurrent_streams),
                # two servers on one port would share the calls by chance: the second must fail loudly
                ("grpc.so_reuseport", 0),
                *_KEEPALIVE,
            ),
        )

    async def start(self) -> str:
        """Listen and return the address that was bound, with its real port.

        Raises:
            OSError: the address cannot be bound.
        """
        address = self._listener.address
        try:
            if self._certificates is None:
                port = self._server.add_insecure_port(address)
            else:
                port = self._server.add_secure_port(address, self._certificates.credentials())
        except RuntimeError:
            # grpcio has said why on standard error; its exception only repeats the address
            raise OSError(f"cannot listen on `{address}`: is it in use, or not an address of this machine?") from None
        await self._server.start()
        return address if address.startswith("unix:") else f"{address.rpartition(':')[0]}:{port}"

    async def drain(self, seconds: float) -> None:
        """GOAWAY, then wait for calls in flight, at most `seconds`."""
        await self._server.stop(seconds)


def _check_handler(check: CheckCall) -> Callable[[bytes, _Context], Awaitable[bytes]]:
    async def handle(request: bytes, context: _Context) -> bytes:
        remaining = context.time_remaining()
        answer = check(request, None if remaining is None else time.monotonic() + remaining)
        return answer if isinstance(answer, bytes) else await answer

    return handle


def _traced_check_handler(check: CheckCall) -> Callable[[bytes, _Context], Awaitable[bytes]]:
    async def handle(request: bytes, context: _Context) -> bytes:
        remaining = context.time_remaining()
        deadline = None if remaining is None else time.monotonic() + remaining
        answer = check(request, deadline, _traceparent(context))
        return answer if isinstance(answer, bytes) else await answer

    return handle


def _traceparent(context: _Context) -> str | None:
    """What Envoy's tracer has put on the call; None when it traces nothing."""
    for name, value in context.invocation_metadata() or ():
        if name == TRACEPARENT and isinstance(value, str):
            return value
    return None


def _health_check_handler(health: Health) -> Callable[[bytes, _Context], Awaitable[bytes]]:
    async def handle(request: bytes, context: _Context) -> bytes:
        try:
            answer = health.check(request)
        except Refusal as refusal:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, refusal.detail)
        if answer is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such service")
        return answer

    return handle


def _health_watch_handler(health: Health) -> Callable[[bytes, _Context], AsyncIterator[bytes]]:
    async def handle(request: bytes, context: _Context) -> AsyncIterator[bytes]:
        try:
            async for answer in health.watch(request):
                yield answer
        except Refusal as refusal:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, refusal.detail)

    return handle
