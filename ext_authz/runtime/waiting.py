"""Decisions that have to wait: what is lacking is fulfilled, then the request is decided again from the beginning.

On the snapshot that is current then: the key that was waited for is only in that one. Each decision thus sees exactly one
snapshot from start to end, and never a mixture.

A key that comes may be what a thousand requests wait for. They go on a few at a time, so that a request that lacks nothing
is decided between them. Signatures are verified where everything else is decided: one takes 25 µs, which is less than
handing it to a thread and back, and all threads together have one interpreter.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Container
from typing import Protocol, TypeAlias

from ext_authz.authorizer import authorize
from ext_authz.decision import Decision, Deny, Diagnostics
from ext_authz.errors import Reason
from ext_authz.facts import RequestFacts
from ext_authz.need import Need
from ext_authz.runtime.turns import Turns
from ext_authz.snapshot import Snapshot

__all__ = ["CurrentSnapshot", "KeySource", "Waiting", "margin"]

MAX_NEEDS = 3
"""Needs fulfilled for one request: one for its token, and two more for reloads that happen meanwhile."""

MAX_WAITING = 4_096
"""Calls at once: four times what one Envoy connection may open by default, and 40 MB of requests of the usual size."""

RESUMED_AT_ONCE = 4
"""Decisions of those who waited, in one turn of the event loop: about half a millisecond."""

LONGEST_FETCH_SECONDS = 3_600.0
"""Longer than any fetch may take by configuration; each call has a deadline of its own."""

MARGIN_SHARE = 0.1
MINIMUM_MARGIN = 0.005
MAXIMUM_MARGIN = 0.05
"""The part of the remaining time kept for the answer to travel: 20 ms of Envoy's default 200 ms."""


_logger = logging.getLogger(__name__)

_Waiters: TypeAlias = "deque[asyncio.Future[None]]"


class CurrentSnapshot(Protocol):
    """Where the snapshot of the moment is."""

    @property
    def snapshot(self) -> Snapshot:
        """The one to decide with now."""
        ...


class KeySource(Protocol):
    """Who can fulfil a need for keys."""

    def may_fetch(self, need: Need, now: float) -> bool:
        """Whether trying is allowed; False during a cool-down, so that a flood of unknown keys costs no task."""
        ...

    async def fulfil(self, need: Need, deadline: float) -> None:
        """Try, until `time.monotonic()` is `deadline`; whether it worked shows in the next snapshot."""
        ...


def margin(remaining: float) -> float:
    """Seconds to keep of `remaining` for the answer to reach Envoy before it gives up."""
    return min(MAXIMUM_MARGIN, max(MINIMUM_MARGIN, MARGIN_SHARE * remaining))


class Waiting:
    """Decides requests that lack something; used from the event loop alone.

    Attributes:
        calls: that wait.
        futile: the needs that nobody should wait for now. They deny at once, which costs no more than finding them.
    """

    def __init__(
        self,
        current: CurrentSnapshot,
        keys: KeySource,
        *,
        default_deadline: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Wire up.

        Args:
            current: gives the snapshot for each decision.
            keys: fulfils needs.
            default_deadline: seconds a call may take when the caller did not say.
            clock: seconds since the epoch.
        """
        self._current = current
        self._keys = keys
        self._default_deadline = default_deadline
        self._clock = clock
        self.futile: Container[Need] = _Futile(self, keys, clock)
        self.calls = 0
        # by issuer: who waits for what is being tried
        self._tried: dict[str, _Waiters] = {}
        self._trying: set[asyncio.Task[None]] = set()
        # in the order in which they go on
        self._ready: _Waiters = deque()
        self._turns = Turns()

    async def decide(self, facts: RequestFacts, need: Need, deadline: float | None) -> Decision:
        """The decision, once it can be made or time is up.

        Args:
            facts: what Envoy said.
            need: what was lacking to decide at once.
            deadline: by `time.monotonic()`, of the call; None when the caller did not say.
        """
        self.calls += 1
        try:
            return await self._decide(facts, need, deadline)
        finally:
            self.calls -= 1

    async def _decide(self, facts: RequestFacts, need: Need, deadline: float | None) -> Decision:
        remaining = self._default_deadline if deadline is None else deadline - time.monotonic()
        unmet: frozenset[Need] = frozenset()
        try:
            async with asyncio.timeout(remaining - margin(remaining)):
                for _ in range(MAX_NEEDS):
                    await self._tried_for(need)
                    unmet |= {need}
                    outcome = authorize(facts, self._current.snapshot, self._clock(), unmet)
                    if not isinstance(outcome, Need):
                        return outcome
                    need = outcome
        except TimeoutError:
            return self._give_up(Reason.DEADLINE_EXCEEDED, facts, unmet | {need})
        return self._give_up(Reason.SIGNING_KEYS_UNAVAILABLE, facts, unmet | {need})

    def _tried_for(self, need: Need) -> asyncio.Future[None]:
        """Done when `need` has been tried and it is this call's turn to go on."""
        waiter = asyncio.get_running_loop().create_future()
        waiters = self._tried.get(need.issuer_name)
        if waiters is None:
            waiters = self._tried[need.issuer_name] = deque()
            task = asyncio.create_task(self._try(need, waiters))
            self._trying.add(task)
            task.add_done_callback(self._trying.discard)
        waiters.append(waiter)
        return waiter

    async def _try(self, need: Need, waiters: _Waiters) -> None:
        """Try once for all who wait for the same issuer, also for those who come meanwhile."""
        try:
            await self._keys.fulfil(need, time.monotonic() + LONGEST_FETCH_SECONDS)
        except Exception:
            _logger.exception("keys could not be tried")
        finally:
            del self._tried[need.issuer_name]
            if not self._ready:
                self._turns.add(self._resume)
            self._ready += waiters

    def _resume(self) -> bool:
        """Let the next few go on; whether others are left."""
        resumed = 0
        while self._ready and resumed < RESUMED_AT_ONCE:
            waiter = self._ready.popleft()
            # done: cancelled by its deadline or its client
            if not waiter.done():
                waiter.set_result(None)
                resumed += 1
        return bool(self._ready)

    def _give_up(self, reason: Reason, facts: RequestFacts, unmet: frozenset[Need]) -> Deny:
        """Deny with `reason` and what is known about the request without the needs that are unmet."""
        snapshot = self._current.snapshot
        known = authorize(facts, snapshot, self._clock(), unmet)
        about = Diagnostics() if isinstance(known, Need) else known.diagnostics
        return snapshot.denials.deny(reason, diagnostics=about)


class _Futile:
    """Needs that may not be tried now, and all of them while as many calls wait as may."""

    def __init__(self, waiting: Waiting, keys: KeySource, clock: Callable[[], float]) -> None:
        self._waiting = waiting
        self._keys = keys
        self._clock = clock

    def __contains__(self, need: object) -> bool:
        return isinstance(need, Need) and (
            self._waiting.calls >= MAX_WAITING or not self._keys.may_fetch(need, self._clock())
        )
