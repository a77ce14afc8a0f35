"""Each decision has one id, in everything that is told about it."""

import asyncio
import json
from collections.abc import Container
from types import SimpleNamespace
from typing import Any, cast

import grpc
import pytest
from support.check_requests import check_request

from ext_authz.config.settings import Configuration, ListenerSettings, TelemetrySettings, TraceSettings
from ext_authz.decision import Allow, Decision, Mutations
from ext_authz.denials import Denials, DenialSettings
from ext_authz.errors import Reason
from ext_authz.need import KeysNeeded, Need
from ext_authz.runtime import service as module
from ext_authz.runtime import waiting
from ext_authz.runtime.grpc_transport import GrpcTransport
from ext_authz.runtime.health import Health
from ext_authz.runtime.reload import restart_needed
from ext_authz.runtime.service import CheckService
from ext_authz.telemetry.decision_log import DecisionLog
from ext_authz.telemetry.line_sink import Line, LineSink
from ext_authz.telemetry.metrics import Metrics
from ext_authz.wire._pb.envoy.service.auth.v3.external_auth_pb2 import CheckResponse

DENIALS = Denials(DenialSettings())
TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
OTHER = TRACEPARENT.replace("4bf9", "5bf9")


class Collected(LineSink):
    def __init__(self) -> None:
        self.lines: list[Line] = []

    def put(self, line: Line) -> None:
        self.lines.append(line)


class World:
    """A service that decides as a test says, and everything it tells."""

    def __init__(
        self,
        monkeypatch: pytest.MonkeyPatch,
        outcome: Decision | Need | Exception,
        *,
        metadata: bool = True,
        **options: Any,
    ) -> None:
        def authorize(_: object, __: object, ___: float, unmet: Container[Need], ____: object) -> Decision | Need:
            if isinstance(outcome, Exception):
                raise outcome
            return Allow(Reason.OK) if isinstance(outcome, Need) and outcome in unmet else outcome

        monkeypatch.setattr(module, "authorize", authorize)
        monkeypatch.setattr(waiting, "authorize", authorize)
        self.snapshot = SimpleNamespace(denials=DENIALS, id_in_metadata=metadata)
        self.metrics = Metrics()
        self.sink = Collected()
        self.traced: list[tuple[Any, ...]] = []
        self.service = CheckService(
            cast("Any", self),
            self,
            self.metrics,
            DecisionLog(self.sink),
            maximum_message_bytes=100_000,
            default_deadline=0.2,
            random_bits=lambda _: 0xAB,
            **options,
        )

    def may_fetch(self, *_: object) -> bool:
        return True

    async def fulfil(self, *_: object) -> None:
        """Nothing is fetched."""

    def record(self, *arguments: Any) -> str:
        """As `Traces.record`."""
        self.traced.append(arguments)
        return "a" * 32

    def check(self, request: bytes | None = None, traceparent: str | None = None) -> CheckResponse:
        return CheckResponse.FromString(asyncio.run(self._answer(request or check_request(), traceparent)))

    async def _answer(self, request: bytes, traceparent: str | None) -> bytes:
        answer = self.service.check(request, None, traceparent)
        return answer if isinstance(answer, bytes) else await answer

    @property
    def logged(self) -> dict[str, Any]:
        (line,) = self.sink.lines
        fields: dict[str, Any] = json.loads(line.render())
        return fields


ID = "0" * 30 + "ab"


@pytest.mark.parametrize(
    ("outcome", "request_bytes"),
    [
        (Allow(Reason.OK), None),
        (DENIALS.deny(Reason.NO_RULE), None),
        (Allow(Reason.OK), b"\xff\xff\xff"),
        (KeysNeeded("corp", "k1"), None),
        (KeyError("x"), None),
        (Allow(Reason.OK, Mutations(set_request_headers=(("x-a", "\ud800"),))), None),
    ],
    ids=["allowed", "denied", "unreadable", "waited", "failed", "unwritable"],
)
def test_the_id_is_in_metadata_body_and_log(
    monkeypatch: pytest.MonkeyPatch, outcome: Decision | Need | Exception, request_bytes: bytes | None
) -> None:
    world = World(monkeypatch, outcome)
    response = world.check(request_bytes)
    told = {name: value.string_value for name, value in response.dynamic_metadata.fields.items()}
    assert told == {"decision_id": ID, "reason": world.logged["reason"]}
    assert world.logged["decision_id"] == ID
    if response.status.code:
        assert json.loads(response.denied_response.body)["decision_id"] == ID


