"""One worker as the supervisor sees it."""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import time
from collections.abc import Iterable
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from ext_authz.runtime.workers.channel import Message
from ext_authz.telemetry.server_log import log_event

if TYPE_CHECKING:
    from ext_authz.runtime.workers.channel import Channel

__all__ = ["Member", "State", "fewest", "log_end", "uneven"]

_logger = logging.getLogger(__name__)


class State(StrEnum):
    """What a worker does."""

    STARTING = "starting"
    SERVING = "serving"
    LEAVING = "leaving"


class Member:
    """Counts what a worker holds, and keeps what it has not yet taken.

    Attributes:
        serial: unlike that of any other worker, also of those before it.
        number: its place, from 1.
        channel: to it.
        state: what it does.
        pid: process id, once known.
        revision: of the configuration that it decides by.
        served_since: `time.monotonic()` when it began to serve.
        silent: heartbeats in a row that it has not answered.
        behind: heartbeats in a row at which it decided by another configuration than the others.
        reasons: why it is not ready, as `Readiness`.
        notes: as `Readiness`.
        prepared: becomes the problems of the configuration it was last given; None when it ended.
        killed: it was ended because it hung.
    """

    def __init__(self, serial: int, number: int) -> None:
        """Not yet serving."""
        self.serial = serial
        self.number = number
        self.channel: Channel | None = None
        self.state = State.STARTING
        self.pid: int | None = None
        self.revision = 0
        self.served_since: float | None = None
        self.silent = 0
        self.behind = 0
        self.reasons: tuple[str, ...] = ("a worker is starting",)
        self.notes: tuple[str, ...] = ()
        self.prepared: asyncio.Future[tuple[str, ...] | None] | None = None
        self.killed = False
        self._taken = 0
        self._handed: dict[int, socket.socket] = {}

    @property
    def connections(self) -> int:
        """Those it has, and those on their way to it."""
        return self._taken + len(self._handed)

    @property
    def is_serving(self) -> bool:
        """Whether it takes connections."""
        return self.state is State.SERVING

    @property
    def served_seconds(self) -> float:
        """How long it has served; 0 when it never did."""
        return 0.0 if self.served_since is None else time.monotonic() - self.served_since

    def send(self, kind: str, payload: bytes = b"", **fields: Any) -> None:  # noqa: ANN401 - JSON values
        """Tell it something."""
        if self.channel is not None:
            self.channel.send(Message(kind, fields, payload))

    def hand(self, number: int, accepted: socket.socket) -> None:
        """Hand it a connection, which is kept here too until it has been taken."""
        self._handed[number] = accepted
        if self.channel is not None:
            try:
                self.channel.send(Message("connection", {"number": number}, files=(accepted.fileno(),)))
            except OSError:
                # it would have to wait, for which no file is left
                self._handed.pop(number).close()

    def taken(self, number: int) -> None:
        """It has taken that connection."""
        self._handed.pop(number).close()
        self._taken += 1

    def ended(self) -> None:
        """One of its connections has ended."""
        self._taken -= 1

    def given_back(self) -> list[socket.socket]:
        """The connections that it never took; now that it is gone they are someone else's."""
        handed, self._handed = list(self._handed.values()), {}
        return handed

    def kill(self) -> None:
        """End it at once."""
        if self.pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)


def fewest(members: Iterable[Member]) -> Member | None:
    """Who gets the next connection: of those that serve, and answer, the one with the fewest."""
    serving = [member for member in members if member.is_serving]
    answering = [member for member in serving if member.silent <= 1]
    return min(answering or serving, key=lambda member: member.connections, default=None)


def uneven(members: Iterable[Member], count: int) -> tuple[Member | None, int]:
    """Who has too many connections, and how many; None while not all `count` serve, or where they differ by one at most."""
    serving = [member for member in members if member.is_serving]
    if len(serving) < count:
        return None, 0
    fullest = max(serving, key=lambda member: member.connections)
    surplus = fullest.connections - min(member.connections for member in serving)
    return (fullest, surplus // 2) if surplus >= 2 else (None, 0)


def log_end(member: Member, reason: str, code: int | None, pause: float) -> None:
    """Say why and how `member` ended, and after how many seconds it is replaced."""
    log_event(
        _logger,
        logging.INFO if reason == "left" else logging.ERROR,
        "a worker ended and is replaced",
        ended_worker=member.number,
        pid=member.pid,
        reason=reason,
        exit_code=code,
        served_seconds=round(member.served_seconds, 3),
        pause_seconds=pause,
    )
