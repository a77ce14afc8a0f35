"""Which worker gets a connection, and which gives one up."""

import socket
import time
from collections.abc import Mapping

from ext_authz.runtime.workers.member import Member, fewest, uneven

__all__ = ["Handing"]

EVEN_SECONDS = 5.0
"""At most so often a connection is sent away because another worker has fewer."""

MAX_KEPT = 1_024
"""Connections that wait while no worker serves; as many more wait in the kernel's queue."""


class Handing:
    """Hands connections to workers."""

    def __init__(self, members: Mapping[int, Member], count: int) -> None:
        """Hand to `members`, which come and go; `count` when all are there."""
        self._members = members
        self._count = count
        self._waiting: list[socket.socket] = []
        self._connection = 0
        self._evened_at = 0.0

    @property
    def waiting(self) -> int:
        """Connections that no worker has yet."""
        return len(self._waiting)

    def hand(self, accepted: socket.socket) -> None:
        """Give a connection to the worker that has the fewest; it waits while none serves."""
        member = fewest(self._members.values())
        if member is not None:
            self._connection += 1
            member.hand(self._connection, accepted)
        elif len(self._waiting) < MAX_KEPT:
            self._waiting.append(accepted)
        else:
            accepted.close()

    def hand_waiting(self) -> None:
        """A worker serves now."""
        waiting, self._waiting = self._waiting, []
        for accepted in waiting:
            self.hand(accepted)

    def hand_again(self, member: Member) -> None:
        """What `member` has not taken by now it never will."""
        for accepted in member.given_back():
            self.hand(accepted)

    def even(self) -> None:
        """Have a client connect anew where its worker has at least two connections more than another one.

        After a worker was replaced its connections are with the others, and clients that keep theirs would leave it idle.
        """
        now = time.monotonic()
        if now - self._evened_at < EVEN_SECONDS:
            return
        fullest, surplus = uneven(self._members.values(), self._count)
        if fullest is not None:
            self._evened_at = now
            fullest.send("send_away", count=surplus)

    def close(self) -> None:
        """Let go of those that wait."""
        for accepted in self._waiting:
            accepted.close()
        self._waiting.clear()
