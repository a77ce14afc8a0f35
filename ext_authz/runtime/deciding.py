"""What answers checks in one process: the configuration in force, the service over it, the transport, and their telemetry."""

from collections.abc import Awaitable, Callable

from prometheus_client import CollectorRegistry

from ext_authz.config.settings import ListenerSettings, TelemetrySettings
from ext_authz.runtime.active import Active
from ext_authz.runtime.admin import Readiness
from ext_authz.runtime.assembled import Assembly
from ext_authz.runtime.cache_report import CacheReport
from ext_authz.runtime.health import Health
from ext_authz.runtime.key_fetch import fetch_keys
from ext_authz.runtime.key_report import KeyReport
from ext_authz.runtime.service import CheckService
from ext_authz.runtime.tls import ServerCertificates
from ext_authz.runtime.tracing import close_traces, start_traces
from ext_authz.runtime.transport import Transport
from ext_authz.runtime.transport_choice import transport_named
from ext_authz.snapshot import Snapshot
from ext_authz.telemetry.decision_log import DecisionLog
from ext_authz.telemetry.line_sink import LineSink
from ext_authz.telemetry.line_turns import LinesInTurns
from ext_authz.telemetry.metrics import Metrics
from ext_authz.token.issuer import Issuer
from ext_authz.token.jwks import KeySet

__all__ = ["Deciding"]


class Deciding:
    """Everything between the listener and the log, wired together; used from the event loop alone.

    Attributes:
        active: what is in force.
        log: of decisions.
        metrics: of decisions.
        transport: not yet started.
    """

    def __init__(
        self,
        assembly: Assembly,
        certificates: ServerCertificates | None,
        sink: LineSink,
        *,
        listener: ListenerSettings | None = None,
        telemetry: TelemetrySettings | None = None,
        transport: Callable[..., Transport] | None = None,
        fetch: Callable[[Issuer, float], Awaitable[KeySet]] = fetch_keys,
    ) -> None:
        """Wire up.

        Args:
            assembly: the first in force.
            certificates: of the listener, None for plain text.
            sink: takes the log.
            listener: what is fixed when a server starts, if not as `assembly` says.
            telemetry: as `listener`.
            transport: makes it, if not as `listener` says.
            fetch: as `key_fetch.fetch_keys`.

        Raises:
            ConfigurationError: traces are wanted and their libraries are not installed.
        """
        listener = listener or assembly.configuration.listener
        telemetry = telemetry or assembly.configuration.telemetry
        self.metrics = Metrics()
        self.metrics.log_dropped = lambda: sink.dropped
        self._lines = LinesInTurns(sink)
        self.log = DecisionLog(self._lines, allowed=assembly.configuration.log.allowed)
        self._health = Health()
        self._caches = CacheReport()
        self._was_ready = False
        self._leaving = False
        self._traces = None if telemetry.traces is None else start_traces(telemetry.traces)
        if self._traces is not None:
            self.metrics.spans = self._traces.counts
        self._current: Active | None = None
        self.active = self._current = Active(assembly, KeyReport(self.metrics), self._published, fetch)
        self.metrics.key_sources = self.active.key_sources
        self.metrics.caches = self._caches.counts
        service = CheckService(
            self.active,
            self.active,
            self.metrics,
            self.log,
            maximum_message_bytes=listener.maximum_message_bytes,
            default_deadline=listener.default_deadline,
            stage_interval=telemetry.stage_interval,
            traces=self._traces,
        )
        options: dict[str, object] = {"on_refused": self.metrics.connection_refused}
        if listener.transport == "grpcio":
            # it refuses connections unseen; and reading the span of a call costs time, which is spent only for traces
            options = {"reads_traceparent": self._traces is not None}
        make = transport or transport_named(listener.transport)
        self.transport = make(listener, service.check, self._health, certificates, **options)

    def readiness(self) -> Readiness:
        """Why checks should not come here, if so, and what an operator should know."""
        statuses = self.active.keys.status()
        notes = tuple(
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

    @property
    def in_force(self) -> Active:
        """As `active`; what a reload replaces."""
        return self.active

    async def start(self) -> str:
        """As `Transport.start`."""
        return await self.transport.start()

    async def run(self) -> None:
        """Fetch keys; returns when each source has been tried."""
        await self.active.start()

    async def drain(self, seconds: float) -> None:
        """As `Transport.drain`, and fetch keys no longer."""
        await self.transport.drain(seconds)
        await self.active.close()

    def abort(self) -> None:
        """Nothing has to be ended besides the process."""

    def registry(self) -> CollectorRegistry:
        """What `/metrics` shows."""
        return self.metrics.registry()

    async def refresh(self) -> None:
        """Metrics are always up to date."""

    def update_health(self) -> None:
        """Tell those who ask for health how things stand now."""
        if self._current is not None and self._current.keys.ready:
            self._was_ready = True
        self._health.set_serving(self._was_ready and not self._leaving)

    def leave(self) -> None:
        """Say that nothing should come here any more, and answer what comes all the same."""
        self._leaving = True
        self.update_health()

    def end_health(self) -> None:
        """Not serving, for good; those who watch are told in the next turn of the loop."""
        self._health.end()

    async def close(self) -> None:
        """Send what traces wait and hand over what the log has; everything else ends with the transport and what is in force."""
        self._lines.flush()
        if self._traces is not None:
            await close_traces(self._traces)

    def _published(self, snapshot: Snapshot) -> None:
        self.metrics.generation = snapshot.generation
        self._caches.published(snapshot)
        self.update_health()
