"""Decisions that have to wait: what is lacking is fulfilled, then the request is decided again from the beginning.

On the snapshot that is current then: the key that was waited for is only in that one. Each decision thus sees exactly one
snapshot from start to end, and never a mixture.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Protocol

from ext_authz.authorizer import authorize
from ext_authz.decision import Decision, Deny, Diagnostics
from ext_authz.errors import Reason
from ext_authz.facts import RequestFacts
from ext_authz.need import Need
from ext_authz.snapshot import Snapshot

__all__ = ["CurrentSnapshot", "KeySource", "Waiting", "margin"]

MAX_NEEDS = 3
"""Needs fulfilled for one request: one for its token, and two more for reloads that happen meanwhile."""

MARGIN_SHARE = 0.1
MINIMUM_MARGIN = 0.005
MAXIMUM_MARGIN = 0.05
"""The part of the remaining time kept for the answer to travel: 20 ms of Envoy's default 200 ms."""


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
    """Decides requests that lack something; used from the event loop alone."""

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

    async def decide(self, facts: RequestFacts, need: Need, deadline: float | None) -> Decision:
        """The decision, once it can be made or time is up.

        Args:
            facts: what Envoy said.
            need: what was lacking to decide at once.
            deadline: by `time.monotonic()`, of the call; None when the caller did not say.
        """
        arrived = time.monotonic()
        remaining = self._default_deadline if deadline is None else deadline - arrived
        answer_in = remaining - margin(remaining)
        unmet: frozenset[Need] = frozenset()
        try:
            async with asyncio.timeout(answer_in):
                for _ in range(MAX_NEEDS):
                    # what is told from a deadline and what from a lack of keys: ours ends before the fetch's
                    await self._keys.fulfil(need, arrived + remaining)
                    unmet |= {need}
                    outcome = authorize(facts, self._current.snapshot, self._clock(), unmet)
                    if not isinstance(outcome, Need):
                        return outcome
                    need = outcome
        except TimeoutError:
            return self._give_up(Reason.DEADLINE_EXCEEDED, facts, unmet | {need})
        return self._give_up(Reason.SIGNING_KEYS_UNAVAILABLE, facts, unmet | {need})

    def _give_up(self, reason: Reason, facts: RequestFacts, unmet: frozenset[Need]) -> Deny:
        """Deny with `reason` and what is known about the request without the needs that are unmet."""
        snapshot = self._current.snapshot
        known = authorize(facts, snapshot, self._clock(), unmet)
        about = Diagnostics() if isinstance(known, Need) else known.diagnostics
        return snapshot.denials.deny(reason, diagnostics=about)
