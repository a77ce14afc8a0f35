"""When Python's cyclic collector may hold up requests: hardly ever, as there is hardly anything for it to find.

Left alone it looks over everything that lives each time a quarter has been added: 100 ms with 100,000 cached tokens, in which
nobody is answered, and 8 ms in the middle of a thousand requests that wait for a key. What decisions are made of, snapshots
and connections have no cycles and go when their last reference goes. So what is new is set aside ten times a second
(`gc.freeze`), which costs nothing: it is not looked at, and still goes with its last reference. Cycles that there may be
all the same are found when everything is looked over: once an hour, or as soon as the process has grown by more than the
requests that may wait at once, and most of a full token cache, take.

That is so with the transport `h2` on uvloop. gRPC's library leaves cycles behind at each call, and asyncio's own loop at
handshakes that fail; with these Python collects by itself.
"""

import asyncio
import contextlib
import gc
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ClassVar

__all__ = ["Collector", "leaves_no_cycles", "resident_bytes", "without_collector"]

TICK_SECONDS = 0.1

WHOLE_SECONDS = 3_600.0
GROWTH_BYTES = 134_217_728
GROWTH_SECONDS = 10.0
"""Between two looks at the size of the process."""

THRESHOLDS = (100_000, 20, 100)
"""Of Python's own collector, for an event loop that gets no turn: new objects, and multiples of that."""


class Collector:
    """Does the collector's work on the event loop; one per process.

    Attributes:
        is_at_work: of any.
    """

    is_at_work: ClassVar[bool] = False

    def __init__(
        self, *, clock: Callable[[], float] = time.monotonic, resident: Callable[[], int | None] | None = None
    ) -> None:
        """Prepare; `run` goes on for as long as the process serves.

        Args:
            clock: seconds.
            resident: bytes of memory of this process, None where the system does not say.
        """
        self._clock = clock
        self._resident = resident or resident_bytes
        self._looked_at = self._measured_at = clock()
        self._size = self._resident()

    async def run(self) -> None:
        """Until cancelled; then Python collects by itself again."""
        before = gc.get_threshold()
        gc.set_threshold(*THRESHOLDS)
        Collector.is_at_work = True
        try:
            while True:
                await asyncio.sleep(TICK_SECONDS)
                self.tick()
        finally:
            Collector.is_at_work = False
            gc.set_threshold(*before)

    def tick(self) -> None:
        """Do what is due."""
        # off: what is being loaded is looked over by nobody
        if not gc.isenabled():
            return
        now = self._clock()
        if self._is_whole_due(now):
            gc.unfreeze()
            gc.collect()
            self._looked_at, self._size = now, self._resident()
        gc.freeze()

    def _is_whole_due(self, now: float) -> bool:
        if now - self._looked_at >= WHOLE_SECONDS:
            return True
        if self._size is None or now - self._measured_at < GROWTH_SECONDS:
            return False
        self._measured_at = now
        return (self._resident() or 0) >= self._size + GROWTH_BYTES


def leaves_no_cycles(transport: str) -> bool:
    """Whether connections and calls of `transport` on the running loop go with their last reference."""
    return transport == "h2" and type(asyncio.get_running_loop()).__module__.partition(".")[0] == "uvloop"


def resident_bytes() -> int | None:
    """Of this process; None where there is no /proc."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return None


@contextlib.contextmanager
def without_collector() -> Iterator[None]:
    """For loading what is to stay: it would be looked over again and again while it grows.

    Where a `Collector` is at work it is set aside in the end, as that would do.
    """
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        if Collector.is_at_work:
            gc.freeze()
        gc.enable()
