"""Work that would hold up everything else: a slice of it in each turn of the event loop."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import TypeAlias

__all__ = ["FIRST_SLICE_FRAMES", "FRAMES_OF_A_WAIT", "SLICE_FRAMES", "Turns", "Work"]

FIRST_SLICE_FRAMES = 64
"""What may be taken at once before anything has to wait for its turn: 32 requests, in a millisecond. That is more than a
proxy under its usual load sends together on one connection; taking those in pieces costs a quarter of their speed.
"""

TURN_FRAMES = 128
"""What the large slices of several connections may take in one turn of the loop; who comes after that takes a small one."""

SLICE_FRAMES = 2
"""What each slice after that may take: one request. A turn of the loop around it costs a tenth of that, and who comes
meanwhile waits for one and not for four. By number and not by time, so that a machine that is busy with other things does not
make the pieces smaller and with that itself still busier.
"""

FRAMES_OF_A_WAIT = 30
"""What a request that has to wait counts besides its own frames: the first slice takes two of those and each after it one.
To find out what it lacks costs as much as to answer two others, and is done again when that has come. There is no answer
to be written meanwhile, so a piece of one costs little more than a turn of the loop."""

Work: TypeAlias = Callable[[], bool]
"""Does a slice and says whether there is more. Must not raise."""


class Turns:
    """One slice in each turn of the event loop, first come first served; between two slices everyone else is heard."""

    def __init__(self) -> None:
        """Nothing to do."""
        self._works: deque[Work] = deque()
        # frames of large slices in this turn of the loop
        self._taken = 0

    @property
    def first_slice(self) -> int:
        """Frames that something new may take now: the large slice, unless others wait for theirs or have had much already."""
        if self._works or self._taken >= TURN_FRAMES:
            return SLICE_FRAMES
        return FIRST_SLICE_FRAMES

    def took(self, frames: int) -> None:
        """So many frames were taken of a first slice."""
        if frames > SLICE_FRAMES:
            if not self._taken:
                asyncio.get_running_loop().call_soon(self._begin)
            self._taken += frames

    def _begin(self) -> None:
        self._taken = 0

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
