"""When a worker that ended is started again."""

__all__ = ["FIRST_PAUSE", "LONGEST_PAUSE", "STEADY_SECONDS", "Restarts"]

STEADY_SECONDS = 1.0
"""A worker that served so long was no failed start; the next one is started at once."""

FIRST_PAUSE = 0.1
LONGEST_PAUSE = 30.0
"""Pauses of a worker that ends again and again without serving; each is twice the one before."""


class Restarts:
    """Of one place in the row of workers."""

    def __init__(self) -> None:
        """None was started yet."""
        self._failures = 0

    def pause(self, served_seconds: float) -> float:
        """Seconds until the next start, after a worker that served so long (0 for one that never did)."""
        if served_seconds >= STEADY_SECONDS:
            self._failures = 0
            return 0.0
        pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(self._failures, 16))
        self._failures += 1
        return pause
