"""Check and Health over our own HTTP/2 (`h2_connection`) on the event loop, best with uvloop.

Connections are accepted here rather than by an `asyncio.Server`, whose certificates are fixed: each handshake is made with
the certificates of the moment, and connections that exist go on.
"""

import asyncio
import contextlib
import logging
import os
import socket
import ssl
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import IO

from ext_authz.config.settings import ListenerSettings
from ext_authz.runtime.connection_limit import ConnectionLimit, affordable
from ext_authz.runtime.h2_calls import ServedCalls
from ext_authz.runtime.h2_connection import Connection
from ext_authz.runtime.health import Health
from ext_authz.runtime.listening import Listening
from ext_authz.runtime.tls import ServerCertificates, TlsMaterial
from ext_authz.runtime.transport import CheckCall, message_ceiling
from ext_authz.telemetry.server_log import exception_summary, log_event

__all__ = ["H2Transport"]

STALL_SECONDS = 30.0
"""How long a client may send nothing of a body it began, or take nothing of an answer, before its stream is reset."""

SWEEP_SECONDS = 0.25
"""How often streams are looked over for it, and for deadlines of requests that are not whole."""

HANDSHAKE_SECONDS = 5.0
"""For TLS; Envoy's own `connect_timeout` defaults to the same."""

ACCEPTED_AT_ONCE = 100
"""Connections, before those that exist have their turn again."""

ACCEPT_PAUSE_SECONDS = 1.0
"""While the process has as many files open as it may."""

RELEASE_SECONDS = 1.0
"""After calls were cancelled: time for their answers to leave."""

_logger = logging.getLogger(__name__)


