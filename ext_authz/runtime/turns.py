"""Work that would hold up everything else: a slice of it in each turn of the event loop."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import TypeAlias

__all__ = ["SLICE_SECONDS", "Turns", "Work"]

SLICE_SECONDS = 0.0005
"""How long one slice may take: a dozen requests, and half the time that one may wait unnoticed."""

Work: TypeAlias = Callable[[], bool]
"""Does a slice and says whether there is more. Must not raise."""


class Turns:
    """One slice in each turn of the event loop, first come first served; between two slices everyone else is heard."""

    def __init__(self) -> None:
        """Nothing to do."""
        self._works: deque[Work] = deque()

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
