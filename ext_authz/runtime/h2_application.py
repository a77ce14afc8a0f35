"""Check and Health as an ASGI application: one HTTP/2 stream in, `grpc-status` out.

Every fault of a call is answered with a gRPC status in a response without a body (Trailers-Only), except where the
request is not gRPC at all. A warm check passes through `_call` without a task or a timer.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, MutableMapping
from typing import Any, TypeAlias, TypeVar

from ext_authz.errors import Refusal
from ext_authz.runtime.grpc_frame import (
    CallRefused,
    MessageBuffer,
    Status,
    frame,
    is_grpc,
    parse_timeout,
    take_message,
)
from ext_authz.runtime.health import HEALTH_SERVICE, Health
from ext_authz.runtime.transport import CHECK_METHOD, CheckCall

__all__ = ["GrpcApplication"]

Event: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Event]]
Send: TypeAlias = Callable[[Event], Awaitable[None]]
Answer = TypeVar("Answer")

_CONTENT_TYPE = (b"content-type", b"application/grpc")
_START: Event = {"type": "http.response.start", "status": 200, "headers": [_CONTENT_TYPE], "trailers": True}
_OK: Event = {"type": "http.response.trailers", "headers": [(b"grpc-status", b"0")]}
_NO_BODY: Event = {"type": "http.response.body", "body": b""}

_logger = logging.getLogger(__name__)


class _Disconnected(Exception):  # noqa: N818 - an outcome, not a fault
    """The client has reset the stream or closed the connection: nobody listens any more."""


class _NotGrpc(Exception):  # noqa: N818 - an outcome, not a fault
    """A request that no gRPC status can answer."""

    def __init__(self, status: int, *headers: tuple[bytes, bytes]) -> None:
        super().__init__(status)
        self.status = status
        self.headers = headers


class GrpcApplication:
    """Serves `check` and `health`, each call by itself."""

    def __init__(self, check: CheckCall, health: Health, ceiling: int) -> None:
        """Wire up.

        Args:
            check: the service.
            health: what to say to health checks.
            ceiling: the largest message in bytes.
        """
        self._check = check
        self._health = health
        self._ceiling = ceiling
        self._waiting: set[asyncio.Future[Any]] = set()
        self._check_path = CHECK_METHOD.encode()
        self._others: dict[bytes, Callable[[bytes, float | None, Receive, Send], Awaitable[None]]] = {
            f"/{HEALTH_SERVICE}/Check".encode(): self._health_check,
            f"/{HEALTH_SERVICE}/Watch".encode(): self._health_watch,
        }

    def cancel_waiting(self) -> None:
        """End each call that waits for its answer with UNAVAILABLE."""
        for task in self._waiting:
            task.cancel()

    async def __call__(self, scope: Event, receive: Receive, send: Send) -> None:
        """One stream."""
        if scope["type"] != "http":
            # a WebSocket over HTTP/2 (RFC 8441)
            await send({"type": "websocket.close"})
            return
        try:
            try:
                await self._call(scope, receive, send)
            except CallRefused as refusal:
                await _refuse(send, refusal)
            except _NotGrpc as fault:
                await send({"type": "http.response.start", "status": fault.status, "headers": list(fault.headers)})
                await send(_NO_BODY)
            except (_Disconnected, OSError):
                raise
            except Exception:
                # the service never raises: this is a fault of the transport, and the client must hear of it
                _logger.exception("a call failed in the transport")
                await _refuse(send, CallRefused(Status.INTERNAL, "internal error"))
        except (_Disconnected, OSError):
            # OSError is what `send` raises for a stream that is closed
            with contextlib.suppress(OSError):
                await _refuse(send, CallRefused(Status.UNAVAILABLE, "the call was cancelled"))

    async def _call(self, scope: Event, receive: Receive, send: Send) -> None:
        deadline = _deadline(scope)
        path = scope["raw_path"]
        if path != self._check_path and path not in self._others:
            raise CallRefused(Status.UNIMPLEMENTED, "unknown method")
        event = await receive()
        if event.get("more_body"):
            message = await self._rest(event, receive, deadline)
        else:
            message = take_message(_body(event), self._ceiling)
        if path != self._check_path:
            await self._others[path](message, deadline, receive, send)
            return
        answer = self._check(message, deadline)
        if not isinstance(answer, bytes):
            answer = await self._wait(_awaited(answer), receive, deadline)
        await send(_START)
        await send({"type": "http.response.body", "body": frame(answer)})
        await send(_OK)

    async def _rest(self, event: Event, receive: Receive, deadline: float | None) -> bytes:
        """The message of a body that comes in several pieces, of which `event` is the first."""
        buffer = MessageBuffer(self._ceiling)
        try:
            async with asyncio.timeout(_remaining(deadline)):
                while True:
                    buffer.add(_body(event))
                    if not event.get("more_body"):
                        return buffer.finish()
                    event = await receive()
        except TimeoutError:
            raise CallRefused(Status.DEADLINE_EXCEEDED, "deadline exceeded") from None

    async def _wait(self, work: Coroutine[Any, Any, Answer], receive: Receive, deadline: float | None) -> Answer:
        """What `work` gives, unless the client goes or its deadline comes first."""
        task = asyncio.ensure_future(work)
        gone = asyncio.ensure_future(_awaited(receive()))
        self._waiting.add(task)
        try:
            await asyncio.wait((task, gone), timeout=_remaining(deadline), return_when=asyncio.FIRST_COMPLETED)
            if task.cancelled():
                raise CallRefused(Status.UNAVAILABLE, "the server is stopping")
            if task.done():
                return task.result()
            if gone.done():
                raise _Disconnected
            raise CallRefused(Status.DEADLINE_EXCEEDED, "deadline exceeded")
        finally:
            self._waiting.discard(task)
            task.cancel()
            gone.cancel()

    async def _health_check(self, message: bytes, _deadline: float | None, _receive: Receive, send: Send) -> None:
        try:
            answer = self._health.check(message)
        except Refusal as refusal:
            raise CallRefused(Status.INVALID_ARGUMENT, refusal.detail) from None
        if answer is None:
            raise CallRefused(Status.NOT_FOUND, "no such service")
        await send(_START)
        await send({"type": "http.response.body", "body": frame(answer)})
        await send(_OK)

    async def _health_watch(self, message: bytes, deadline: float | None, receive: Receive, send: Send) -> None:
        answers = self._health.watch(message)
        try:
            first = await anext(answers)
        except Refusal as refusal:
            raise CallRefused(Status.INVALID_ARGUMENT, refusal.detail) from None
        await send(_START)
        await send({"type": "http.response.body", "body": frame(first), "more_body": True})

        async def tell() -> None:
            async for answer in answers:
                await send({"type": "http.response.body", "body": frame(answer), "more_body": True})

        trailers = _OK
        try:
            await self._wait(tell(), receive, deadline)
        except CallRefused as refusal:
            trailers = {"type": "http.response.trailers", "headers": _status(refusal)}
        await send(_NO_BODY)
        await send(trailers)


async def _awaited(answer: Awaitable[Answer]) -> Answer:
    return await answer


def _deadline(scope: Event) -> float | None:
    """When the caller gives up, `time.monotonic()`; checks on the way that the request head is a gRPC call's.

    Raises:
        _NotGrpc: it is not.
        CallRefused: it is, with a fault.
    """
    if scope["method"] != "POST":
        raise _NotGrpc(405, (b"allow", b"POST"))
    grpc = False
    timeout: bytes | None = None
    for name, value in scope["headers"]:
        if name == b"content-type":
            grpc = value == b"application/grpc" or is_grpc(value)
        elif name == b"grpc-timeout":
            if timeout is not None:
                raise CallRefused(Status.INTERNAL, "malformed grpc-timeout")
            timeout = value
    if not grpc:
        raise _NotGrpc(415)
    if scope["query_string"]:
        raise CallRefused(Status.UNIMPLEMENTED, "unknown method")
    if "http.response.trailers" not in scope["extensions"]:
        # a client or proxy that cannot take trailers would never see the status of a call that fails late
        raise CallRefused(Status.INTERNAL, "the request must say te: trailers")
    return None if timeout is None else time.monotonic() + parse_timeout(timeout)


def _remaining(deadline: float | None) -> float | None:
    return None if deadline is None else max(0.0, deadline - time.monotonic())


def _body(event: Event) -> bytes:
    if event["type"] != "http.request":
        raise _Disconnected
    body = event.get("body", b"")
    return body if type(body) is bytes else bytes(body)


def _status(refusal: CallRefused) -> list[tuple[bytes, bytes]]:
    return [(b"grpc-status", b"%d" % refusal.status), (b"grpc-message", refusal.message.encode("ascii"))]


async def _refuse(send: Send, refusal: CallRefused) -> None:
    headers = [_CONTENT_TYPE, *_status(refusal)]
    if refusal.status is Status.UNIMPLEMENTED:
        headers.append((b"grpc-accept-encoding", b"identity"))
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send(_NO_BODY)
