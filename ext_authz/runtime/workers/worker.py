"""One worker: decides on the connections it is handed, by the configuration it is handed, until its supervisor ends or says so.

It has no listener, looks at no file but key files, and serves no probes: those are the supervisor's.
"""

import asyncio
import logging
import os
import pickle
import signal
import socket
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

import orjson

from ext_authz.config.settings import ListenerSettings, TelemetrySettings
from ext_authz.errors import ExtAuthzError
from ext_authz.runtime.active import Prepared
from ext_authz.runtime.collector import Collector, leaves_no_cycles
from ext_authz.runtime.deciding import Deciding
from ext_authz.runtime.event_loop import run_on_best_loop
from ext_authz.runtime.h2_transport import H2Transport
from ext_authz.runtime.health import Health
from ext_authz.runtime.listening import Listening
from ext_authz.runtime.tls import ServerCertificates, TlsMaterial
from ext_authz.runtime.transport import CheckCall, Transport
from ext_authz.runtime.workers.channel import Channel, Message
from ext_authz.runtime.workers.packing import unpack
from ext_authz.runtime.workers.shared_keys import SharedKeys
from ext_authz.runtime.workers.totals import standing
from ext_authz.telemetry.line_sink import LineSink
from ext_authz.telemetry.server_log import LOGGER_NAME, exception_summary, log_event, start_server_log

__all__ = ["Fixed", "Worker", "run_worker"]

FLUSH_SECONDS = 1.0
"""For the last counts, at the end."""

_STANDARD_OUTPUT = 1

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Fixed:
    """What is fixed when the server starts, whatever is reloaded later; the payload of `setup`, pickled.

    Attributes:
        listener: limits of the listener.
        telemetry: metrics and traces.
        certificates: for TLS, None for plain text.
    """

    listener: ListenerSettings
    telemetry: TelemetrySettings
    certificates: TlsMaterial | None