class H2Transport:
    """Serves `check` and `health` at the listener's address."""

    def __init__(
        self,
        listener: ListenerSettings,
        check: CheckCall,
        health: Health,
        certificates: ServerCertificates | None = None,
        listening: Listening | None = None,
        *,
        on_end: Callable[[], None] = lambda: None,
        on_refused: Callable[[], None] = lambda: None,
    ) -> None:
        """Prepare; `start` listens.

        Args:
            listener: address and limits.
            check: the service.
            health: what to say to health checks.
            certificates: for TLS, None for plain text.
            listening: sockets that someone else bound and closes, or none at all where someone else accepts and
                connections are handed to `adopt`; None to bind them here.
            on_end: told of the end of each connection, also of one whose handshake failed or that was refused.
            on_refused: told of each connection that was one too many.
        """
        self._listener = listener
        self._certificates = certificates
        self._calls = ServedCalls(check, health)
        self._owned = listening is None
        self._listening = listening
        self._context: ssl.SSLContext | None = None
        self._accepting: set[asyncio.Task[None]] = set()
        self._connections: set[Connection] = set()
        self._on_end = on_end
        self._limit = ConnectionLimit(listener.maximum_connections, on_refused)
        self._empty = asyncio.Event()
        self._sweeping: asyncio.Task[None] | None = None

    async def start(self) -> str:
        """Listen and return the address that was bound, with its real port.

        Raises:
            OSError: the address cannot be bound.
        """
        listening = self._listening
        if listening is None:
            listening = self._listening = await asyncio.to_thread(Listening.open, self._listener.address)
        loop = asyncio.get_running_loop()
        certificates = self._certificates
        if certificates is not None:
            try:
                self._context = server_context(certificates.material)
            except BaseException:
                self._close()
                raise

            def renew() -> None:
                loop.call_soon_threadsafe(self._renew, certificates)

            certificates.on_replace = renew
        self._limit.maximum = affordable(self._listener.maximum_connections)
        for listener in listening.sockets:
            loop.add_reader(listener, self._accept, listener)
        self._sweeping = asyncio.create_task(self._sweep())
        return listening.address

    async def drain(self, seconds: float) -> None:
        """GOAWAY, then wait for calls in flight, at most `seconds`; those that are left are cancelled."""
        if self._sweeping is not None:
            self._sweeping.cancel()
        self._close()
        for task in list(self._accepting):
            task.cancel()
        await asyncio.gather(*self._accepting, return_exceptions=True)
        for connection in list(self._connections):
            connection.drain()
        if not await self._emptied(seconds):
            self._calls.cancel()
            await self._emptied(RELEASE_SECONDS if self._waiting() else 0.0)
        for connection in list(self._connections):
            connection.abort()
        await self._emptied(RELEASE_SECONDS)

    def _waiting(self) -> bool:
        return any(connection.streams for connection in self._connections)

    async def _emptied(self, seconds: float) -> bool:
        if self._connections:
            self._empty.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._empty.wait(), seconds)
        return not self._connections

    def _close(self) -> None:
        if self._listening is not None:
            for listener in self._listening.sockets:
                asyncio.get_running_loop().remove_reader(listener)
            if self._owned:
                self._listening.close()
            self._listening = None

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(ACCEPTED_AT_ONCE):
            try:
                accepted, _ = listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                # too many open files: the connection stays in the queue, and asking again at once would never end
                log_event(_logger, logging.ERROR, "a connection cannot be accepted", detail=exception_summary(error))
                loop = asyncio.get_running_loop()
                loop.remove_reader(listener)
                loop.call_later(ACCEPT_PAUSE_SECONDS, self._accept_again, listener)
                return
            self.adopt(accepted)

    def adopt(self, accepted: socket.socket) -> None:
        """Serve a connection that has been accepted; it belongs to the transport from now on."""
        if not self._limit.admit(accepted):
            self._on_end()
            return
        accepted.setblocking(False)
        task = asyncio.create_task(self._connect(accepted))
        self._accepting.add(task)
        task.add_done_callback(self._accepting.discard)

    def send_away(self, count: int) -> None:
        """Have the clients of so many connections connect anew; the calls that are under way on these end as they would."""
        staying = [connection for connection in self._connections if not connection.draining]
        for connection in staying[:count]:
            connection.drain()

    def _accept_again(self, listener: socket.socket) -> None:
        if self._listening is not None:
            asyncio.get_running_loop().add_reader(listener, self._accept, listener)

    async def _connect(self, accepted: socket.socket) -> None:
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                self._connection,
                accepted,
                ssl=self._context,
                ssl_handshake_timeout=None if self._context is None else HANDSHAKE_SECONDS,
            )
        except (OSError, asyncio.CancelledError):
            # a handshake that failed, which is for the client to say, or the drain
            accepted.close()
            self._limit.release()
            self._on_end()

    def _connection(self) -> Connection:
        return Connection(
            self._calls,
            message_ceiling(self._listener.maximum_message_bytes),
            self._listener.maximum_concurrent_streams,
            self._connections,
            self._ended,
        )

    def _ended(self) -> None:
        if not self._connections:
            self._empty.set()
        self._limit.release()
        self._on_end()

    def _renew(self, certificates: ServerCertificates) -> None:
        """Make the next handshake with the newest certificates."""
        try:
            self._context = server_context(certificates.material)
        except OSError as error:
            log_event(_logger, logging.ERROR, "new certificates cannot be served", detail=exception_summary(error))

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            now = time.monotonic()
            for connection in list(self._connections):
                connection.expire(now, STALL_SECONDS)


def server_context(material: TlsMaterial) -> ssl.SSLContext:
    """TLS 1.2 or later, HTTP/2 by ALPN, and client certificates required when there are authorities for them.

    Raises:
        ssl.SSLError: `material` cannot be served; it is an OSError.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["h2"])
    with _file(material.chain) as chain, _file(material.key) as key:
        context.load_cert_chain(chain, key)
    if material.client_authorities is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(cadata=material.client_authorities.decode("ascii", "replace"))
    return context


@contextlib.contextmanager
def _file(content: bytes) -> Iterator[str]:
    """A file without a name that holds `content`, for an interface that takes paths: a key must not lie on a disk."""
    with _unnamed() as file:
        file.write(content)
        file.seek(0)
        yield f"/dev/fd/{file.fileno()}"


def _unnamed() -> IO[bytes]:
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("certificate"), "w+b", buffering=0)
    return tempfile.TemporaryFile(buffering=0)
