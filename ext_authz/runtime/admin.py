"""Probes and metrics over HTTP/1.1, answered by the event loop itself: a loop that hangs fails `/livez`.

h11 parses; each connection serves one request and is closed, so there is nothing to smuggle a second one into.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import h11
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

__all__ = ["AdminServer", "Readiness"]

MAX_CONNECTIONS = 64
"""At once; probes and scrapers need a handful."""

MAX_REQUEST_BYTES = 8_192
"""Request line and headers."""

EXCHANGE_SECONDS = 10.0
"""For a whole exchange, so that a client that stalls holds its place only so long."""

_CHUNK = 2_048
_TEXT = "text/plain; charset=utf-8"

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Readiness:
    """What `/readyz` says.

    Attributes:
        reasons: why checks should not come here; ready when there is none.
        notes: what an operator should know although it does not stop the server, such as a reload that failed.
    """

    reasons: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    body: bytes
    content_type: str = _TEXT


class AdminServer:
    """Serves `/livez`, `/readyz` (with `?verbose` for notes) and `/metrics`."""

    def __init__(
        self,
        registry: CollectorRegistry,
        readiness: Callable[[], Readiness],
        refresh: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """Prepare; `start` listens.

        Args:
            registry: what `/metrics` shows.
            readiness: asked at each `/readyz`.
            refresh: brings `registry` up to date before it is shown.
        """
        self._registry = registry
        self._readiness = readiness
        self._refresh = refresh
        self._server: asyncio.Server | None = None
        # in the order they came
        self._connections: dict[asyncio.Task[None], None] = {}

    async def start(self, address: str) -> str:
        """Listen on `host:port` and return the address with its real port. Raises OSError."""
        host, _, port = address.rpartition(":")
        self._server = await asyncio.start_server(self._connected, host.strip("[]"), int(port))
        return f"{host}:{self._server.sockets[0].getsockname()[1]}"

    async def stop(self) -> None:
        """Close the listener and every connection."""
        if self._server is None:
            return
        self._server.close()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is None:
            raise AssertionError("asyncio calls this in a task")
        if len(self._connections) >= MAX_CONNECTIONS:
            # the oldest goes, not the newest: whoever only holds connections open must not shut the probes out
            oldest = next(iter(self._connections))
            del self._connections[oldest]
            oldest.cancel()
        self._connections[task] = None
        # `drain` returns when the kernel has everything, so that closing never waits for a client that does not read
        writer.transport.set_write_buffer_limits(high=0)
        try:
            async with asyncio.timeout(EXCHANGE_SECONDS):
                await self._exchange(reader, writer)
        except (TimeoutError, ConnectionError, h11.LocalProtocolError):
            # the client stalled or left: nobody to answer
            writer.transport.abort()
        except Exception:
            _logger.exception("admin request failed")
        finally:
            self._connections.pop(task, None)
            writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_REQUEST_BYTES)
        head = False
        try:
            event = await _next_event(connection, reader)
            if not isinstance(event, h11.Request):
                return
            head = event.method == b"HEAD"
            answer = await self._answer(event)
        except h11.RemoteProtocolError as error:
            answer = _Answer(error.error_status_hint, b"malformed request\n")
        writer.write(
            connection.send(
                h11.Response(
                    status_code=answer.status,
                    headers=[
                        ("content-type", answer.content_type),
                        ("content-length", str(len(answer.body))),
                        ("cache-control", "no-store"),
                        ("x-content-type-options", "nosniff"),
                        ("connection", "close"),
                    ],
                )
            )
            or b""
        )
        if not head:
            writer.write(connection.send(h11.Data(data=answer.body)) or b"")
        writer.write(connection.send(h11.EndOfMessage()) or b"")
        await writer.drain()

    async def _answer(self, request: h11.Request) -> _Answer:
        if request.method not in {b"GET", b"HEAD"}:
            return _Answer(405, b"method not allowed\n")
        path, _, query = request.target.partition(b"?")
        routes: dict[bytes, Callable[[], Awaitable[_Answer]]] = {
            b"/livez": self._livez,
            b"/readyz": lambda: self._readyz(verbose=query == b"verbose"),
            b"/metrics": lambda: self._metrics(request),
        }
        route = routes.get(path)
        return _Answer(404, b"not found\n") if route is None else await route()

    @staticmethod
    async def _livez() -> _Answer:
        return _Answer(200, b"ok\n")

    async def _readyz(self, *, verbose: bool) -> _Answer:
        readiness = self._readiness()
        lines = list(readiness.reasons) or ["ok"]
        if verbose:
            lines += [f"note: {note}" for note in readiness.notes]
        return _Answer(503 if readiness.reasons else 200, "".join(f"{line}\n" for line in lines).encode())

    async def _metrics(self, request: h11.Request) -> _Answer:
        accept = b",".join(value for name, value in request.headers if name == b"accept")
        encode, content_type = choose_encoder(accept.decode("latin-1"))
        if self._refresh is not None:
            await self._refresh()
        # ten thousand rules take tens of milliseconds to render: not on the loop that decides
        body = await asyncio.to_thread(encode, self._registry)
        return _Answer(200, body, content_type)


async def _next_event(connection: h11.Connection, reader: asyncio.StreamReader) -> object:
    while True:
        event = connection.next_event()
        if event is not h11.NEED_DATA:
            return event
        connection.receive_data(await reader.read(_CHUNK))
