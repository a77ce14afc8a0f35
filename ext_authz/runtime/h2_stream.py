"""One call on one HTTP/2 stream: what has come, what is still to go."""

import asyncio
from collections.abc import Iterable

from ext_authz.runtime.grpc_frame import MessageBuffer
from ext_authz.runtime.h2_head import Head

__all__ = ["Stream", "holds_too_much"]


HELD_BYTES = 67_108_864
"""Of messages that are not whole yet, on all streams of a connection: sixteen of the largest that are taken by default."""


class Stream:
    """State of an open stream.

    Attributes:
        number: of the stream.
        head: of the request.
        deadline: `time.monotonic()` at which the caller gives up; None when it did not say.
        window: bytes of DATA that may be sent.
        credit: bytes of DATA that came and were not given back to the client's window.
        size: bytes of body so far.
        body: of a request that comes in several pieces.
        ended: the request is whole.
        task: the work that the answer waits for.
        timer: ends the work at the deadline.
        begun: the answer's headers are sent.
        outgoing: bytes of the answer's body that wait for the client's window.
        trailers: the block that ends the answer; None while it goes on.
        moved: when something last came or went, `time.monotonic()`.
    """

    __slots__ = (
        "begun",
        "body",
        "credit",
        "deadline",
        "ended",
        "head",
        "moved",
        "number",
        "outgoing",
        "size",
        "task",
        "timer",
        "trailers",
        "window",
    )

    def __init__(self, number: int, head: Head, window: int, now: float) -> None:
        """A request whose head has come."""
        self.number = number
        self.head = head
        self.deadline = None if head.timeout is None else now + head.timeout
        self.window = window
        self.credit = 0
        self.size = 0
        self.body: MessageBuffer | None = None
        self.ended = False
        self.task: asyncio.Future[bytes | None] | None = None
        self.timer: asyncio.TimerHandle | None = None
        self.begun = False
        self.outgoing = bytearray()
        self.trailers: bytes | None = None
        self.moved = now

    def stop_work(self) -> None:
        """Cancel what the answer waits for."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        if self.task is not None:
            self.task.cancel()
            self.task = None


def holds_too_much(streams: Iterable[Stream], ceiling: int) -> bool:
    """Whether the messages that are not whole yet take more than HELD_BYTES, or than two of `ceiling`."""
    return sum(stream.size for stream in streams if stream.body is not None) > max(HELD_BYTES, 2 * ceiling)