def test_metadata_can_be_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(monkeypatch, DENIALS.deny(Reason.NO_RULE), metadata=False)
    response = world.check()
    assert not response.HasField("dynamic_metadata")
    assert ID in response.denied_response.body
    assert world.logged["decision_id"] == ID


@pytest.mark.parametrize(("interval", "measured"), [(0, 0), (1, 9), (4, 2)])
def test_the_stages_of_one_decision_in_so_many_are_measured(
    monkeypatch: pytest.MonkeyPatch, interval: int, measured: int
) -> None:
    world = World(monkeypatch, Allow(Reason.OK), stage_interval=interval)
    for _ in range(9):
        world.check()
    name = "ext_authz_check_stage_duration_seconds_count"
    for stage in ("parse", "authorize", "serialize"):
        assert world.metrics.registry().get_sample_value(name, {"stage": stage}) == measured


@pytest.mark.parametrize(
    ("request_bytes", "of_call", "used"),
    [
        (check_request(headers={"traceparent": OTHER}), TRACEPARENT, TRACEPARENT),
        (check_request(headers={"traceparent": OTHER}), None, OTHER),
        (check_request(), None, ""),
        (check_request(raw_headers=[("traceparent", b"\xff")]), None, ""),
        (b"\xff\xff\xff", None, ""),
    ],
)
def test_the_trace_of_the_call_is_continued_before_that_of_the_request(
    monkeypatch: pytest.MonkeyPatch, request_bytes: bytes, of_call: str | None, used: str
) -> None:
    recorder = World(monkeypatch, Allow(Reason.OK))
    world = World(monkeypatch, Allow(Reason.OK), traces=recorder)
    world.check(request_bytes, of_call)
    ((traceparent, decision, decision_id, times),) = recorder.traced
    assert (traceparent, decision.reason.value, decision_id) == (used, world.logged["reason"], ID)
    assert list(times) == sorted(times)
    assert world.logged.get("trace_id") == (used.split("-")[1] if used else None)


def test_the_transport_hands_on_the_trace_of_the_call_when_it_is_asked_to() -> None:
    seen: list[str | None] = []

    def check(request: bytes, deadline: float | None, traceparent: str | None = None) -> bytes:
        del request, deadline
        seen.append(traceparent)
        return b""

    async def scenario() -> None:
        for reads in (True, False):
            transport = GrpcTransport(ListenerSettings(address="127.0.0.1:0"), check, Health(), reads_traceparent=reads)
            async with grpc.aio.insecure_channel(await transport.start()) as channel:
                call = channel.unary_unary("/envoy.service.auth.v3.Authorization/Check", None, None)
                for metadata in ((("traceparent", TRACEPARENT),), ()):
                    await call(b"", metadata=metadata)
            await transport.drain(0)

    asyncio.run(scenario())
    assert seen == [TRACEPARENT, None, None, None]


@pytest.mark.parametrize(
    ("telemetry", "sections"),
    [
        (TelemetrySettings(decision_metadata=False), ()),
        (TelemetrySettings(stage_interval=1), ("telemetry",)),
        (TelemetrySettings(traces=TraceSettings("http://a/v1/traces")), ("telemetry",)),
    ],
)
def test_what_of_the_telemetry_counts_only_after_a_restart(
    telemetry: TelemetrySettings, sections: tuple[str, ...]
) -> None:
    def configuration(settings: TelemetrySettings) -> Configuration:
        empty: Any = None
        return Configuration(empty, empty, empty, {}, (), (), telemetry=settings)

    started, now = configuration(TelemetrySettings()), configuration(telemetry)
    started, now = (_with_listener(value) for value in (started, now))
    assert restart_needed(started, now) == sections


def _with_listener(configuration: Configuration) -> Configuration:
    from dataclasses import replace  # noqa: PLC0415

    return replace(configuration, listener=ListenerSettings())
