"""When an issuer's keys are fetched, and how long they serve: plain arithmetic on a given time."""

from collections.abc import Callable
from dataclasses import dataclass
from math import inf

__all__ = ["FetchSchedule"]

_REFRESH_JITTER = 0.1
"""Share of the interval by which a refresh may come early, so that replicas started together drift apart."""

_BACKOFF_JITTER = 0.5
"""Share of a pause that is random, so that replicas do not return to a failed server all at once."""

_MAX_DOUBLINGS = 32
"""Beyond it the pause is at its maximum for any setting; keeps the power a small number."""


@dataclass(slots=True)
class FetchSchedule:
    """The state of one issuer's fetching; times are seconds since the epoch.

    Attributes:
        interval: seconds after a success at which keys are fetched again; infinite for keys that cannot change.
        stale_after: seconds after a success for which the keys serve.
        cooldown: seconds after any attempt in which an unknown `kid` starts no other, while keys are held.
        backoff: seconds of the first pause after a failure; doubles with each further one.
        maximum_backoff: seconds of the longest pause.
        random: gives a number in [0, 1) per call.
        fetched_at: when the last success was, or None.
        failures: attempts that failed since.
        attempted_at: when the last attempt began, or failed.
        pause: seconds to wait after a failure.
    """

    interval: float
    stale_after: float
    cooldown: float
    backoff: float
    maximum_backoff: float
    random: Callable[[], float]
    fetched_at: float | None = None
    failures: int = 0
    attempted_at: float = -inf
    pause: float = 0.0
    _due_after: float = 0.0

    def start(self, now: float) -> None:
        """An attempt begins."""
        self.attempted_at = now

    def succeed(self, now: float) -> None:
        """The attempt brought keys."""
        self.fetched_at = now
        self.failures = 0
        self.pause = 0.0
        self._due_after = self.interval * (1 - _REFRESH_JITTER * self.random())

    def fail(self, now: float) -> None:
        """The attempt brought none."""
        self.attempted_at = now
        longest = min(self.backoff * 2.0 ** min(self.failures, _MAX_DOUBLINGS), self.maximum_backoff)
        self.pause = longest * (1 - _BACKOFF_JITTER * self.random())
        self.failures += 1

    def adopt(self, other: "FetchSchedule") -> None:
        """Go on from where `other` is, whose keys are taken over."""
        self.fetched_at = other.fetched_at
        self.failures = other.failures
        self.attempted_at = other.attempted_at
        self.pause = min(other.pause, self.maximum_backoff)
        self._due_after = self.interval * (1 - _REFRESH_JITTER * self.random())

    def due_in(self, now: float) -> float:
        """Seconds until the next attempt in the background; 0 when it is due."""
        if self.failures:
            return _remaining(self.attempted_at, self.pause, now)
        if self.fetched_at is None:
            return 0.0
        return _remaining(self.fetched_at, self._due_after, now)

    def stale_in(self, now: float) -> float:
        """Seconds until the keys may no longer serve; 0 when they may not, or there are none."""
        return (
            0.0
            if self.fetched_at is None
            else _remaining(self.fetched_at, self.stale_after, now, at_jump=self.stale_after)
        )

    def may_fetch(self, now: float) -> bool:
        """Whether a token whose key is not held may start an attempt."""
        if _remaining(self.attempted_at, self.pause, now):
            return False
        # without any keys only a failure holds back: every token is waiting for them
        return self.stale_in(now) == 0 or _remaining(self.attempted_at, self.cooldown, now) == 0

    def age(self, now: float) -> float | None:
        """Seconds since keys were fetched; None when they never were."""
        return None if self.fetched_at is None else max(0.0, now - self.fetched_at)


def _remaining(since: float, seconds: float, now: float, at_jump: float = 0.0) -> float:
    """Seconds of a period left; `at_jump` when the clock was set back to before it began."""
    if now < since:
        return at_jump
    return max(0.0, since + seconds - now)
