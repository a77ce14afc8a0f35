"""Check and Health over our own HTTP/2 (`h2_connection`) on the event loop, best with uvloop.

The listening sockets are kept beside the servers on them: new certificates begin to be served by a second server on the
same socket, and the first stops to accept. Connections that exist go on.
"""

import asyncio
import contextlib
import logging
import os
import ssl
import tempfile
import time
from collections.abc import Iterator
from typing import IO

from ext_authz.config.settings import ListenerSettings
from ext_authz.errors import ConfigurationError
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
    ) -> None:
        """Prepare; `start` listens.

        Args:
            listener: address and limits.
            check: the service.
            health: what to say to health checks.
            certificates: for TLS, None for plain text.
            listening: sockets that someone else bound and closes; None to bind them here.
        """
        self._listener = listener
        self._certificates = certificates
        self._calls = ServedCalls(check, health)
        self._owned = listening is None
        self._listening = listening
        self._servers: list[asyncio.Server] = []
        self._connections: set[Connection] = set()
        self._empty = asyncio.Event()
        self._renewing: asyncio.Task[None] | None = None
        self._sweeping: asyncio.Task[None] | None = None
        self._served: TlsMaterial | None = None
        self._draining = False

    async def start(self) -> str:
        """Listen and return the address that was bound, with its real port.

        Raises:
            OSError: the address cannot be bound.
        """
        listening = self._listening
        if listening is None:
            listening = self._listening = await asyncio.to_thread(Listening.open, self._listener.address)
        try:
            self._servers = await self._serve(listening)
        except BaseException:
            self._close()
            raise
        if self._certificates is not None:
            loop = asyncio.get_running_loop()

            def renew() -> None:
                loop.call_soon_threadsafe(self._renew_soon)

            self._certificates.on_replace = renew
        self._sweeping = asyncio.create_task(self._sweep())
        return listening.address

    async def drain(self, seconds: float) -> None:
        """GOAWAY, then wait for calls in flight, at most `seconds`; those that are left are cancelled."""
        self._draining = True
        for task in (self._renewing, self._sweeping):
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        self._close()
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
        for server in self._servers:
            server.close()
        self._servers = []
        if self._listening is not None and self._owned:
            self._listening.close()
            self._listening = None

    def _connection(self) -> Connection:
        connection = Connection(
            self._calls,
            message_ceiling(self._listener.maximum_message_bytes),
            self._listener.maximum_concurrent_streams,
            self._lost,
        )
        self._connections.add(connection)
        return connection

    def _lost(self, connection: Connection) -> None:
        self._connections.discard(connection)
        if not self._connections:
            self._empty.set()

    async def _serve(self, listening: Listening) -> list[asyncio.Server]:
        """Accept connections, with the certificates of the moment."""
        context = None
        if self._certificates is not None:
            self._served = self._certificates.material
            context = server_context(self._served)
        loop = asyncio.get_running_loop()
        return [
            await loop.create_server(
                self._connection,
                # a duplicate, so that closing this server leaves the socket to the next one
                sock=socket.dup(),
                ssl=context,
                ssl_handshake_timeout=None if context is None else HANDSHAKE_SECONDS,
            )
            for socket in listening.sockets
        ]

    def _renew_soon(self) -> None:
        if not self._draining and (self._renewing is None or self._renewing.done()):
            self._renewing = asyncio.create_task(self._renew())

    async def _renew(self) -> None:
        """Serve new connections with the newest certificates."""
        while (
            self._listening is not None
            and self._certificates is not None
            and self._certificates.material is not self._served
        ):
            try:
                servers = await self._serve(self._listening)
            except (OSError, ConfigurationError) as error:
                log_event(_logger, logging.ERROR, "new certificates cannot be served", detail=exception_summary(error))
                return
            previous, self._servers = self._servers, servers
            for server in previous:
                server.close()

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
