"""The whole server: starts the parts, connects them, and takes them down in order."""

import asyncio
import gc
import logging
import os
import signal
import time

from ext_authz import __version__
from ext_authz.config.settings import Configuration
from ext_authz.runtime.admin import AdminServer, Readiness
from ext_authz.runtime.assembly import Assembly, assemble_watched
from ext_authz.runtime.deciding import Deciding
from ext_authz.runtime.reload import Reloader
from ext_authz.runtime.tls import ServerCertificates
from ext_authz.runtime.watch import FileWatch
from ext_authz.telemetry.line_sink import LineSink
from ext_authz.telemetry.server_log import log_event, start_server_log

__all__ = ["Server", "announce"]

_logger = logging.getLogger(__name__)


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
        self._deciding: Deciding | None = None
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
        # what was imported and read is here to stay: the collector would look it all over while requests wait
        gc.freeze()
        handler = start_server_log(self._sink, assembly.configuration.log.level)
        try:
            await self._start(assembly, watch)
        finally:
            logging.getLogger().removeHandler(handler)

    async def _start(self, assembly: Assembly, watch: FileWatch) -> None:
        certificates = None if assembly.tls is None else ServerCertificates(assembly.tls)
        deciding = self._deciding = Deciding(assembly, certificates, self._sink)
        deciding.metrics.reload(succeeded=True, now=time.time())
        self._reloader = Reloader(
            self._path, watch, deciding.active, certificates=certificates, metrics=deciding.metrics, log=deciding.log
        )
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._reloader.ask)
        admin = AdminServer(deciding.metrics.registry(), self.readiness)
        try:
            await self._serve(deciding, self._reloader, admin)
        finally:
            await deciding.close()

    async def _serve(self, deciding: Deciding, reloader: Reloader, admin: AdminServer) -> None:
        active = deciding.active
        admin_address = active.configuration.admin.address
        bound_admin = None if admin_address is None else await admin.start(admin_address)
        try:
            bound = await deciding.transport.start()
            announce(active.configuration, bound, bound_admin)
            deciding.update_health()
            tasks = (asyncio.create_task(active.start()), asyncio.create_task(reloader.run()))
            await self._stop.wait()
            await self._be_a_lame_duck(deciding, active.configuration.listener.lame_duck_seconds)
            drain_seconds = active.configuration.listener.drain_seconds
            log_event(_logger, logging.INFO, "draining", seconds=drain_seconds)
            deciding.end_health()
            # a turn of the loop in which those who watch it are told
            await asyncio.sleep(0)
            await deciding.transport.drain(drain_seconds)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await active.close()
        finally:
            await admin.stop()
        log_event(_logger, logging.INFO, "stopped")

    async def _be_a_lame_duck(self, deciding: Deciding, seconds: float) -> None:
        """Say that nothing should come here any more, and answer what comes all the same.

        An Envoy that is sent away connects again, and fails every request that it meant for here, until its health checks or
        its control plane have told it that there is nobody.
        """
        deciding.leave()
        if seconds and not self._in_a_hurry:
            log_event(_logger, logging.INFO, "leaving", seconds=seconds)
            await asyncio.sleep(seconds)

    def readiness(self) -> Readiness:
        """Why checks should not come here, if so, and what an operator should know."""
        notes = () if self._reloader is None else tuple(f"reload failed: {text}" for text in self._reloader.problems)
        if self._stop.is_set():
            return Readiness(("draining",), notes)
        if self._deciding is None:
            return Readiness(("the configuration is not loaded",), notes)
        own = self._deciding.readiness()
        return Readiness(own.reasons, notes + own.notes)

    def _stop_or_exit(self, number: int) -> None:
        if self._stop.is_set():
            # asked twice: whoever asks does not want to wait for anything, not even for the log
            os._exit(128 + number)
        # Ctrl-C: who waits at a terminal has no Envoy that must notice
        self._in_a_hurry = number == signal.SIGINT
        self._stop.set()


def announce(configuration: Configuration, bound: str, bound_admin: str | None, **more: object) -> None:
    """Log what begins to serve, and what an operator should know about it."""
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
        **more,
    )
