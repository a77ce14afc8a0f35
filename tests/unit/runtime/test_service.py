"""The service answers whatever happens: a denial in time, never an exception, never more than one line."""

import asyncio
import json
import logging
import time
from collections.abc import Callable, Container
from types import SimpleNamespace
from typing import Any, cast

import pytest
from support.check_requests import check_request

from ext_authz.authorizer import Examination
from ext_authz.decision import Allow, Decision, Diagnostics, Mutations
from ext_authz.denials import Denials, DenialSettings
from ext_authz.errors import Reason
from ext_authz.facts import RequestFacts
from ext_authz.need import KeysNeeded, Need
from ext_authz.policy.compiled import Selection
from ext_authz.runtime import service as module
from ext_authz.runtime import waiting
from ext_authz.runtime.service import CheckService
from ext_authz.runtime.waiting import MAX_NEEDS, margin
from ext_authz.telemetry.decision_log import DecisionLog
from ext_authz.telemetry.line_sink import Line, LineSink
from ext_authz.telemetry.metrics import Metrics
from ext_authz.wire._pb.envoy.service.auth.v3.external_auth_pb2 import CheckResponse

NEED = KeysNeeded("corp", "k1")
DENIALS = Denials(DenialSettings())
Authorize = Callable[..., Decision | Need]


class Collected(LineSink):
    def __init__(self) -> None:
        self.lines: list[Line] = []

    def put(self, line: Line) -> None:
        self.lines.append(line)


