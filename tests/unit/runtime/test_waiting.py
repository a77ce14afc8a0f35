"""Those who wait for one key go on a few at a time, and nobody else waits for them."""

import asyncio
import time
import weakref
from collections.abc import Awaitable, Callable
from functools import partial
from types import SimpleNamespace
from typing import Any, cast

import pytest

from ext_authz.authorizer import Examination
from ext_authz.decision import Allow, Decision
from ext_authz.denials import Denials, DenialSettings
from ext_authz.errors import Reason
from ext_authz.facts import RequestFacts
from ext_authz.need import KeysNeeded, Need
from ext_authz.runtime import waiting as module
from ext_authz.runtime.waiting import LATE_AT_ONCE, RESUMED_AT_ONCE, Undecided, Waiting

FACTS = cast("RequestFacts", None)
SEEN = Examination()
NEED = KeysNeeded("corp", "k1")


def said(decision: Decision) -> bytes:
    """The answer of a decision."""
    return decision.reason.value.encode()


def failed(error: BaseException) -> bytes:
    """The answer of a failure."""
    return f"failed: {type(error).__name__}".encode()


OK = said(Allow(Reason.OK))


class World:
    """Keys that come when a test says, and an authorizer that counts."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "authorize", self.authorize)
        self.snapshot: Any = SimpleNamespace(denials=Denials(DenialSettings()))
        self.come = asyncio.Event()
        self.tried: list[KeysNeeded] = []
        self.fault: Exception | None = None
        self.may = True
        self.decided = 0
        self.lacking: list[Need] = []
        self.waiting = Waiting(self, self, default_deadline=30.0)

    def authorize(
        self, _facts: object, _snapshot: object, _now: float, unmet: frozenset[Need], _seen: object
    ) -> Decision | Need:
        self.decided += 1
        if self.lacking and self.lacking[0] not in unmet:
            return self.lacking[0]
        return Allow(Reason.OK)

    def may_fetch(self, need: Need, now: float) -> bool:
        assert need == NEED
        assert now > 0
        return self.may

    async def fulfil(self, need: Need, deadline: float) -> None:
        del deadline
        self.tried.append(need)
        await self.come.wait()
        if self.fault is not None:
            raise self.fault

    def calls(self, count: int, need: Need = NEED, deadline: float | None = None) -> list["asyncio.Future[bytes]"]:
        return [self.waiting.wait(Undecided(FACTS, SEEN, need), deadline, said, failed) for _ in range(count)]


def run(monkeypatch: pytest.MonkeyPatch, scenario: Callable[[World], Awaitable[None]]) -> None:
    async def whole() -> None:
        await scenario(World(monkeypatch))

    asyncio.run(whole())


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def test_many_who_wait_for_one_issuer_cost_one_try_and_go_on_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(world: World) -> None:
        calls = world.calls(50 * RESUMED_AT_ONCE)
        await turns(3)
        assert world.tried == [NEED]
        assert world.decided == 0
        world.come.set()
        most = before = 0
        while not all(call.done() for call in calls):
            await turns(1)
            most, before = max(most, world.decided - before), world.decided
        assert most == RESUMED_AT_ONCE
        assert world.decided == len(calls)
        assert {call.result() for call in calls} == {OK}

    run(monkeypatch, scenario)


def test_who_comes_while_it_is_tried_waits_with_the_others_and_other_issuers_are_tried_apart(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    other = KeysNeeded("partner", "k1")

    async def scenario(world: World) -> None:
        calls = world.calls(1)
        await turns(3)
        calls += world.calls(1, KeysNeeded("corp", "k2")) + world.calls(1, other)
        await turns(3)
        assert world.tried == [NEED, other]
        world.come.set()
        await asyncio.gather(*calls)
        await asyncio.gather(*world.calls(1))
        assert world.tried == [NEED, other, NEED]

    run(monkeypatch, scenario)


def test_what_is_lacking_after_a_try_is_tried_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(world: World) -> None:
        second = KeysNeeded("corp", "k2")
        world.come.set()
        world.lacking.append(second)
        (call,) = world.calls(1)
        assert await call == OK
        assert world.tried == [NEED, second]

    run(monkeypatch, scenario)


def test_nobody_waits_who_may_not_try_or_for_whom_there_is_no_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "MAX_WAITING", 3)

    async def scenario(world: World) -> None:
        calls = world.calls(3)
        await turns(3)
        assert NEED in world.waiting.futile
        world.come.set()
        await asyncio.gather(*calls)
        assert NEED not in world.waiting.futile
        world.may = False
        assert NEED in world.waiting.futile

    run(monkeypatch, scenario)


def test_who_has_left_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(world: World) -> None:
        calls = world.calls(3 * RESUMED_AT_ONCE)
        await turns(3)
        for call in calls[:-1]:
            call.cancel()
        world.come.set()
        assert await calls[-1] == OK
        assert world.decided == 1
        assert all(call.cancelled() for call in calls[:-1])

    run(monkeypatch, scenario)


def test_a_try_that_fails_is_told_and_keeps_nobody_waiting(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(world: World) -> None:
        world.fault = RuntimeError("broken")
        world.come.set()
        assert await asyncio.gather(*world.calls(2)) == [OK, OK]

    run(monkeypatch, scenario)
    assert [record.getMessage() for record in caplog.records] == ["keys could not be tried"]


def test_keys_of_two_issuers_that_come_at_once_let_all_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(world: World) -> None:
        calls = world.calls(2 * RESUMED_AT_ONCE) + world.calls(2 * RESUMED_AT_ONCE, KeysNeeded("partner", None))
        await turns(3)
        world.come.set()
        await asyncio.gather(*calls)
        assert world.decided == len(calls)

    run(monkeypatch, scenario)


class Panic(BaseException):
    """What native code raises is no Exception."""


@pytest.mark.parametrize("error", [RuntimeError("broken"), Panic()])
def test_whatever_goes_wrong_while_one_is_decided_is_its_answer_and_the_others_go_on(
    monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    async def scenario(world: World) -> None:
        def authorize(*arguments: Any) -> Decision | Need:
            if world.decided == 0:
                world.decided += 1
                raise error
            return world.authorize(*arguments)

        monkeypatch.setattr(module, "authorize", authorize)
        world.come.set()
        first, second = await asyncio.gather(*world.calls(2))
        assert (first, second) == (failed(error), OK)
        await turns(1)
        assert world.waiting.calls == 0

    run(monkeypatch, scenario)


def test_an_answer_that_cannot_be_made_is_one_that_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(world: World) -> None:
        def answer(_: Decision) -> bytes:
            raise KeyError

        world.come.set()
        assert await world.waiting.wait(Undecided(FACTS, SEEN, NEED), None, answer, failed) == b"failed: KeyError"

    run(monkeypatch, scenario)


def test_who_waits_too_long_is_denied_in_time_and_keys_that_come_later_change_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def scenario(world: World) -> None:
        deadline = time.monotonic() + 0.05
        (call,) = world.calls(1, deadline=deadline)
        assert await call == Reason.DEADLINE_EXCEEDED.value.encode()
        assert time.monotonic() < deadline + 1.0
        assert world.decided == 0, "what is known was known when it came"
        assert world.waiting.calls == 0
        world.come.set()
        await turns(5)
        assert world.decided == 0

    run(monkeypatch, scenario)


def test_nobody_waits_whose_time_is_up_already(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(world: World) -> None:
        (call,) = world.calls(1, deadline=time.monotonic() - 1.0)
        assert await call == Reason.DEADLINE_EXCEEDED.value.encode()

    run(monkeypatch, scenario)


def test_a_need_that_never_ends_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(world: World) -> None:
        numbers = iter(range(100))

        def authorize(*_: object) -> Decision | Need:
            return KeysNeeded("corp", f"k{next(numbers)}")

        monkeypatch.setattr(module, "authorize", authorize)
        world.come.set()
        (call,) = world.calls(1)
        assert await call == Reason.SIGNING_KEYS_UNAVAILABLE.value.encode()
        assert len(world.tried) == module.MAX_NEEDS

    run(monkeypatch, scenario)


def test_who_has_left_leaves_nothing_behind_while_the_others_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    class Facts:
        """What is known of a request."""

    async def scenario(world: World) -> None:
        facts = Facts()
        gone = weakref.ref(facts)
        call = world.waiting.wait(Undecided(cast("RequestFacts", facts), SEEN, NEED), None, said, failed)
        others = world.calls(1)
        await turns(2)
        del facts
        assert gone() is not None
        call.cancel()
        await turns(2)
        assert gone() is None
        world.come.set()
        assert await others[0] == OK

    run(monkeypatch, scenario)


def test_many_whose_time_is_up_at_once_are_denied_in_order_and_before_those_who_go_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "margin", lambda _: 0.0)

    async def scenario(world: World) -> None:
        order: list[tuple[str, int]] = []

        def answer(number: int, decision: Decision) -> bytes:
            order.append((decision.reason.value, number))
            return said(decision)

        def calls(count: int, need: Need, deadline: float | None) -> list["asyncio.Future[bytes]"]:
            answers = [partial(answer, number) for number in range(count)]
            return [world.waiting.wait(Undecided(FACTS, SEEN, need), deadline, one, failed) for one in answers]

        count = 3 * LATE_AT_ONCE
        on_time = calls(count, NEED, None)
        await turns(2)
        world.come.set()
        while not order:
            await turns(1)
        world.come.clear()
        begun = len(order)
        late = calls(count, KeysNeeded("partner", None), time.monotonic() - 1.0)
        # their timers are due, and all of them ring in the next turn
        await asyncio.gather(*late)
        denied = [number for reason, number in order if reason == Reason.DEADLINE_EXCEEDED.value]
        assert denied == list(range(count))
        assert len(order) - begun - count <= 4 * RESUMED_AT_ONCE
        await asyncio.gather(*on_time)
        assert len(order) == 2 * count
        world.come.set()

    run(monkeypatch, scenario)


def test_who_lacks_something_else_when_the_time_is_up_does_not_wait_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(world: World) -> None:
        world.lacking.append(KeysNeeded("corp", "k2"))
        calls = world.calls(20)
        await turns(2)
        world.come.set()
        while world.decided == 0:
            await turns(1)
        world.come.clear()
        last = next(reversed(world.waiting._ready))
        world.waiting._hurry(last)  # what its timer does
        assert await calls[-1] == Reason.DEADLINE_EXCEEDED.value.encode()
        for call in calls:
            call.cancel()
        world.come.set()

    run(monkeypatch, scenario)


def test_one_that_ends_the_loop_does_not_keep_the_others_from_going_on(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(world: World) -> None:
        def authorize(*arguments: Any) -> Decision | Need:
            if world.decided == 0:
                world.decided += 1
                raise asyncio.CancelledError
            return world.authorize(*arguments)

        monkeypatch.setattr(module, "authorize", authorize)
        world.come.set()
        _, *others = world.calls(2 + RESUMED_AT_ONCE)
        await turns(10)
        more = world.calls(1)
        assert await asyncio.wait_for(more[0], 5) == OK
        assert await asyncio.wait_for(asyncio.gather(*others), 5) == [OK] * len(others)

    run(monkeypatch, scenario)


def test_who_can_be_decided_when_the_time_is_up_is_decided_first(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(world: World) -> None:
        order: list[int] = []

        def answer(number: int) -> Callable[[Decision], bytes]:
            def remember(decision: Decision) -> bytes:
                order.append(number)
                return said(decision)

            return remember

        calls = [world.waiting.wait(Undecided(FACTS, SEEN, NEED), None, answer(number), failed) for number in range(20)]
        await turns(2)
        world.come.set()
        while not order:
            await turns(1)
        last = next(reversed(world.waiting._ready))
        world.waiting._hurry(last)  # what its timer does
        assert await asyncio.gather(*calls) == [OK] * 20
        assert order.index(19) < 2 * RESUMED_AT_ONCE

    run(monkeypatch, scenario)
