"""Work that would hold up everything else: a slice of it in each turn of the event loop."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import TypeAlias

__all__ = ["FIRST_SLICE_FRAMES", "SLICE_FRAMES", "Turns", "Work"]

FIRST_SLICE_FRAMES = 32
"""What may be taken at once before anything has to wait for its turn: 16 requests, in half a millisecond when they are warm.
That is more than a proxy under its usual load sends together on one connection; taking those in pieces would cost speed.
"""

SLICE_FRAMES = 2
"""What each slice after that may take: one request. Whoever waits beside a thousand requests that nobody has seen before
waits for one of them, 50 µs to 100 µs, at the price of a turn of the loop for each, 10 µs. By number and not by time, so
that a machine that is busy with other things does not make the pieces smaller and with that itself still busier.
"""

Work: TypeAlias = Callable[[], bool]
"""Does a slice and says whether there is more. Must not raise."""


class Turns:
    """One slice in each turn of the event loop, first come first served; between two slices everyone else is heard."""

    def __init__(self) -> None:
        """Nothing to do."""
        self._works: deque[Work] = deque()

    @property
    def first_slice(self) -> int:
        """Frames that something new may take now: the large slice, unless others wait for theirs."""
        return SLICE_FRAMES if self._works else FIRST_SLICE_FRAMES

    def add(self, work: Work) -> None:
        """Call `work` once in some turn of the loop, and again in later ones for as long as there is more."""
        if not self._works:
            asyncio.get_running_loop().call_soon(self._turn)
        self._works.append(work)

    def _turn(self) -> None:
        more = False
        try:
            more = self._works[0]()
        finally:
            # one that raises is not asked again, and the others are
            work = self._works.popleft()
            if more:
                self._works.append(work)
            if self._works:
                asyncio.get_running_loop().call_soon(self._turn)
