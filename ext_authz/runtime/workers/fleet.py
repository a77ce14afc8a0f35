"""All workers: started, handed connections, listened to, replaced, and given one configuration together."""

import asyncio
import logging
import os
import pickle
import socket
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import orjson

from ext_authz.config.settings import Configuration
from ext_authz.errors import ConfigurationError
from ext_authz.runtime.assembly import Assembly
from ext_authz.runtime.tls import ServerCertificates
from ext_authz.runtime.workers.channel import Message
from ext_authz.runtime.workers.forking import Forking
from ext_authz.runtime.workers.handing import Handing
from ext_authz.runtime.workers.member import Member, State, log_end
from ext_authz.runtime.workers.packing import pack
from ext_authz.runtime.workers.preparing import PREPARE_SECONDS, prepare_all
from ext_authz.runtime.workers.restarts import Restarts
from ext_authz.runtime.workers.totals import Totals
from ext_authz.runtime.workers.worker import Fixed
from ext_authz.telemetry.server_log import exception_summary, log_event

__all__ = ["Fleet"]

HEARTBEAT_SECONDS = 0.5
"""Between two questions whether a worker still answers; with the answer comes what it has counted."""

IN_FORCE_SECONDS = 5.0
"""For a worker to put in force what it has prepared; one that has not is ended before the change is called done."""

GONE_SECONDS = 1.0
"""For the kernel to say that a process that was ended has gone."""

NURSERY_SECONDS = 60.0
"""For a worker to be forked, on a busy machine by a nursery that has still to import everything; then that is hung."""

COUNT_SECONDS = 1.0
"""For workers to say what they have counted, when someone scrapes."""

HUNG_SECONDS = 1.0
"""In which a worker that has to end says something; one that does not is not given END_SECONDS."""

END_SECONDS = 10.0
"""For a worker, after its calls have ended: to cancel those that have not, and to tell traces, counts and its log."""

_logger = logging.getLogger(__name__)


