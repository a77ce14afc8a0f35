"""Check and Health over `h2corn`, an HTTP/2 server with a native core.

A certificate is fixed for as long as one of its servers runs. So the listening sockets are ours, a renewed certificate
starts another server on them, and the one before is drained: it tells its clients to reconnect and finishes their calls.
"""

import asyncio
import contextlib
import logging
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from h2corn import Config, RequestPolicy, Server

from ext_authz.config.settings import ListenerSettings
from ext_authz.runtime.h2_application import GrpcApplication
from ext_authz.runtime.health import Health
from ext_authz.runtime.listening import Listening
from ext_authz.runtime.tls import ServerCertificates, TlsMaterial
from ext_authz.runtime.transport import CheckCall, message_ceiling
from ext_authz.telemetry.server_log import exception_summary, log_event

__all__ = ["H2Transport"]

HEADER_LIST_BYTES = 65_536
"""Envoy's own default for request headers is 60 KiB; what it sends here (its metadata, trace context) is far less."""

HEADER_FIELDS = 1_000
"""Envoy's default is 100 for the requests it takes; metadata that operators add (`initial_metadata`) comes on top."""

STREAM_WINDOW_BYTES = 1_048_576
"""One message of the default maximum goes without waiting for a window update."""

CONNECTION_WINDOW_BYTES = 8_388_608
"""Bounds what the native core holds of one connection's requests that are not read yet."""

STALL_SECONDS = 30.0
"""How long a client may send nothing of a body it began, or take nothing of an answer, before its stream is reset."""

RELEASE_SECONDS = 1.0
"""After calls were cancelled: time for their answers to leave."""

_logger = logging.getLogger(__name__)


