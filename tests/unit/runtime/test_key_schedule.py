"""When keys are fetched: plain arithmetic on a given time."""

from math import inf
from typing import Any

import pytest

from ext_authz.runtime.key_schedule import FetchSchedule


def schedule(**changes: float) -> FetchSchedule:
    """Refresh 300, stale 1000, cooldown 10, backoff 1 to 60; no jitter."""
    settings: dict[str, Any] = {"interval": 300.0, "stale_after": 1000.0, "cooldown": 10.0}
    settings |= {"backoff": 1.0, "maximum_backoff": 60.0, "random": lambda: 0.0}
    return FetchSchedule(**(settings | changes))


def fetched(at: float) -> FetchSchedule:
    subject = schedule()
    subject.start(at)
    subject.succeed(at)
    return subject


def test_keys_that_were_never_fetched_are_due_and_stale_and_may_be_fetched() -> None:
    subject = schedule()
    assert subject.due_in(0) == 0
    assert subject.stale_in(0) == 0
    assert subject.may_fetch(0)
    assert subject.age(0) is None


def test_fetched_keys_are_due_after_the_interval_and_stale_later() -> None:
    subject = fetched(100)
    assert subject.due_in(100) == 300
    assert subject.due_in(399.5) == 0.5
    assert subject.due_in(400) == 0
    assert subject.stale_in(1099) == 1
    assert subject.stale_in(1100) == 0
    assert subject.age(150) == 50


def test_refreshes_come_early_by_up_to_a_tenth() -> None:
    subject = schedule()
    subject.random = lambda: 1.0
    subject.succeed(0)
    assert subject.due_in(0) == 270


def test_pauses_after_failures_double_up_to_the_maximum() -> None:
    subject = schedule()
    pauses = []
    now = 0.0
    for _ in range(9):
        subject.start(now)
        subject.fail(now)
        pauses.append(subject.due_in(now))
        now += pauses[-1]
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert subject.failures == 9


def test_up_to_half_of_a_pause_is_random() -> None:
    subject = schedule()
    subject.random = lambda: 1.0
    subject.fail(0)
    assert subject.due_in(0) == 0.5


def test_a_thousand_failures_do_not_overflow() -> None:
    subject = schedule()
    subject.failures = 10_000
    subject.fail(0)
    assert subject.due_in(0) == 60


def test_a_success_ends_the_failures() -> None:
    subject = schedule()
    subject.fail(0)
    subject.start(1)
    subject.succeed(1)
    assert subject.failures == 0
    assert subject.due_in(1) == 300


def test_an_unknown_key_waits_for_the_cooldown_of_any_attempt() -> None:
    subject = fetched(100)
    assert not subject.may_fetch(100)
    assert not subject.may_fetch(109.9)
    assert subject.may_fetch(110)
    subject.start(110)
    assert not subject.may_fetch(119)


def test_without_keys_only_a_failure_holds_back() -> None:
    subject = schedule()
    subject.start(0)
    assert subject.may_fetch(0)
    subject.fail(0)
    assert not subject.may_fetch(0.9)
    assert subject.may_fetch(1)


def test_a_failure_with_keys_holds_back_for_both_pause_and_cooldown() -> None:
    subject = fetched(0)
    subject.start(50)
    for _ in range(6):
        subject.fail(50)
    assert subject.due_in(50) == 32
    assert not subject.may_fetch(61)
    assert subject.may_fetch(82)
    patient = fetched(0)
    patient.fail(50)
    assert not patient.may_fetch(52)
    assert patient.may_fetch(60)


def test_keys_that_cannot_change_are_never_due_and_never_stale() -> None:
    subject = schedule(interval=inf, stale_after=inf)
    subject.succeed(0)
    assert subject.due_in(1e12) == inf
    assert subject.stale_in(1e12) == inf


@pytest.mark.parametrize("back", [1.0, 1e6])
def test_a_clock_set_back_neither_blocks_fetching_nor_drops_keys(back: float) -> None:
    subject = fetched(1e7)
    now = 1e7 - back
    assert subject.due_in(now) == 0
    assert subject.may_fetch(now)
    assert subject.stale_in(now) == 1000
    assert subject.age(now) == 0


def test_taken_over_keys_are_due_and_stale_as_before_and_failures_still_hold_back() -> None:
    before = fetched(0)
    before.start(290)
    before.fail(290)
    before.fail(290)
    after = schedule(maximum_backoff=1.5)
    after.adopt(before)
    assert after.stale_in(290) == 710
    assert after.failures == 2
    assert after.due_in(290) == 1.5
    assert not after.may_fetch(299)
    fresh = schedule()
    fresh.adopt(fetched(0))
    assert fresh.due_in(100) == 200
