"""The lines of decisions, made on the event loop: a few in each turn, when nobody waits for an answer in that turn.

Made in a thread they would cost the same, and hold up the loop for longer: see `line_sink`.
"""

import asyncio
from collections import deque

from ext_authz.telemetry.line_sink import ATOMIC_BYTES, Line, LineSink, Piece

__all__ = ["LinesInTurns"]

PAUSE_SECONDS = 0.005
"""From the first line until it is made: under load lines are made and written together, which costs less."""

LINES_IN_ONE_TURN = 8
"""Some forty microseconds: whoever comes in a turn waits for all that is done in it."""

SHARE_IN_ONE_TURN = 8
"""Or one in so many of those that wait, so that a server at its limit makes as many as come."""


class LinesInTurns:
    """Takes lines on the event loop and hands them to a sink when they are made."""

    def __init__(self, sink: LineSink) -> None:
        """Nothing waits; `sink` writes, and says how many lines may wait here and there together."""
        self._sink = sink
        self._waiting: deque[Line] = deque()
        # what is written together
        self._made: list[bytes] = []
        self._size = 0
        self._is_due = False

    def put(self, line: Line) -> None:
        """Queue `line`, or count it as dropped. Never blocks."""
        waiting = self._waiting
        if self._sink.room <= len(waiting) + len(self._made):
            self._sink.dropped += 1
            return
        waiting.append(line)
        if not self._is_due:
            self._is_due = True
            asyncio.get_running_loop().call_later(PAUSE_SECONDS, self._turn)

    def flush(self) -> None:
        """Make all lines that wait; for the end, when no turn may come."""
        self._make(len(self._waiting))

    def _turn(self) -> None:
        self._make(max(LINES_IN_ONE_TURN, len(self._waiting) // SHARE_IN_ONE_TURN))
        self._is_due = bool(self._waiting)
        if self._is_due:
            asyncio.get_running_loop().call_soon(self._turn)

    def _make(self, count: int) -> None:
        waiting = self._waiting
        for _ in range(min(count, len(waiting))):
            encoded = self._sink.encoded(waiting.popleft())
            if encoded is None:
                continue
            if self._size + len(encoded) > ATOMIC_BYTES:
                self._hand_over()
            self._made.append(encoded)
            self._size += len(encoded)
        if not waiting:
            self._hand_over()

    def _hand_over(self) -> None:
        if self._made:
            self._sink.put_piece(Piece(b"".join(self._made), len(self._made)))
            self._made, self._size = [], 0