class Worker:
    """Answers the messages of the supervisor, on the event loop."""

    def __init__(self, own: socket.socket, sink: LineSink) -> None:
        """Prepare; `run` serves.

        Args:
            own: to the supervisor.
            sink: takes the log.
        """
        self._sink = sink
        self._fixed: Fixed | None = None
        self._certificates: ServerCertificates | None = None
        self._deciding: Deciding | None = None
        self._transport: H2Transport | None = None
        self._prepared: tuple[int, Prepared] | None = None
        self._wanted: int | None = None
        self._leaving = False
        self._code = 0
        self._ending = asyncio.Event()
        self._drain_seconds: float | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._channel = Channel(own, self._receive, self._orphaned)
        self._keys = SharedKeys(self._channel.send)
        self._handlers: dict[str, Callable[[Message], None]] = {
            "setup": self._setup,
            "keys": self._keys.receive,
            "begin": lambda message: self._spawn(self._begin(message.fields["revision"], message.payload)),
            "connection": lambda message: self._take(message.fields["number"], message.files[0]),
            "ping": lambda message: self._pong(message.fields["number"]),
            "prepare": self._prepare_soon,
            "put_in_force": lambda message: self._spawn(self._put_in_force(message.fields["revision"])),
            "abandon": self._abandon_soon,
            "certificates": self._renew,
            "send_away": self._send_away,
            "leave": self._leave,
            "drain": self._drain,
        }

    async def run(self) -> int:
        """Serve until told to drain, or until the supervisor is gone. Returns the exit code."""
        loop = asyncio.get_running_loop()
        # the supervisor, which gets it too, says when to end
        loop.add_signal_handler(signal.SIGINT, lambda: None)
        loop.add_signal_handler(signal.SIGHUP, lambda: None)
        loop.add_signal_handler(signal.SIGTERM, self._leave_by_myself)
        handler = start_server_log(self._sink, "info")
        # workers speak `h2` only
        collecting = asyncio.create_task(Collector().run()) if leaves_no_cycles("h2") else None
        try:
            await self._ending.wait()
            await self._end()
        finally:
            if collecting is not None:
                collecting.cancel()
            logging.getLogger().removeHandler(handler)
        return self._code

    # messages

    def _receive(self, message: Message) -> None:
        # another kind is of a supervisor that says more than this worker understands
        handle = self._handlers.get(message.kind)
        if handle is not None:
            handle(message)

    def _setup(self, message: Message) -> None:
        fixed = pickle.loads(message.payload)  # noqa: S301 - from the process that started this one
        self._fixed = fixed
        self._certificates = None if fixed.certificates is None else ServerCertificates(fixed.certificates)

    def _renew(self, message: Message) -> None:
        if self._certificates is not None:
            self._certificates.replace(pickle.loads(message.payload))  # noqa: S301 - as above

    def _send_away(self, message: Message) -> None:
        if self._transport is not None:
            self._transport.send_away(message.fields["count"])

    def _leave(self, _: Message) -> None:
        self._leaving = True
        if self._deciding is not None:
            self._deciding.leave()

    def _drain(self, message: Message) -> None:
        self._drain_seconds = message.fields["seconds"]
        self._ending.set()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _pong(self, number: int) -> None:
        fields: dict[str, Any] = {"number": number, "reasons": ["a worker is starting"], "notes": []}
        payload = b""
        if self._deciding is not None:
            readiness = self._deciding.readiness()
            fields |= {"reasons": readiness.reasons, "notes": readiness.notes}
            counts = {"counted": self._deciding.metrics.take(), "stands": standing(self._deciding.metrics)}
            payload = orjson.dumps(counts)
        self._channel.send(Message("pong", fields, payload))

    def _take(self, number: int, descriptor: int) -> None:
        if self._transport is None or self._ending.is_set():
            # the supervisor hands it to another one when this one has ended
            os.close(descriptor)
            return
        accepted = socket.socket(fileno=descriptor)
        self._channel.send(Message("taken", {"number": number}))
        self._transport.adopt(accepted)

    # configuration

    async def _begin(self, revision: int, packed: bytes) -> None:
        if self._fixed is None:
            raise AssertionError("`setup` comes before `begin`")
        try:
            assembly = await asyncio.to_thread(unpack, packed)
            configuration = assembly.configuration
            logging.getLogger(LOGGER_NAME).setLevel(configuration.log.level.upper())
            deciding = Deciding(
                assembly,
                self._certificates,
                self._sink,
                listener=self._fixed.listener,
                telemetry=self._fixed.telemetry,
                transport=self._make_transport,
                fetch=self._keys.fetch,
            )
            self._keys.provide_to(deciding.active)
            await deciding.transport.start()
        except Exception as error:  # noqa: BLE001 - whatever it is, the supervisor starts another one
            log_event(_logger, logging.ERROR, "a worker cannot begin", detail=exception_summary(error))
            self._code = 1
            self._ending.set()
            return
        self._deciding = deciding
        deciding.update_health()
        if self._leaving:
            deciding.leave()
        # whether it is ready, before it counts
        self._pong(0)
        self._channel.send(Message("serving", {"revision": revision, "pid": os.getpid()}))
        await deciding.active.start()
        self._pong(0)

    def _make_transport(
        self,
        listener: ListenerSettings,
        check: CheckCall,
        health: Health,
        certificates: ServerCertificates | None,
        **options: Callable[[], None],
    ) -> Transport:
        none = Listening((), "")
        self._transport = H2Transport(
            listener, check, health, certificates, none, on_end=self._connection_ended, **options
        )
        return self._transport

    def _connection_ended(self) -> None:
        self._channel.send(Message("ended"))

    def _prepare_soon(self, message: Message) -> None:
        self._wanted = message.fields["revision"]
        self._spawn(self._prepare(message.fields["revision"], message.payload))

    def _abandon_soon(self, _: Message) -> None:
        self._wanted = None
        self._spawn(self._abandon())

    async def _prepare(self, revision: int, packed: bytes) -> None:
        if self._deciding is None:
            # still at the beginning; the supervisor sees the old revision and asks again
            return
        problems: tuple[str, ...] = ()
        try:
            assembly = await asyncio.to_thread(unpack, packed)
            await self._abandon()
            prepared = await self._deciding.active.prepare(assembly)
            if revision != self._wanted:
                # abandoned meanwhile, or another one is wanted by now
                await prepared.store.close()
                return
            self._prepared = revision, prepared
        except ExtAuthzError as error:
            problems = (str(error),)
        except Exception as error:  # noqa: BLE001 - a fault in one reload must not end all later ones
            problems = (f"unexpected {exception_summary(error)}",)
        self._channel.send(Message("prepared", {"revision": revision, "problems": problems}))

    async def _put_in_force(self, revision: int) -> None:
        if self._deciding is None or self._prepared is None or self._prepared[0] != revision:
            return
        (_, prepared), self._prepared = self._prepared, None
        await self._deciding.active.put_in_force(prepared)
        configuration = prepared.assembly.configuration
        self._deciding.log.allowed = configuration.log.allowed
        logging.getLogger(LOGGER_NAME).setLevel(configuration.log.level.upper())
        self._channel.send(Message("in_force", {"revision": revision}))

    async def _abandon(self) -> None:
        if self._prepared is not None:
            (_, prepared), self._prepared = self._prepared, None
            await prepared.store.close()

    # the end

    def _leave_by_myself(self) -> None:
        self._channel.send(Message("leaving"))
        self._ending.set()

    def _orphaned(self) -> None:
        log_event(_logger, logging.ERROR, "the supervisor has gone and this worker ends")
        self._ending.set()

    async def _end(self) -> None:
        deciding = self._deciding
        if deciding is None:
            return
        seconds = self._drain_seconds
        deciding.end_health()
        # a turn of the loop in which those who watch it are told
        await asyncio.sleep(0)
        await deciding.transport.drain(
            deciding.active.configuration.listener.drain_seconds if seconds is None else seconds
        )
        await self._abandon()
        await deciding.active.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await deciding.close()
        # the last counts
        self._pong(0)
        self._channel.flush(FLUSH_SECONDS)


def run_worker(channel: int, lock: int, number: int) -> int:
    """Be worker `number`; the nursery's child calls it.

    Args:
        channel: descriptor of the socket to the supervisor.
        lock: as `LineSink` takes it.
        number: shown in each line of the log.
    """
    sink = LineSink(_STANDARD_OUTPUT, worker=number, lock=lock)
    own = socket.socket(fileno=channel)
    try:
        return run_on_best_loop(_run(own, sink))
    finally:
        sink.close()


async def _run(own: socket.socket, sink: LineSink) -> int:
    return await Worker(own, sink).run()
