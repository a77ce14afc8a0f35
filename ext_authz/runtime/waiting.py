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
from collections import OrderedDict
from collections.abc import Callable, Container
from functools import partial
from typing import NamedTuple, Protocol, TypeAlias

from ext_authz.authorizer import Examination, authorize
from ext_authz.decision import Decision, Deny
from ext_authz.errors import Reason
from ext_authz.facts import RequestFacts
from ext_authz.need import Need
from ext_authz.runtime.turns import Turns
from ext_authz.snapshot import Snapshot

__all__ = ["ENDS", "CurrentSnapshot", "KeySource", "Undecided", "Waiting", "margin"]

ENDS = (KeyboardInterrupt, SystemExit, GeneratorExit, asyncio.CancelledError)
"""What must end a call instead of answering it."""

MAX_NEEDS = 3
"""Needs fulfilled for one request: one for its token, and two more for reloads that happen meanwhile."""

MAX_WAITING = 4_096
"""Calls at once: four times what one Envoy connection may open by default, and 40 MB of requests of the usual size."""

RESUMED_AT_ONCE = 2
"""Decisions of those who waited, in one turn of the event loop: about a tenth of a millisecond."""

LATE_AT_ONCE = 16
"""Denials of those whose time is up: they have only the margin left, and a call that gets no answer in time leaves the
decision to Envoy's `failure_mode_allow`."""

LONGEST_FETCH_SECONDS = 3_600.0
"""Longer than any fetch may take by configuration; each call has a deadline of its own."""

MARGIN_SHARE = 0.1
MINIMUM_MARGIN = 0.005
MAXIMUM_MARGIN = 0.05
"""The part of the remaining time kept for the answer to travel: 20 ms of Envoy's default 200 ms."""


_logger = logging.getLogger(__name__)

_Waiters: TypeAlias = "OrderedDict[_Call, None]"
"""In the order in which they go on; one who leaves is gone at once, with all that is known of its request."""


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


class Undecided(NamedTuple):
    """A request that lacks something.

    Attributes:
        facts: what Envoy said.
        seen: how far it came.
        need: what was lacking to go on.
    """

    facts: RequestFacts
    seen: Examination
    need: Need


class _Call:
    """One request that waits. No task: a thousand of them begin and end within milliseconds.

    Attributes:
        facts: what Envoy said.
        seen: how far it came when it was decided last.
        need: what it waits for.
        unmet: what has been tried for it.
        tries: how often.
        is_late: its time is up.
        answer: makes the answer of a decision.
        fail: makes the answer when there is no decision.
        answered: done when it is, or when nobody waits for it any more.
        timer: ends the wait.
    """

    __slots__ = ("answer", "answered", "facts", "fail", "is_late", "need", "seen", "timer", "tries", "unmet")

    def __init__(
        self,
        undecided: Undecided,
        answer: Callable[[Decision], bytes],
        fail: Callable[[BaseException], bytes],
        answered: "asyncio.Future[bytes]",
    ) -> None:
        self.facts, self.seen, self.need = undecided
        self.unmet: frozenset[Need] = frozenset()
        self.tries = 0
        self.is_late = False
        self.answer = answer
        self.fail = fail
        self.answered = answered
        self.timer: asyncio.TimerHandle | None = None


