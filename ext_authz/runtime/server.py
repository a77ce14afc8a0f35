"""The whole server: starts the parts, connects them, and takes them down in order."""

import asyncio
import logging
import os
import signal
import time

from ext_authz import __version__
from ext_authz.config.settings import Configuration
from ext_authz.runtime.active import Active
from ext_authz.runtime.admin import AdminServer, Readiness
from ext_authz.runtime.assembly import assemble_watched
from ext_authz.runtime.cache_report import CacheReport
from ext_authz.runtime.health import Health
from ext_authz.runtime.key_report import KeyReport
from ext_authz.runtime.reload import Reloader
from ext_authz.runtime.service import CheckService
from ext_authz.runtime.tls import ServerCertificates
from ext_authz.runtime.tracing import close_traces, start_traces
from ext_authz.runtime.transport import Transport
from ext_authz.runtime.transport_choice import transport_named
from ext_authz.runtime.watch import FileWatch
from ext_authz.snapshot import Snapshot
from ext_authz.telemetry.decision_log import DecisionLog
from ext_authz.telemetry.line_sink import LineSink
from ext_authz.telemetry.metrics import Metrics
from ext_authz.telemetry.server_log import log_event, start_server_log

__all__ = ["Server"]

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
        self._health = Health()
        self._metrics = Metrics()
        self._metrics.log_dropped = lambda: sink.dropped
        self._caches = CacheReport()
        self._was_ready = False
        self._active: Active | None = None
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
        watch = await asyncio.to_thread(FileWatch, (self._path,))
        assembly, watch = await asyncio.to_thread(assemble_watched, self._path, watch)
        configuration = assembly.configuration
        handler = start_server_log(self._sink, configuration.log.level)
        try:
            log = DecisionLog(self._sink, allowed=configuration.log.allowed)
            traces = None if configuration.telemetry.traces is None else start_traces(configuration.telemetry.traces)
            if traces is not None:
                self._metrics.spans = traces.counts
            active = self._active = Active(assembly, KeyReport(self._metrics), self._published)
            self._metrics.key_sources = active.key_sources
            self._metrics.caches = self._caches.counts
            self._metrics.reload(succeeded=True, now=time.time())
            listener = configuration.listener
            service = CheckService(
                active,
                active,
                self._metrics,
                log,
                maximum_message_bytes=listener.maximum_message_bytes,
                default_deadline=listener.default_deadline,
                stage_interval=configuration.telemetry.stage_interval,
                traces=traces,
            )
            certificates = None if assembly.tls is None else ServerCertificates(assembly.tls)
            self._reloader = Reloader(
                self._path, watch, active, certificates=certificates, metrics=self._metrics, log=log
            )
            loop.add_signal_handler(signal.SIGHUP, self._reloader.ask)
            # the other transport leaves the service to the `traceparent` of the request itself
            options = {"reads_traceparent": True} if traces is not None and listener.transport == "grpcio" else {}
            transport = transport_named(listener.transport)(listener, service.check, self._health, certificates, **options)
            admin = AdminServer(self._metrics.registry(), self.readiness)
            try:
                await self._serve(active, self._reloader, transport, admin)
            finally:
                if traces is not None:
                    await close_traces(traces)
        finally:
            logging.getLogger().removeHandler(handler)

    async def _serve(self, active: Active, reloader: Reloader, transport: Transport, admin: AdminServer) -> None:
        configuration = active.configuration
        admin_address = configuration.admin.address
        bound_admin = None if admin_address is None else await admin.start(admin_address)
        try:
            bound = await transport.start()
            _announce(configuration, bound, bound_admin)
            self._update_health()
            tasks = (asyncio.create_task(active.start()), asyncio.create_task(reloader.run()))
            await self._stop.wait()
            drain_seconds = active.configuration.listener.drain_seconds
            log_event(_logger, logging.INFO, "draining", seconds=drain_seconds)
            # health first: whoever watches it sends nothing new while the calls in flight finish
            self._health.end()
            await asyncio.sleep(0)
            await transport.drain(drain_seconds)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await active.close()
        finally:
            await admin.stop()
        log_event(_logger, logging.INFO, "stopped")

    def readiness(self) -> Readiness:
        """Why checks should not come here, if so, and what an operator should know."""
        notes = () if self._reloader is None else tuple(f"reload failed: {text}" for text in self._reloader.problems)
        if self._stop.is_set():
            return Readiness(("draining",), notes)
        if self._active is None:
            return Readiness(("the configuration is not loaded",), notes)
        statuses = self._active.keys.status()
        notes += tuple(
            f"keys of issuer {status.issuer_name}: {status.last_error.detail}"
            for status in statuses
            if status.last_error is not None
        )
        if self._was_ready:
            # keys that are lost later deny the tokens that need them; taking every replica out would deny all others too
            return Readiness((), notes)
        waiting = tuple(
            f"keys of issuer {status.issuer_name} are not loaded" for status in statuses if status.age is None
        )
        return Readiness(waiting, notes)

    def _published(self, snapshot: Snapshot) -> None:
        self._metrics.generation = snapshot.generation
        self._caches.published(snapshot)
        self._update_health()

    def _update_health(self) -> None:
        if self._active is not None and self._active.keys.ready:
            self._was_ready = True
        self._health.set_serving(self._was_ready)

    def _stop_or_exit(self, number: int) -> None:
        if self._stop.is_set():
            # asked twice: whoever asks does not want to wait for anything, not even for the log
            os._exit(128 + number)
        self._stop.set()


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
