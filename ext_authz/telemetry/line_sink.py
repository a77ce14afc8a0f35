"""Lines to a file descriptor, written by a thread of their own: a slow reader never slows a decision.

The queue is bounded; what does not fit is counted, never waited for. Whole lines are written at once and in pieces that a
pipe takes atomically, so that several processes may share one standard output.

The thread is to write and not to compute: one that computes keeps the interpreter for up to five milliseconds
(`sys.getswitchinterval`) from an event loop that has waited for its sockets. The lines of decisions, of which there are
thousands a second, are made by the loop itself (`line_turns`) and come as pieces.
"""

import contextlib
import os
import queue
import threading
import time
from collections.abc import Iterator
from typing import NamedTuple, Protocol

__all__ = ["ATOMIC_BYTES", "MAX_QUEUED", "Line", "LineSink", "Lines", "Piece", "Text"]

MAX_QUEUED = 8_192
"""Lines waiting. At 15,000 decisions a second it bridges half a second of a reader that does not read."""

ATOMIC_BYTES = 4_096
"""PIPE_BUF on Linux: a write up to this size to a pipe is not mixed with another process's."""

BATCH_PAUSE = 0.005
"""Seconds between batches: under load the thread wakes 200 times a second instead of once for each decision."""

CLOSE_SECONDS = 5.0
"""How long `close` waits for a reader that does not read."""


class Line(Protocol):
    """Something that becomes one line; rendered later, and not where it is put."""

    def render(self) -> str:
        """The text, ASCII, without a line end."""
        ...


class Lines(Protocol):
    """Where lines go."""

    def put(self, line: Line) -> None:
        """Queue `line`, or count it as dropped. Never blocks, never raises."""
        ...


class Piece(NamedTuple):
    """Whole lines as they are written at once.

    Attributes:
        data: at most ATOMIC_BYTES, or one line that is longer.
        lines: how many.
    """

    data: bytes
    lines: int


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
        self._queue: queue.SimpleQueue[Line | Piece | None] = queue.SimpleQueue()
        # lines that came, from any thread, and lines that went, counted by ours alone
        self._came = self._went = 0
        self._coming = threading.Lock()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    @property
    def room(self) -> int:
        """How many more lines may wait."""
        return self._capacity - (self._came - self._went)

    def put(self, line: Line) -> None:
        """Queue `line`, or count it as dropped. Never blocks."""
        with self._coming:
            if self.room <= 0:
                self.dropped += 1
                return
            self._came += 1
        self._queue.put(line)

    def put_piece(self, piece: Piece) -> None:
        """Queue lines that are encoded already, and for which there was room."""
        with self._coming:
            self._came += piece.lines
        self._queue.put(piece)

    def encoded(self, line: Line) -> bytes | None:
        """`line` as it is written; None for one that cannot be rendered, which is counted as dropped."""
        try:
            encoded = line.render().encode("ascii", "backslashreplace")
        except Exception:  # noqa: BLE001 - one line that is wrong must not end the log
            self.dropped += 1
            return None
        # each line is a JSON object that is not empty
        return (encoded[:-1] + self._member if self._member else encoded) + b"\n"

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
            self._write([item for item in batch if item is not None])
            if None in batch:
                return
            self._closing.wait(BATCH_PAUSE)

    def _write(self, items: list[Line | Piece]) -> None:
        for item in items:
            if isinstance(item, Piece):
                self._write_piece(item)
                self._went += item.lines
            else:
                data = self.encoded(item)
                if data is not None:
                    self._write_piece(Piece(data, 1))
                self._went += 1

    def _write_piece(self, piece: Piece) -> None:
        data = memoryview(piece.data)
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
            self.dropped += piece.lines

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
