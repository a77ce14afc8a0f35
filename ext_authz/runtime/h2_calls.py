"""What the HTTP/2 transport serves: Check and Health. A warm check costs neither a task nor a timer."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeAlias

from ext_authz.errors import Refusal
from ext_authz.runtime.grpc_frame import CallRefused, Status
from ext_authz.runtime.h2_connection import Connection
from ext_authz.runtime.h2_head import Head
from ext_authz.runtime.h2_stream import Stream
from ext_authz.runtime.health import HEALTH_SERVICE, Health
from ext_authz.runtime.transport import CHECK_METHOD, CheckCall
from ext_authz.runtime.turns import FRAMES_OF_A_WAIT, Turns

__all__ = ["ServedCalls"]

_Method: TypeAlias = Callable[[Connection, Stream, bytes], None]

_logger = logging.getLogger(__name__)


class ServedCalls:
    """`h2_connection.Calls` for the whole server.

    Attributes:
        turns: of connections that have brought more than can be answered at once.
    """

    def __init__(self, check: CheckCall, health: Health) -> None:
        """Wire up.

        Args:
            check: the service.
            health: what to say to health checks.
        """
        self._check = check
        self._health = health
        self._waiting: set[asyncio.Future[bytes | None]] = set()
        self.turns = Turns()
        self._methods: dict[bytes, _Method] = {
            CHECK_METHOD.encode(): self._start_check,
            f"/{HEALTH_SERVICE}/Check".encode(): self._start_health_check,
            f"/{HEALTH_SERVICE}/Watch".encode(): self._start_health_watch,
        }
        self._unknown = CallRefused(Status.UNIMPLEMENTED, "unknown method")

    def open(self, head: Head) -> CallRefused | None:
        """UNIMPLEMENTED for what is not served."""
        return None if head.path in self._methods else self._unknown

    def start(self, connection: Connection, stream: Stream, message: bytes) -> None:
        """Answer, or begin to."""
        try:
            self._methods[stream.head.path](connection, stream, message)
        except CallRefused as refusal:
            connection.refuse(stream, refusal)
        except Exception:
            # the service never raises: this is a fault of the transport, and the client must hear of it
            _logger.exception("a call failed in the transport")
            connection.refuse(stream, CallRefused(Status.INTERNAL, "internal error"))

    def cancel(self) -> None:
        """End each call that waits with UNAVAILABLE."""
        for task in self._waiting:
            task.cancel()

    def _start_check(self, connection: Connection, stream: Stream, message: bytes) -> None:
        answer = self._check(message, stream.deadline, stream.head.traceparent)
        if isinstance(answer, bytes):
            connection.answer(stream, answer)
        else:
            connection.charge(FRAMES_OF_A_WAIT)
            self._wait(connection, stream, answer)

    def _start_health_check(self, connection: Connection, stream: Stream, message: bytes) -> None:
        try:
            answer = self._health.check(message)
        except Refusal as refusal:
            raise CallRefused(Status.INVALID_ARGUMENT, refusal.detail) from None
        if answer is None:
            raise CallRefused(Status.NOT_FOUND, "no such service")
        connection.answer(stream, answer)

    def _start_health_watch(self, connection: Connection, stream: Stream, message: bytes) -> None:
        self._wait(connection, stream, self._watch(connection, stream, message))

    async def _watch(self, connection: Connection, stream: Stream, message: bytes) -> None:
        try:
            async for answer in self._health.watch(message):
                connection.send(stream, answer)
        except Refusal as refusal:
            raise CallRefused(Status.INVALID_ARGUMENT, refusal.detail) from None
        connection.finish(stream)

    def _wait(self, connection: Connection, stream: Stream, work: Awaitable[bytes | None]) -> None:
        """Answer with what `work` gives; None when it has answered itself."""
        loop = asyncio.get_running_loop()
        # the work itself, in no other coroutine: one that is cancelled before it ran would leave it unawaited
        task = stream.task = asyncio.ensure_future(work)
        self._waiting.add(task)
        task.add_done_callback(partial(self._settle, connection, stream))
        if stream.deadline is not None:
            refusal = CallRefused(Status.DEADLINE_EXCEEDED, "deadline exceeded")
            remaining = max(0.0, stream.deadline - time.monotonic())
            stream.timer = loop.call_later(remaining, connection.refuse, stream, refusal)

    def _settle(self, connection: Connection, stream: Stream, task: asyncio.Future[bytes | None]) -> None:
        self._waiting.discard(task)
        if stream.timer is not None:
            stream.timer.cancel()
        if task.cancelled():
            # by the client, the deadline, or the drain; of these only the drain has left the stream open
            connection.refuse(stream, CallRefused(Status.UNAVAILABLE, "the server is stopping"))
            return
        error = task.exception()
        if isinstance(error, CallRefused):
            connection.refuse(stream, error)
        elif error is not None:
            _logger.error("a call failed in the transport", exc_info=error)
            connection.refuse(stream, CallRefused(Status.INTERNAL, "internal error"))
        elif (answer := task.result()) is not None:
            connection.answer(stream, answer)