class _Generation:
    """One `h2corn` server: all connections that were accepted with one certificate."""

    def __init__(self, application: GrpcApplication, config: Config) -> None:
        self._server = Server(application, config)
        self._serving: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Accept connections. Raises whatever keeps the server from it."""
        started = asyncio.ensure_future(self._server.wait_started())
        self._serving = asyncio.create_task(self._server.serve())
        await asyncio.wait((started, self._serving), return_when=asyncio.FIRST_COMPLETED)
        if self._serving.done():
            started.cancel()
            await asyncio.gather(started, return_exceptions=True)
            await self._serving
        await started

    async def drain(self, seconds: float | None) -> bool:
        """GOAWAY, and wait for calls in flight to end; False when `seconds` were not enough."""
        if self._serving is None:
            return True
        self._server.shutdown()
        done, _ = await asyncio.wait((self._serving,), timeout=seconds)
        for task in done:
            if not task.cancelled() and (error := task.exception()) is not None:
                log_event(_logger, logging.ERROR, "a server ended badly", detail=exception_summary(error))
        return bool(done)


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
        self._application = GrpcApplication(check, health, message_ceiling(listener.maximum_message_bytes))
        self._shared = listening
        self._listening: Listening | None = listening
        self._current: _Generation | None = None
        self._served: TlsMaterial | None = None
        self._renewing: asyncio.Task[None] | None = None
        self._retiring: set[asyncio.Task[bool]] = set()
        self._draining = False

    async def start(self) -> str:
        """Listen and return the address that was bound, with its real port.

        Raises:
            OSError: the address cannot be bound, or TLS is asked for on a Unix socket.
        """
        address = self._listener.address
        if self._certificates is not None and address.startswith("unix:"):
            raise OSError(f"cannot listen on `{address}`: this transport has no TLS on Unix sockets; use `grpcio`")
        listening = self._listening
        if listening is None:
            listening = self._listening = await asyncio.to_thread(Listening.open, address)
        try:
            self._current = await self._generation()
        except BaseException:
            self._close()
            raise
        if self._certificates is not None:
            loop = asyncio.get_running_loop()

            def renew() -> None:
                loop.call_soon_threadsafe(self._renew_soon)

            self._certificates.on_replace = renew
        return listening.address

    async def drain(self, seconds: float) -> None:
        """GOAWAY, then wait for calls in flight, at most `seconds` and never longer than the listener began with.

        The native core is told the time when it starts.
        """
        self._draining = True
        if self._renewing is not None:
            await asyncio.gather(self._renewing, return_exceptions=True)
        current, self._current = self._current, None
        if current is not None:
            self._retire(current)
        waiting = set(self._retiring)
        if waiting:
            _, waiting = await asyncio.wait(waiting, timeout=seconds)
        if waiting:
            self._application.cancel_waiting()
            await asyncio.wait(waiting, timeout=RELEASE_SECONDS)
        self._close()

    def _close(self) -> None:
        if self._listening is not None and self._listening is not self._shared:
            self._listening.close()
            self._listening = None

    def _retire(self, generation: _Generation) -> None:
        task = asyncio.create_task(generation.drain(None))
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)

    def _renew_soon(self) -> None:
        if not self._draining and (self._renewing is None or self._renewing.done()):
            self._renewing = asyncio.create_task(self._renew())

    async def _renew(self) -> None:
        """Serve new connections with the newest certificates, and send those that exist away to get them."""
        while self._certificates is not None and not self._draining and self._certificates.material is not self._served:
            try:
                generation = await self._generation()
            except Exception as error:  # noqa: BLE001 - serving goes on with the certificates there are
                self._served = self._certificates.material
                log_event(_logger, logging.ERROR, "new certificates cannot be served", detail=exception_summary(error))
                return
            previous, self._current = self._current, generation
            if previous is not None:
                self._retire(previous)

    async def _generation(self) -> _Generation:
        material = None if self._certificates is None else self._certificates.material
        with contextlib.ExitStack() as files:
            generation = _Generation(self._application, self._config(material, files))
            await generation.start()
        self._served = material
        return generation

    def _config(self, material: TlsMaterial | None, files: contextlib.ExitStack) -> Config:
        if self._listening is None:
            raise RuntimeError("not listening")
        chain = key = authorities = None
        if material is not None:
            chain = files.enter_context(_file(material.chain))
            key = files.enter_context(_file(material.key))
            if material.client_authorities is not None:
                authorities = files.enter_context(_file(material.client_authorities))
        return Config(
            bind=tuple(f"fd://{listening.fileno()}" for listening in self._listening.sockets),
            certfile=chain,
            keyfile=key,
            ca_certs=authorities,
            cert_reqs="none" if authorities is None else "required",
            grpc=True,
            http1=False,
            access_log=False,
            log_format="json",
            lifespan="off",
            date_header=False,
            max_concurrent_streams=self._listener.maximum_concurrent_streams,
            limit_request_fields=HEADER_FIELDS,
            h2_max_header_list_size=HEADER_LIST_BYTES,
            h2_max_header_block_size=HEADER_LIST_BYTES,
            h2_initial_stream_window_size=STREAM_WINDOW_BYTES,
            h2_initial_connection_window_size=CONNECTION_WINDOW_BYTES,
            # the size is checked message by message (`grpc_frame`), where it can be told as a gRPC status
            request_policies=(
                RequestPolicy(
                    path="/*",
                    max_request_body_size=0,
                    timeout_request_body_idle=STALL_SECONDS,
                    h2_timeout_response_stall=STALL_SECONDS,
                ),
            ),
            # an idle connection is kept: closing it could cross with a call that Envoy just sends
            timeout_keep_alive=0,
            timeout_graceful_shutdown=self._listener.drain_seconds,
        )


@contextlib.contextmanager
def _file(content: bytes) -> Iterator[Path]:
    """A file without a name that holds `content`, for an interface that takes paths: a key must not lie on a disk."""
    with _unnamed() as file:
        file.write(content)
        file.seek(0)
        yield Path(f"/dev/fd/{file.fileno()}")


def _unnamed() -> IO[bytes]:
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("certificate"), "w+b", buffering=0)
    return tempfile.TemporaryFile(buffering=0)
