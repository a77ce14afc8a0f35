"""A stand-in for the server, which keeps one CheckRequest as the proxy sent it, with the metadata of its call."""

import asyncio
import math
from collections.abc import Awaitable, Callable, Mapping
from typing import NamedTuple, Self, TypeAlias

import grpc
from grpc import aio

from ext_authz.decision import Deny
from ext_authz.errors import Reason, Refusal
from ext_authz.runtime.health import AUTHORIZATION_SERVICE, HEALTH_SERVICE, Health
from ext_authz.wire.check_request import parse_check_request
from ext_authz.wire.check_response import serialize

__all__ = ["CaptureServer", "Captured"]

_Context: TypeAlias = "aio.ServicerContext[bytes, bytes]"

_CHECK = f"/{AUTHORIZATION_SERVICE}/Check"
_DRAIN_SECONDS = 1.0
"""For the answer to the request that was captured."""


class Captured(NamedTuple):
    """One call.

    Attributes:
        message: the serialized CheckRequest.
        metadata: of the call; names in lowercase, without binary values. `grpc-timeout` is rounded up to 10 ms, because a part
            of it has passed.
    """

    message: bytes
    metadata: Mapping[str, str]


class CaptureServer:
    """Answers every Check, by another server or with a denial, and keeps the first whose path is asked for.

    Use it with `async with`, from one event loop.
    """

    def __init__(self, address: str, *, path: str = "", forward: str | None = None) -> None:
        """Prepare; entering listens.

        Args:
            address: to listen on, without TLS.
            path: how the path of the request to keep begins.
            forward: a server (`host:port`, without TLS) that decides; without one everything is denied.
        """
        self.address = address
        self._path = path
        self._captured: asyncio.Future[Captured] = asyncio.get_running_loop().create_future()
        self._channel = None if forward is None else aio.insecure_channel(forward)
        self._health = Health()
        self._health.set_serving(True)
        self._server = aio.server(
            handlers=(
                _handler(AUTHORIZATION_SERVICE, self._check),
                # Envoy's health checks would take a server out that has none
                _handler(HEALTH_SERVICE, self._health_check),
            ),
            options=(("grpc.so_reuseport", 0),),
        )

    async def __aenter__(self) -> Self:
        try:
            port = self._server.add_insecure_port(self.address)
        except RuntimeError:
            await self._close()
            raise OSError(
                f"cannot listen on `{self.address}`: is it in use, or not an address of this machine?"
            ) from None
        await self._server.start()
        self.address = f"{self.address.rpartition(':')[0]}:{port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._close()

    async def captured(self) -> Captured:
        """Wait for the request to keep."""
        return await self._captured

    async def _close(self) -> None:
        await self._server.stop(_DRAIN_SECONDS)
        if self._channel is not None:
            await self._channel.close(None)

    async def _check(self, request: bytes, context: _Context) -> bytes:
        if not self._captured.done() and _path(request).startswith(self._path):
            texts = {key.lower(): value for key, value in context.invocation_metadata() or () if isinstance(value, str)}
            if (remaining := context.time_remaining()) is not None:
                texts["grpc-timeout"] = f"{math.ceil(max(remaining, 0.0) * 100) * 10}m"
            self._captured.set_result(Captured(request, texts))
        if self._channel is None:
            return serialize(Deny(Reason.NO_POLICY, 403))
        call = self._channel.unary_unary(_CHECK, None, None)
        try:
            answer: bytes = await call(request, timeout=context.time_remaining())
        except aio.AioRpcError as error:
            await context.abort(error.code(), error.details() or "")
        return answer

    async def _health_check(self, request: bytes, _: _Context) -> bytes:
        return self._health.check(request) or b""


def _handler(
    service: str, check: Callable[[bytes, _Context], Awaitable[bytes]]
) -> "grpc.GenericRpcHandler[bytes, bytes]":
    return grpc.method_handlers_generic_handler(service, {"Check": grpc.unary_unary_rpc_method_handler(check)})


def _path(request: bytes) -> str:
    """Of a message that the server itself would refuse, nothing: it is what is looked for where no path is."""
    try:
        return parse_check_request(request).path
    except Refusal:
        return ""
