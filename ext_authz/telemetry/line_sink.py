"""Lines to a file descriptor, written by a thread of their own: a slow reader never slows a decision.

The queue is bounded; what does not fit is counted, never waited for. Whole lines are written at once and in pieces that a
pipe takes atomically, so that several processes may share one standard output.
"""

import contextlib
import os
import queue
import threading
import time
from collections.abc import Iterator
from typing import Protocol

__all__ = ["ATOMIC_BYTES", "MAX_QUEUED", "Line", "LineSink", "Text"]

MAX_QUEUED = 8_192
"""Lines waiting. At 15,000 decisions a second it bridges half a second of a reader that does not read."""

ATOMIC_BYTES = 4_096
"""PIPE_BUF on Linux: a write up to this size to a pipe is not mixed with another process's."""

BATCH_PAUSE = 0.005
"""Seconds between batches: under load the thread wakes 200 times a second instead of once for each decision."""

CLOSE_SECONDS = 5.0
"""How long `close` waits for a reader that does not read."""


class Line(Protocol):
    """Something that becomes one line; rendered by the sink's thread, not by the one that puts it."""

    def render(self) -> str:
        """The text, ASCII, without a line end."""
        ...


class Text:
    """A line that is rendered already."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        """`text` holds no line end."""
        self._text = text

    def render(self) -> str:
        """The text."""
        return self._text


class LineSink:
    """Writes lines to `descriptor` in the order they were put.

    Attributes:
        dropped: lines lost, because the queue was full or the descriptor refused them.
    """

    def __init__(
        self, descriptor: int, capacity: int = MAX_QUEUED, *, worker: int | None = None, lock: int | None = None
    ) -> None:
        """Start the thread; `close` ends it.

        Args:
            descriptor: to write to.
            capacity: lines that may wait.
            worker: of several processes that write there; each line gets it as a member.
            lock: a descriptor of a file that all of them have open, for lines too long to be written in one piece.
        """
        self.dropped = 0
        self._member = b"" if worker is None else b',"worker":%d}' % worker
        self._lock = lock
        self._descriptor = descriptor
        self._capacity = capacity
        self._queue: queue.SimpleQueue[Line | None] = queue.SimpleQueue()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    def put(self, line: Line) -> None:
        """Queue `line`, or count it as dropped. Never blocks."""
        if self._queue.qsize() >= self._capacity:
            self.dropped += 1
        else:
            self._queue.put(line)

    def close(self) -> None:
        """Write what is queued and end the thread. A line put later is lost."""
        self._closing.set()
        self._queue.put(None)
        self._thread.join(CLOSE_SECONDS)

    def _run(self) -> None:
        while True:
            batch = [self._queue.get()]
            with contextlib.suppress(queue.Empty):
                while len(batch) < self._capacity:
                    batch.append(self._queue.get_nowait())
            self._write([line for line in batch if line is not None])
            if None in batch:
                return
            self._closing.wait(BATCH_PAUSE)

    def _write(self, lines: list[Line]) -> None:
        piece: list[bytes] = []
        size = 0
        for line in lines:
            data = line.render().encode("ascii", "backslashreplace")
            # each line is a JSON object that is not empty
            data = (data[:-1] + self._member if self._member else data) + b"\n"
            if piece and size + len(data) > ATOMIC_BYTES:
                self._write_piece(piece)
                piece, size = [], 0
            piece.append(data)
            size += len(data)
        if piece:
            self._write_piece(piece)

    def _write_piece(self, piece: list[bytes]) -> None:
        data = memoryview(b"".join(piece))
        try:
            with self._alone(len(data)):
                while data:
                    try:
                        data = data[os.write(self._descriptor, data) :]
                    except BlockingIOError:
                        # whoever started us made the descriptor non-blocking
                        time.sleep(BATCH_PAUSE)
        except OSError:
            # the reader has gone; deciding goes on
            self.dropped += len(piece)

    @contextlib.contextmanager
    def _alone(self, size: int) -> Iterator[None]:
        """Keep other processes from writing into the middle of a long line, and this one from writing into theirs."""
        if self._lock is None:
            yield
            return
        import fcntl  # noqa: PLC0415 - not on every platform, nor are workers

        # a lock of this process, which goes with it; one that is held by a process that hangs is free when that is replaced
        fcntl.lockf(self._lock, fcntl.LOCK_SH if size <= ATOMIC_BYTES else fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.lockf(self._lock, fcntl.LOCK_UN)