class World:
    """A service whose authorizer and key source do what a test says."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, authorize: Authorize, *, may_fetch: bool = True) -> None:
        monkeypatch.setattr(module, "authorize", authorize)
        monkeypatch.setattr(waiting, "authorize", authorize)
        self.snapshot = SimpleNamespace(denials=DENIALS, name="first", id_in_metadata=True)
        self.metrics = Metrics()
        self.sink = Collected()
        self.allowed_to_fetch = may_fetch
        self.fulfilled: list[KeysNeeded] = []
        self.fetch_seconds = 0.0
        self.service = CheckService(
            cast("Any", self),
            self,
            self.metrics,
            DecisionLog(self.sink),
            maximum_message_bytes=100_000,
            default_deadline=0.2,
        )

    def may_fetch(self, need: Need, now: float) -> bool:
        del need, now
        return self.allowed_to_fetch

    async def fulfil(self, need: Need, deadline: float) -> None:
        assert deadline > time.monotonic() - 5
        await asyncio.sleep(self.fetch_seconds)
        self.fulfilled.append(need)

    def check(self, request: bytes, deadline: float | None = None) -> CheckResponse:
        return CheckResponse.FromString(asyncio.run(self._answer(request, deadline)))

    async def _answer(self, request: bytes, deadline: float | None) -> bytes:
        answer = self.service.check(request, deadline)
        return answer if isinstance(answer, bytes) else await answer

    def record(self) -> dict[str, Any]:
        (line,) = self.sink.lines
        fields: dict[str, Any] = json.loads(line.render())
        return fields


def allow(*_: object) -> Decision:
    return Allow(Reason.OK, diagnostics=Diagnostics(policy="p", rule="r"))


def status(response: CheckResponse) -> int:
    assert response.HasField("status")
    return response.denied_response.status.code if response.HasField("denied_response") else 200


def test_a_warm_decision_is_answered_at_once_counted_and_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch, allow)
    answer = world.service.check(check_request(path="/a?b=c"), None)
    assert isinstance(answer, bytes)
    assert CheckResponse.FromString(answer).status.code == 0
    assert world.record()["path"] == "/a"
    sample = world.metrics.registry().get_sample_value
    assert sample("ext_authz_checks_total", {"decision": "allow", "reason": "ok"}) == 1


@pytest.mark.parametrize(
    ("request_bytes", "reason"),
    [
        (b"\xff\xff\xff", "request_malformed"),
        (b"", "request_without_http"),
        (b"\x00" * 100_001, "request_malformed"),
    ],
)
def test_bytes_that_are_no_request_are_denied_and_the_next_request_is_answered(
    monkeypatch: pytest.MonkeyPatch, request_bytes: bytes, reason: str
) -> None:
    world = World(monkeypatch, allow)
    response = world.check(request_bytes)
    assert response.status.code != 0
    assert status(response) == 400
    assert world.record()["reason"] == reason
    assert world.check(check_request()).status.code == 0


def test_an_exception_is_a_denial_logged_once_without_text_of_the_request(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(facts: RequestFacts, *_: object) -> Decision:
        raise KeyError(facts.path)

    world = World(monkeypatch, fail)
    with caplog.at_level(logging.ERROR):
        response = world.check(check_request(path="/s3cret"))
    assert status(response) == 500
    assert response.status.code != 0
    assert [record.getMessage() for record in caplog.records] == ["a check failed and was denied"]
    assert world.record()["reason"] == "internal_error"
    assert world.metrics.registry().get_sample_value("ext_authz_internal_errors_total") == 1


def test_changes_that_cannot_be_written_are_a_denial_in_the_records_too(monkeypatch: pytest.MonkeyPatch) -> None:
    changes = Mutations(set_request_headers=(("x-a", "\ud800"),))
    world = World(monkeypatch, lambda *_: Allow(Reason.OK, changes, diagnostics=Diagnostics(rule="r")))
    assert status(world.check(check_request())) == 500
    assert world.record()["decision"] == "deny"
    assert world.record()["rule"] == "r"
    assert world.record()["reason"] == "internal_error"


def test_a_panic_of_native_code_is_a_denial(monkeypatch: pytest.MonkeyPatch) -> None:
    class PanicException(BaseException):
        pass

    def panic(*_: object) -> Decision:
        raise PanicException

    assert status(World(monkeypatch, panic).check(check_request())) == 500


def test_an_interrupt_ends_the_process_and_is_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> Decision:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        World(monkeypatch, interrupted).check(check_request())


def test_an_exception_is_a_denial_even_when_it_cannot_be_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch, allow)

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError

    monkeypatch.setattr(Metrics, "check", fail)
    assert status(world.check(check_request())) == 500


def test_a_need_is_fulfilled_and_the_decision_is_made_anew_on_the_snapshot_of_then(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[tuple[str, bool]] = []

    def authorize(_: object, snapshot: Any, __: float, unmet: Container[Need], ___: object) -> Decision | Need:
        seen.append((snapshot.name, NEED in unmet))
        if snapshot.name == "first":
            world.snapshot = SimpleNamespace(denials=DENIALS, name="second", id_in_metadata=True)
            return NEED
        assert world.metrics.waiting == 1
        return Allow(Reason.OK)

    world = World(monkeypatch, authorize)
    assert world.check(check_request()).status.code == 0
    assert seen == [("first", False), ("second", True)]
    assert world.fulfilled == [NEED]
    assert world.metrics.waiting == 0
    sample = world.metrics.registry().get_sample_value
    assert sample("ext_authz_check_duration_seconds_count", {"waited": "true"}) == 1


def test_a_need_that_may_not_be_tried_is_decided_without_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    def authorize(_: object, __: object, ___: float, unmet: Container[Need], ____: object) -> Decision | Need:
        return DENIALS.deny(Reason.SIGNING_KEY_UNKNOWN) if NEED in unmet else NEED

    world = World(monkeypatch, authorize, may_fetch=False)
    assert isinstance(world.service.check(check_request(), None), bytes)
    assert world.record()["reason"] == "signing_key_unknown"


@pytest.mark.parametrize("deadline", [None, 0.15])
def test_a_fetch_that_hangs_is_denied_in_time_for_envoy(
    monkeypatch: pytest.MonkeyPatch, deadline: float | None
) -> None:
    def authorize(_: object, __: object, ___: float, ____: object, seen: Examination) -> Need:
        rule: Any = SimpleNamespace(policy="p", name="r")
        seen.selection = Selection(rule, path=cast("Any", None), host="", variables={})
        return NEED

    world = World(monkeypatch, authorize)
    world.fetch_seconds = 30.0
    started = time.monotonic()
    response = world.check(check_request(), None if deadline is None else started + deadline)
    assert time.monotonic() - started < (deadline or 0.2)
    assert status(response) == 503
    assert world.record()["reason"] == "deadline_exceeded"
    assert world.record()["rule"] == "r"
    assert "issuer" not in world.record(), "the token is not verified"
    assert world.record()["detail"] == "issuer `corp`: the keys did not come in time"


def test_a_deadline_that_has_passed_already_is_a_denial(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch, lambda *_: NEED)
    world.fetch_seconds = 30.0
    assert status(world.check(check_request(), time.monotonic() - 1)) == 503
    assert world.record()["reason"] == "deadline_exceeded"


def test_needs_without_end_are_a_denial(monkeypatch: pytest.MonkeyPatch) -> None:
    count = iter(range(100))
    world = World(monkeypatch, lambda *_: KeysNeeded("corp", str(next(count))))
    assert status(world.check(check_request())) == 503
    assert world.record()["reason"] == "signing_keys_unavailable"
    assert len(world.fulfilled) == MAX_NEEDS


def test_an_exception_while_waiting_is_a_denial(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = iter([NEED])
    world = World(monkeypatch, lambda *_: next(calls))
    assert status(world.check(check_request())) == 500
    assert world.metrics.waiting == 0


@pytest.mark.parametrize(("remaining", "kept"), [(0.2, 0.02), (10.0, 0.05), (0.01, 0.005)])
def test_the_margin_is_a_tenth_within_bounds(remaining: float, kept: float) -> None:
    assert margin(remaining) == pytest.approx(kept)
