"""How one HTTP/2 connection takes in what comes: a slice at a time, so that many requests on one keep no other waiting.

A client can send a thousand requests at once. Without slices they would all be decided before any other connection is
read, and who came with one request would wait for all of them.
"""

from abc import ABC, abstractmethod

from ext_authz.runtime.h2_answers import Answers
from ext_authz.runtime.h2_frame import ConnectionFault, ErrorCode
from ext_authz.runtime.turns import SLICE_FRAMES, Turns

__all__ = ["Intake"]


HELD_SLICES = 16
"""What there is to say is written after so many slices together: a write for each would be a third of its cost."""


class Intake(Answers, ABC):
    """The receiving side of a connection, as the event loop sees it."""

    def __init__(self, turns: Turns) -> None:
        """Nothing has come; `turns` are those of all connections."""
        super().__init__()
        self._turns = turns
        self._buffer = b""
        # bytes of it that are behind us
        self._taken = 0
        # frames that this slice may still take
        self._allowance = 0
        # slices since something was written
        self._held = 0
        # requests that have come wait for their turn, so no more are read
        self._behind = False
        self._client_reads = True

    def pause_writing(self) -> None:
        """The client does not read: read nothing from it either."""
        self._client_reads = False
        self._read_no_more()

    def resume_writing(self) -> None:
        """It reads again."""
        self._client_reads = True
        self._read_again()

    def data_received(self, data: bytes) -> None:
        """Take what came, or as much as a slice allows."""
        self._buffer = self._buffer[self._taken :] + data if self._buffer else data
        self._taken = 0
        if self._behind:
            return
        frames = self._turns.first_slice
        more = self._take(frames)
        self._turns.took(frames - self._allowance)
        if not more:
            return
        self._behind = True
        self._read_no_more()
        self._turns.add(self._go_on)

    def _take(self, frames: int, *, hold: bool = False) -> bool:
        """Take from the buffer, send what there is to say to it, and tell whether more is there than a slice allowed.

        With `hold`, what there is to say may wait for the next slice, if there is more.
        """
        more = False
        self._allowance = frames
        self._in_batch = True
        try:
            more = self._receive()
        except ConnectionFault as fault:
            self._fail(fault.code)
        finally:
            self._in_batch = False
        if not (more and hold):
            self.flush()
        return more

    def charge(self, frames: int) -> None:
        """Count what was taken last as so many frames more."""
        self._allowance -= frames

    def _go_on(self) -> bool:
        self._held = (self._held + 1) % HELD_SLICES
        if self._transport is not None and self._take(SLICE_FRAMES, hold=self._held != 0):
            return True
        self._behind = False
        self._read_again()
        return False

    def _read_no_more(self) -> None:
        if self._transport is not None:
            self._transport.pause_reading()

    def _read_again(self) -> None:
        if self._client_reads and not self._behind and self._transport is not None:
            self._transport.resume_reading()

    @abstractmethod
    def _receive(self) -> bool:
        """Take as many frames from the buffer as the slice allows, or all, and tell whether more is there.

        Raises:
            ConnectionFault: the connection cannot go on.
        """

    @abstractmethod
    def _fail(self, code: ErrorCode) -> None:
        """End the connection."""