_Step: TypeAlias = Callable[[_Call], Decision | None]


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
        self._ready: _Waiters = OrderedDict()
        # those whose time is up, before all others; each with what makes its decision
        self._overdue: OrderedDict[_Call, _Step] = OrderedDict()
        self._turns = Turns()
        self._is_resuming = False

    def wait(
        self,
        undecided: Undecided,
        deadline: float | None,
        answer: Callable[[Decision], bytes],
        fail: Callable[[BaseException], bytes],
    ) -> "asyncio.Future[bytes]":
        """The answer, once the request can be decided or time is up. To be cancelled when nobody waits for it any more.

        Args:
            undecided: the request.
            deadline: by `time.monotonic()`, of the call; None when the caller did not say.
            answer: makes the answer of a decision.
            fail: makes it when deciding or `answer` raises; must not raise.
        """
        loop = asyncio.get_running_loop()
        remaining = self._default_deadline if deadline is None else deadline - time.monotonic()
        call = _Call(undecided, answer, fail, loop.create_future())
        call.timer = loop.call_later(max(0.0, remaining - margin(remaining)), self._hurry, call)
        call.answered.add_done_callback(partial(self._leave, call))
        self.calls += 1
        self._try_for(call)
        return call.answered

    def _leave(self, call: _Call, _: "asyncio.Future[bytes]") -> None:
        """It is answered, or nobody waits for it any more."""
        self.calls -= 1
        if call.timer is not None:
            call.timer.cancel()
        self._ready.pop(call, None)
        self._overdue.pop(call, None)
        if (waiters := self._tried.get(call.need.issuer_name)) is not None:
            waiters.pop(call, None)

    def _hurry(self, call: _Call) -> None:
        """Its time is up: it is decided now, as one whose need was not fulfilled unless it has been tried."""
        call.is_late = True
        if call in self._ready:
            del self._ready[call]
            self._overdue[call] = self._decided
        else:
            if (waiters := self._tried.get(call.need.issuer_name)) is not None:
                waiters.pop(call, None)
            self._overdue[call] = self._late
        self._go_on()

    def _attempt(self, call: _Call, step: _Step) -> None:
        """Answer with the decision of `step`, if it makes one. Whatever goes wrong on the way is a denial as well."""
        if call.answered.done():
            # cancelled by its client in this turn
            return
        try:
            decision = step(call)
            if decision is None:
                return
            response = call.answer(decision)
        except ENDS:
            raise
        except BaseException as error:  # noqa: BLE001 - a panic of native code is no Exception, and a denial all the same
            response = call.fail(error)
        call.answered.set_result(response)

    def _decided(self, call: _Call) -> Decision | None:
        """The decision now that the need was tried; None when something else is to be tried first."""
        call.unmet |= {call.need}
        call.tries += 1
        call.seen = Examination()
        outcome = authorize(call.facts, self._current.snapshot, self._clock(), call.unmet, call.seen)
        if not isinstance(outcome, Need):
            return outcome
        call.need = outcome
        if call.is_late:
            return self._late(call)
        if call.tries < MAX_NEEDS:
            self._try_for(call)
            return None
        return self._give_up(
            Reason.SIGNING_KEYS_UNAVAILABLE, call, "after each of several fetches another key was lacking"
        )

    def _late(self, call: _Call) -> Decision:
        return self._give_up(Reason.DEADLINE_EXCEEDED, call, "the keys did not come in time")

    def _try_for(self, call: _Call) -> None:
        """Have the call's need tried; then it goes on in its turn."""
        issuer_name = call.need.issuer_name
        waiters = self._tried.get(issuer_name)
        if waiters is None:
            waiters = self._tried[issuer_name] = OrderedDict()
            task = asyncio.create_task(self._try(call.need, waiters))
            self._trying.add(task)
            task.add_done_callback(self._trying.discard)
        waiters[call] = None

    async def _try(self, need: Need, waiters: _Waiters) -> None:
        """Try once for all who wait for the same issuer, also for those who come meanwhile."""
        try:
            await self._keys.fulfil(need, time.monotonic() + LONGEST_FETCH_SECONDS)
        except Exception:
            _logger.exception("keys could not be tried")
        finally:
            del self._tried[need.issuer_name]
            self._ready.update(waiters)
            self._go_on()

    def _go_on(self) -> None:
        if not self._is_resuming:
            self._is_resuming = True
            self._turns.add(self._resume)

    def _resume(self) -> bool:
        """Let the next few go on; whether others are left."""
        try:
            if self._overdue:
                for _ in range(min(LATE_AT_ONCE, len(self._overdue))):
                    self._attempt(*self._overdue.popitem(last=False))
            else:
                for _ in range(min(RESUMED_AT_ONCE, len(self._ready))):
                    self._attempt(self._ready.popitem(last=False)[0], self._decided)
        except BaseException:
            # it ends the loop, or this turn: the others go on as long as there are any turns
            self._is_resuming = False
            self._go_on()
            raise
        self._is_resuming = bool(self._ready or self._overdue)
        return self._is_resuming

    def _give_up(self, reason: Reason, call: _Call, detail: str) -> Deny:
        """Deny with `reason` and with what was seen of the request when it was decided last: no decision is made again."""
        # the name is the configuration's; as the decision's `issuer` stands only that of a verified token
        about = call.seen.diagnostics(f"issuer `{call.need.issuer_name}`: {detail}")
        return self._current.snapshot.denials.deny(reason, diagnostics=about)


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