class Fleet:
    """Workers in numbered places; used from the event loop alone.

    Attributes:
        members: those that live.
        restarts: how many were replaced so far, by reason.
        configuration: in force in all that serve.
        generation: of the configuration in force; each has a higher one than those before it.
    """

    def __init__(
        self, assembly: Assembly, packed: bytes, certificates: ServerCertificates | None, count: int, totals: Totals
    ) -> None:
        """Prepare; `start` starts them.

        Args:
            assembly: the first in force.
            packed: the same, by `pack`.
            certificates: of the listener; followed.
            count: of workers.
            totals: takes what they count.
        """
        self.members: dict[int, Member] = {}
        self.restarts = Counter({"crashed": 0, "hung": 0, "left": 0})
        self.configuration: Configuration = assembly.configuration
        self.generation = 1
        listener, telemetry = assembly.configuration.listener, assembly.configuration.telemetry
        self._fixed = Fixed(listener, telemetry, None if certificates is None else certificates.material)
        self._certificates = certificates
        self._packed = packed
        self._totals = totals
        self._silence = max(2, round(listener.worker_timeout / HEARTBEAT_SECONDS))
        self._behind = (PREPARE_SECONDS + IN_FORCE_SECONDS) / HEARTBEAT_SECONDS
        self._forking = Forking(self._forked, self._process_ended)
        self._restarts = {number: Restarts() for number in range(1, count + 1)}
        self._handing = Handing(self.members, count)
        self._keys: dict[str, Message] = {}
        self._offered = self.generation
        self._serial = 0
        self._pings = 0
        self._heard: dict[int, int] = {}
        self._left = False
        self._stopping = False
        self._codes: dict[int, int] = {}
        self._changed = asyncio.Event()
        self._heart: asyncio.Task[None] | None = None
        self._logging: set[asyncio.Task[None]] = set()

    # beginning and end

    def start(self) -> None:
        """Start every worker; they serve when they say so."""
        if self._certificates is not None:
            self._certificates.on_replace = self._renew
        for number in self._restarts:
            self._start_one(number)
        self._heart = asyncio.create_task(self._beat())

    def leave(self) -> None:
        """Have all say that nothing should come any more, also those that are started from now on."""
        self._left = True
        self._tell_all("leave")

    async def drain(self, seconds: float) -> None:
        """Have all finish what they do and end, at most after `seconds`; what is left then is ended."""
        self._stopping = True
        for member in self.members.values():
            member.state = State.LEAVING
        self._tell_all("drain", seconds=seconds)
        for member in [member for member in self.members.values() if member.pid is None]:
            # nobody has forked it, and nobody needs it
            if member.channel is not None:
                member.channel.close()
            self._gone(member)
        if not await self._until(lambda: not self.members, seconds + HUNG_SECONDS):
            for member in self.members.values():
                if member.silent > HUNG_SECONDS / HEARTBEAT_SECONDS:
                    member.kill()
            await self._until(lambda: not self.members, END_SECONDS)
        self.kill()
        await self._until(lambda: not self.members, 1.0)
        if self._heart is not None:
            self._heart.cancel()
        self._handing.close()
        self._forking.close()

    def kill(self) -> None:
        """End all at once."""
        self._stopping = True
        for member in self.members.values():
            member.kill()

    async def _until(self, condition: Callable[[], bool], seconds: float) -> bool:
        until = time.monotonic() + seconds
        while not condition():
            self._changed.clear()
            try:
                await asyncio.wait_for(self._changed.wait(), max(0.0, until - time.monotonic()))
            except TimeoutError:
                return condition()
        return True

    # connections

    def hand(self, accepted: socket.socket) -> None:
        """Give a connection to the worker that has the fewest; it waits while none serves."""
        self._handing.hand(accepted)

    def pids(self) -> list[int]:
        """Of the supervisor, which comes first, and of everything it has started; may be asked by another thread."""
        workers = [member.pid for member in self.members.copy().values()]
        return [os.getpid(), *(pid for pid in (self._forking.pid, *workers) if pid is not None)]

    @property
    def connections(self) -> int:
        """Of all workers, and those that wait for one."""
        return self._handing.waiting + sum(member.connections for member in self.members.values())

    # one configuration

    @property
    def ready_workers(self) -> list[Member]:
        """Those that take connections and are ready by themselves."""
        return [member for member in self.members.values() if member.state is State.SERVING and not member.reasons]

    async def replace(self, assembly: Assembly) -> None:
        """Put `assembly` in force in all workers, once each has it ready; as `InForce.replace`.

        When it returns, none is left that decides by the one before: a worker that does not follow has been ended.
        """
        packed = await asyncio.to_thread(pack, assembly)
        # never the number of an attempt that failed: a worker that was slow may still be at that one
        self._offered += 1
        revision = self._offered
        asked, problems = await prepare_all(self.members, packed, revision)
        if problems:
            self._tell_all("abandon")
            raise ConfigurationError(problems)
        self.generation, self._packed, self.configuration = revision, packed, assembly.configuration
        self._keys = {name: message for name, message in self._keys.items() if name in assembly.configuration.issuers}
        for member in asked:
            member.send("put_in_force", revision=revision)

        def behind() -> list[Member]:
            return [member for member in asked if member.serial in self.members and member.revision != revision]

        if not await self._until(lambda: not behind(), IN_FORCE_SECONDS):
            for member in behind():
                self._end_hung(member)
            await self._until(lambda: not behind(), GONE_SECONDS)

    def _renew(self) -> None:
        if self._certificates is not None:
            self._fixed = replace(self._fixed, certificates=self._certificates.material)
            self._tell_all("certificates", pickle.dumps(self._fixed.certificates))

    # what workers say

    def _receive(self, member: Member, message: Message) -> None:
        match message.kind:
            case "pong":
                self._pong(member, message)
            case "taken":
                member.taken(message.fields["number"])
            case "ended":
                member.ended()
            case "serving":
                # the nursery, which says it too, may have ended before it could
                member.pid = message.fields.get("pid", member.pid)
                self._serves(member, message.fields["revision"])
            case "in_force":
                self._serves(member, message.fields["revision"])
            case "prepared":
                self._has_prepared(member, message)
            case "keys":
                self._share(member, message)
            case "leaving":
                member.state = State.LEAVING
                self._handing.hand_again(member)
            case "gone":
                self._gone(member)
        self._changed.set()

    def _pong(self, member: Member, message: Message) -> None:
        member.silent = 0
        member.reasons, member.notes = tuple(message.fields["reasons"]), tuple(message.fields["notes"])
        if message.payload:
            counts = orjson.loads(message.payload)
            self._totals.add(member.serial, counts["counted"], counts["stands"])
        self._heard[member.serial] = max(self._heard.get(member.serial, 0), message.fields["number"])

    def _serves(self, member: Member, revision: int) -> None:
        member.revision = revision
        if revision != self.generation:
            # a configuration came into force while this one started
            member.send("prepare", self._packed, revision=self.generation)
        elif member.state is State.STARTING and not self._stopping:
            member.state = State.SERVING
            member.served_since = member.served_since or time.monotonic()
            log_event(_logger, logging.INFO, "a worker serves", serving_worker=member.number, pid=member.pid)
            self._handing.hand_waiting()

    def _has_prepared(self, member: Member, message: Message) -> None:
        revision, problems = message.fields["revision"], tuple(message.fields["problems"])
        if member.state is State.STARTING:
            if problems:
                log_event(_logger, logging.ERROR, "a worker cannot follow the others", problems=list(problems))
                member.kill()
            elif revision == self.generation:
                member.send("put_in_force", revision=revision)
            else:
                # another configuration came into force while it prepared this one
                member.send("prepare", self._packed, revision=self.generation)
        elif member.prepared is not None and not member.prepared.done() and revision == self._offered:
            member.prepared.set_result(problems)

    def _share(self, member: Member, message: Message) -> None:
        name = message.fields["source"][0]
        if message.fields["at"] >= self._keys.get(name, message).fields["at"]:
            self._keys[name] = message
        for other in self.members.values():
            if other is not member:
                other.send("keys", message.payload, **message.fields)

    # life and death

    def _start_one(self, number: int) -> None:
        if self._stopping:
            return
        self._serial += 1
        member = Member(self._serial, number)
        patience = self.configuration.listener.drain_seconds + END_SECONDS
        try:
            member.channel = self._forking.fork(
                member.serial, number, patience, lambda message: self._receive(member, message)
            )
        except OSError as error:
            # no more files, or no more processes
            pause = self._restarts[number].pause(0.0)
            log_event(
                _logger,
                logging.ERROR,
                "a worker cannot be started",
                detail=exception_summary(error),
                pause_seconds=pause,
            )
            asyncio.get_running_loop().call_later(pause, self._start_one, number)
            return
        self.members[member.serial] = member
        member.send("setup", pickle.dumps(self._fixed))
        for message in self._keys.values():
            member.send("keys", message.payload, **message.fields)
        member.send("begin", self._packed, revision=self.generation)
        if self._left:
            member.send("leave")

    def _forked(self, serial: int, pid: int) -> None:
        member = self.members.get(serial)
        if member is not None:
            member.pid = pid
            # from now on it can answer
            member.silent = 0

    def _process_ended(self, pid: int, code: int) -> None:
        self._codes[pid] = code
        self._changed.set()

    def _gone(self, member: Member) -> None:
        del self.members[member.serial]
        self._heard.pop(member.serial, None)
        self._totals.ended(member.serial)
        if member.prepared is not None and not member.prepared.done():
            member.prepared.set_result(None)
        # it has closed its socket, and nothing else of it is to go on
        member.kill()
        self._handing.hand_again(member)
        if not self._stopping:
            reason = "hung" if member.killed else "left" if member.state is State.LEAVING else "crashed"
            self.restarts[reason] += 1
            pause = self._restarts[member.number].pause(member.served_seconds)
            asyncio.get_running_loop().call_later(pause, self._start_one, member.number)
            self._log_end(member, reason, pause)

    def _log_end(self, member: Member, reason: str, pause: float) -> None:
        async def log() -> None:
            # the nursery says how it ended a moment after its socket was closed
            await self._until(lambda: member.pid in self._codes, 0.5)
            log_end(member, reason, self._codes.pop(member.pid or 0, None), pause)

        self._logging.add(task := asyncio.create_task(log()))
        task.add_done_callback(self._logging.discard)

    # heartbeats

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(HEARTBEAT_SECONDS)
            # counted in heartbeats, not in seconds: when the whole machine stood still, nobody is to blame
            for member in list(self.members.values()):
                member.silent += 1
                member.behind = member.behind + 1 if self._is_behind(member) else 0
                if member.silent > self._silence or member.behind > self._behind:
                    self._end_hung(member)
            self._ping()
            if not self._stopping:
                self._handing.even()

    def _is_behind(self, member: Member) -> bool:
        return member.revision not in {0, self.generation}

    def _end_hung(self, member: Member) -> None:
        if member.pid is not None:
            member.killed = True
            member.kill()
        elif member.silent > max(self._silence, NURSERY_SECONDS / HEARTBEAT_SECONDS):
            # it is not there because nobody forks it
            self._forking.kill()

    def _ping(self) -> None:
        self._pings += 1
        self._tell_all("ping", number=self._pings)

    async def count(self) -> None:
        """Have all say what they have counted; returns when they have, or after COUNT_SECONDS."""
        self._ping()
        number, asked = self._pings, list(self.members)
        await self._until(
            lambda: all(self._heard.get(serial, 0) >= number for serial in asked if serial in self.members),
            COUNT_SECONDS,
        )

    def _tell_all(self, kind: str, payload: bytes = b"", **fields: object) -> None:
        for member in list(self.members.values()):
            member.send(kind, payload, **fields)
