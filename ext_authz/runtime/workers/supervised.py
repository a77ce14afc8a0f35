"""What a server with several workers serves with, in place of `Deciding`: it decides nothing itself."""

import asyncio
import socket

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector

from ext_authz.runtime.admin import Readiness
from ext_authz.runtime.assembly import Assembly
from ext_authz.runtime.connection_limit import ConnectionLimit, affordable
from ext_authz.runtime.listening import Listening
from ext_authz.runtime.tls import ServerCertificates
from ext_authz.runtime.workers.accepting import Accepting
from ext_authz.runtime.workers.fleet import Fleet
from ext_authz.runtime.workers.packing import pack
from ext_authz.runtime.workers.processes import ProcessesCollector
from ext_authz.runtime.workers.totals import Totals
from ext_authz.runtime.workers.worker_metrics import WorkersCollector
from ext_authz.telemetry.line_sink import LineSink
from ext_authz.telemetry.metrics import Metrics

__all__ = ["Supervised"]


class Supervised:
    """The address, the workers behind it, and what is told about them; used from the event loop alone.

    Attributes:
        metrics: of all workers together.
        in_force: the configuration.
    """

    def __init__(
        self, assembly: Assembly, certificates: ServerCertificates | None, sink: LineSink, *, workers: int
    ) -> None:
        """Prepare; `start` serves.

        Args:
            assembly: the first in force.
            certificates: of the listener, None for plain text.
            sink: takes the supervisor's own log.
            workers: how many.
        """
        self.metrics = Metrics()
        self.metrics.log_dropped = lambda: sink.dropped
        self.in_force = Fleet(assembly, pack(assembly), certificates, workers, Totals(self.metrics))
        self._listener = assembly.configuration.listener
        self._limit = ConnectionLimit(self._listener.maximum_connections, self.metrics.connection_refused)
        self._workers = workers
        self._accepting: Accepting | None = None
        self._was_ready = False

    @property
    def log(self) -> None:
        """Decisions are logged by the workers."""
        return

    async def start(self) -> str:
        """Listen, and start the workers. Returns the address with its real port.

        Raises:
            OSError: it cannot be bound.
        """
        listening = await asyncio.to_thread(Listening.open, self._listener.address)
        # workers, which inherit it, hold them in the end; here they wait for one
        self._limit.maximum = affordable(self._listener.maximum_connections)
        self._accepting = Accepting(listening, self._hand)
        self.in_force.start()
        return listening.address

    async def run(self) -> None:
        """Nothing to do besides what the workers do."""

    def registry(self) -> CollectorRegistry:
        """What `/metrics` shows: what one process would show, and the workers."""
        registry = CollectorRegistry()
        registry.register(self.metrics)
        fleet = self.in_force
        registry.register(WorkersCollector(lambda: fleet.members.copy().values(), fleet.restarts))
        registry.register(ProcessesCollector(self.in_force.pids))
        PlatformCollector(registry=registry)
        GCCollector(registry=registry)
        return registry

    async def refresh(self) -> None:
        """Ask the workers what they have counted."""
        await self.in_force.count()
        self.metrics.generation = self.in_force.generation

    def readiness(self) -> Readiness:
        """Ready for the first time when all workers are, and from then on while any serves.

        A rollout is to go on only at full strength. But to take a replica out because one of its workers is being replaced
        would take the others from those who need them.
        """
        members = sorted(self.in_force.members.values(), key=lambda member: member.number)
        ready = self.in_force.ready_workers
        self._was_ready = self._was_ready or len(ready) == self._workers
        notes: dict[str, None] = {}
        if len(ready) < self._workers:
            notes[f"{len(ready)} of {self._workers} workers serve"] = None
        for member in members:
            if member.revision not in {0, self.in_force.generation}:
                notes[
                    f"worker {member.number} decides by configuration {member.revision}, not {self.in_force.generation}"
                ] = None
            notes.update(dict.fromkeys(member.notes))
        reasons: dict[str, None] = {}
        if not self._was_ready:
            reasons.update(dict.fromkeys(reason for member in members for reason in member.reasons))
            if not reasons:
                reasons["not all workers serve"] = None
        elif not any(member.is_serving for member in members):
            reasons["no worker serves"] = None
        return Readiness(tuple(reasons), tuple(notes))

    def update_health(self) -> None:
        """Workers answer health checks by themselves."""

    def end_health(self) -> None:
        """As `update_health`."""

    def leave(self) -> None:
        """Have the workers say that nothing should come here any more, and answer what comes all the same."""
        self.in_force.leave()

    async def drain(self, seconds: float) -> None:
        """As `Transport.drain`, with the end of the workers."""
        if self._accepting is not None:
            self._accepting.close()
        await self.in_force.drain(seconds)

    def abort(self) -> None:
        """End all workers at once."""
        self.in_force.kill()

    async def close(self) -> None:
        """Nothing is left after `drain`."""

    def _hand(self, accepted: socket.socket) -> None:
        # they are counted where they are
        self._limit.open = self.in_force.connections
        if self._limit.admit(accepted):
            self.in_force.hand(accepted)
