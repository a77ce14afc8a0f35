"""The whole server: starts the parts, connects them, and takes them down in order."""

import asyncio
import gc
import logging
import os
import signal
import time
from typing import Protocol

from prometheus_client import CollectorRegistry

from ext_authz import __version__
from ext_authz.config.settings import Configuration
from ext_authz.runtime.admin import AdminServer, Readiness
from ext_authz.runtime.assembly import Assembly, assemble_watched
from ext_authz.runtime.collector import Collector, leaves_no_cycles
from ext_authz.runtime.deciding import Deciding
from ext_authz.runtime.reload import InForce, Reloader
from ext_authz.runtime.tls import ServerCertificates
from ext_authz.runtime.watch import FileWatch
from ext_authz.telemetry.decision_log import DecisionLog
from ext_authz.telemetry.line_sink import LineSink
from ext_authz.telemetry.metrics import Metrics
from ext_authz.telemetry.server_log import log_event, start_server_log

__all__ = ["Server", "Serving"]

_logger = logging.getLogger(__name__)


class Serving(Protocol):
    """What stands behind the address: `Deciding` in this process, or `Supervised` workers."""

    @property
    def metrics(self) -> Metrics:
        """Of all decisions."""
        ...

    @property
    def in_force(self) -> InForce:
        """What a reload replaces."""
        ...

    @property
    def log(self) -> DecisionLog | None:
        """Of decisions that this process makes."""
        ...

    def registry(self) -> CollectorRegistry:
        """What `/metrics` shows."""
        ...

    async def refresh(self) -> None:
        """Bring that up to date."""
        ...

    def readiness(self) -> Readiness:
        """As `Deciding.readiness`."""
        ...

    async def start(self) -> str:
        """Listen; returns the address. Raises OSError."""
        ...

    async def run(self) -> None:
        """What goes on besides."""
        ...

    def update_health(self) -> None:
        """Tell those who ask for health how things stand now."""
        ...

    def leave(self) -> None:
        """Say that nothing should come here any more, and answer what comes all the same."""
        ...

    def end_health(self) -> None:
        """Not serving, for good."""
        ...

    async def drain(self, seconds: float) -> None:
        """As `Transport.drain`."""
        ...

    def abort(self) -> None:
        """End everything that does not end with this process."""
        ...

    async def close(self) -> None:
        """Tell what is left to be told."""
        ...


class Server:
    """Serves the configuration at a path until SIGTERM or SIGINT; one per process."""

    def __init__(self, path: str, sink: LineSink) -> None:
        """Prepare; `run` serves.

        Args:
            path: of the configuration file.
            sink: takes the log; whoever made it closes it.
        """
        self._path = path
        self._sink = sink
        self._stop = asyncio.Event()
        self._in_a_hurry = False
        self._serving: Serving | None = None
        self._reloader: Reloader | None = None

    async def run(self) -> None:
        """Serve, then drain. Returns after a signal.

        Raises:
            ConfigurationError: there is nothing to begin with.
            OSError: an address cannot be bound.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop_or_exit, number)
        assembly, watch = await asyncio.to_thread(assemble_watched, self._path)
        handler = start_server_log(self._sink, assembly.configuration.log.level)
        # what was imported and read is here to stay: the collector would look it all over while requests wait
        gc.freeze()
        rarely = leaves_no_cycles(assembly.configuration.listener.transport)
        collecting = asyncio.create_task(Collector().run()) if rarely else None
        try:
            await self._start(assembly, watch)
        finally:
            if collecting is not None:
                collecting.cancel()
            logging.getLogger().removeHandler(handler)

    async def _start(self, assembly: Assembly, watch: FileWatch) -> None:
        certificates = None if assembly.tls is None else ServerCertificates(assembly.tls)
        serving = self._serving = _serving(assembly, certificates, self._sink)
        serving.metrics.reload(succeeded=True, now=time.time())
        self._reloader = Reloader(
            self._path, watch, serving.in_force, certificates=certificates, metrics=serving.metrics, log=serving.log
        )
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._reloader.ask)
        admin = AdminServer(serving.registry(), self.readiness, serving.refresh)
        try:
            await self._serve(serving, self._reloader, admin)
        finally:
            await serving.close()

    async def _serve(self, serving: Serving, reloader: Reloader, admin: AdminServer) -> None:
        in_force = serving.in_force
        admin_address = in_force.configuration.admin.address
        bound_admin = None if admin_address is None else await admin.start(admin_address)
        try:
            bound = await serving.start()
            _announce(in_force.configuration, bound, bound_admin)
            serving.update_health()
            tasks = (asyncio.create_task(serving.run()), asyncio.create_task(reloader.run()))
            await self._stop.wait()
            await self._be_a_lame_duck(serving, in_force.configuration.listener.lame_duck_seconds)
            drain_seconds = in_force.configuration.listener.drain_seconds
            log_event(_logger, logging.INFO, "draining", seconds=drain_seconds)
            serving.end_health()
            # a turn of the loop in which those who watch it are told
            await asyncio.sleep(0)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await serving.drain(drain_seconds)
        finally:
            await admin.stop()
        log_event(_logger, logging.INFO, "stopped")

    async def _be_a_lame_duck(self, serving: Serving, seconds: float) -> None:
        """Say that nothing should come here any more, and answer what comes all the same.

        An Envoy that is sent away connects again, and fails every request that it meant for here, until its health checks or
        its control plane have told it that there is nobody.
        """
        serving.leave()
        if seconds and not self._in_a_hurry:
            log_event(_logger, logging.INFO, "leaving", seconds=seconds)
            await asyncio.sleep(seconds)

    def readiness(self) -> Readiness:
        """Why checks should not come here, if so, and what an operator should know."""
        notes = () if self._reloader is None else tuple(f"reload failed: {text}" for text in self._reloader.problems)
        if self._stop.is_set():
            return Readiness(("draining",), notes)
        if self._serving is None:
            return Readiness(("the configuration is not loaded",), notes)
        own = self._serving.readiness()
        return Readiness(own.reasons, notes + own.notes)

    def _stop_or_exit(self, number: int) -> None:
        if self._stop.is_set():
            # asked twice: whoever asks does not want to wait for anything, not even for the log
            if self._serving is not None:
                self._serving.abort()
            os._exit(128 + number)
        # Ctrl-C: who waits at a terminal has no Envoy that must notice
        self._in_a_hurry = number == signal.SIGINT
        self._stop.set()


def _serving(assembly: Assembly, certificates: ServerCertificates | None, sink: LineSink) -> Serving:
    wanted = assembly.configuration.listener.workers
    if wanted == 1:
        return Deciding(assembly, certificates, sink)
    # a process that decides by itself needs none of it
    from ext_authz.runtime.workers.cores import usable_cores  # noqa: PLC0415
    from ext_authz.runtime.workers.supervised import Supervised  # noqa: PLC0415

    workers = wanted or usable_cores()
    if workers == 1:
        return Deciding(assembly, certificates, sink)
    return Supervised(assembly, certificates, sink, workers=workers)


def _announce(configuration: Configuration, bound: str, bound_admin: str | None) -> None:
    for sentence in configuration.insecure:
        log_event(_logger, logging.WARNING, "insecure setting", detail=sentence)
    for warning in configuration.warnings:
        log_event(_logger, logging.WARNING, "configuration warning", detail=warning)
    log_event(
        _logger,
        logging.INFO,
        "listening",
        version=__version__,
        check=bound,
        tls=configuration.listener.tls is not None,
        admin=bound_admin,
        policies=len(configuration.policies),
    )
