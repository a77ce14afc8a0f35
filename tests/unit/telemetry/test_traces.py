"""Decisions of recorded traces become spans at a collector that decodes what it gets; others cost nothing."""

import itertools
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("opentelemetry.sdk", reason="the extra `otel` is not installed")

from support.otlp_receiver import OtlpReceiver
from support.server import ServerProcess, server_spec

from ext_authz.config.settings import TraceSettings
from ext_authz.decision import Allow, Decision, Deny, Diagnostics
from ext_authz.errors import ConfigurationError, Reason
from ext_authz.runtime import tracing
from ext_authz.telemetry.traces import CheckTraces

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SAMPLED = f"00-{TRACE}-{PARENT}-01"
ID = "0123456789abcdef0123456789abcdef"
TIMES = (0.000_01, 0.000_03, 0.000_04)
ABOUT = Diagnostics(
    policy="billing", rule="read", issuer="corp", subject="alice", token_id="j1", spiffe_id="spiffe://a/b"
)


@pytest.fixture
def receiver() -> Iterator[OtlpReceiver]:
    with OtlpReceiver() as running:
        yield running


def started(receiver: OtlpReceiver, maximum_per_second: int = 100) -> CheckTraces:
    return CheckTraces.over_http(
        receiver.endpoint, service_name="authz", maximum_per_second=maximum_per_second, timeout_seconds=1.0
    )


def test_a_decision_is_a_span_below_the_one_that_called(receiver: OtlpReceiver) -> None:
    traces = started(receiver)
    assert traces.record(SAMPLED, Allow(Reason.OK, diagnostics=ABOUT), ID, TIMES) == TRACE
    traces.close()
    (span,) = receiver.spans
    assert (span.trace_id, span.parent_id, span.kind, span.service) == (TRACE, PARENT, 2, "authz")
    assert span.name == "envoy.service.auth.v3.Authorization/Check"
    assert span.events == ("request parsed", "decided")
    start, *rest = span.times
    assert [time - start for time in rest] == [10_000, 30_000, 40_000]
    assert abs(span.times[-1] / 1e9 - time.time()) < 60
    assert traces.counts() == {"exported": 1, "failed": 0, "limited": 0}
    assert receiver.failures == []


def test_a_span_says_what_was_decided_and_nothing_about_the_caller(receiver: OtlpReceiver) -> None:
    traces = started(receiver)
    traces.record(SAMPLED, Deny(Reason.NO_RULE, 403, diagnostics=ABOUT), ID, TIMES)
    traces.close()
    (span,) = receiver.spans
    own = {name: value for name, value in span.attributes.items() if not name.startswith("rpc.")}
    assert own == {
        "ext_authz.decision": "deny",
        "ext_authz.decision_id": ID,
        "ext_authz.reason": "no_rule",
        "ext_authz.policy": "billing",
        "ext_authz.rule": "read",
        "ext_authz.issuer": "corp",
    }


@pytest.mark.parametrize(
    ("decision", "is_error"),
    [
        (Deny(Reason.NO_RULE, 403), False),
        (Deny(Reason.SIGNING_KEYS_UNAVAILABLE, 503), True),
        (Deny(Reason.INTERNAL_ERROR, 500), True),
        (Allow(Reason.OK), False),
    ],
)
def test_what_is_our_fault_is_an_error_and_a_denial_is_none(
    receiver: OtlpReceiver, decision: Decision, is_error: bool
) -> None:
    traces = started(receiver)
    traces.record(SAMPLED, decision, ID, TIMES)
    traces.close()
    assert [span.is_error for span in receiver.spans] == [is_error]


@pytest.mark.parametrize("traceparent", ["", "nonsense", SAMPLED[:-2] + "00", f"{SAMPLED},{SAMPLED}"])
def test_no_span_is_made_for_a_trace_that_nobody_records(receiver: OtlpReceiver, traceparent: str) -> None:
    traces = started(receiver)
    assert traces.record(traceparent, Allow(Reason.OK), ID, TIMES) == ""
    traces.close()
    assert receiver.spans == []


def test_a_flood_of_recorded_traces_is_limited(receiver: OtlpReceiver) -> None:
    traces = started(receiver, maximum_per_second=5)
    seconds = itertools.chain(itertools.repeat(1_000_000_000, 50), itertools.repeat(2_000_000_000, 3))
    traces._clock = lambda: next(seconds)
    recorded = [traces.record(SAMPLED, Allow(Reason.OK), ID, TIMES) for _ in range(53)]
    traces.close()
    assert recorded.count(TRACE) == 8
    assert traces.counts() == {"exported": 8, "failed": 0, "limited": 45}


@pytest.mark.filterwarnings("ignore")
def test_a_collector_that_refuses_costs_spans_and_nothing_else(receiver: OtlpReceiver) -> None:
    receiver.status = 400
    traces = started(receiver)
    assert traces.record(SAMPLED, Allow(Reason.OK), ID, TIMES) == TRACE
    traces.close()
    assert traces.counts()["failed"] == 1


def test_traces_start_as_configured_and_end_in_time(receiver: OtlpReceiver, monkeypatch: pytest.MonkeyPatch) -> None:
    import asyncio  # noqa: PLC0415

    traces = tracing.start_traces(TraceSettings(receiver.endpoint))
    traces.record(SAMPLED, Allow(Reason.OK), ID, TIMES)
    asyncio.run(tracing.close_traces(traces))
    assert [span.service for span in receiver.spans] == ["ext-authz"]
    monkeypatch.setattr(tracing, "CLOSE_SECONDS", 0.01)
    hanging = tracing.start_traces(TraceSettings(receiver.endpoint))
    monkeypatch.setattr(hanging, "close", lambda: time.sleep(0.2))
    asyncio.run(tracing.close_traces(hanging))
    CheckTraces.close(hanging)


def test_without_the_libraries_the_server_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ext_authz.telemetry.traces", None)
    with pytest.raises(ConfigurationError) as caught:
        tracing.start_traces(TraceSettings("http://127.0.0.1:1/v1/traces"))
    assert "ext-authz[otel]" in caught.value.problems[0]


def test_without_traces_nothing_of_opentelemetry_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPROFILEIMPORTTIME", "1")
    with ServerProcess(tmp_path, server_spec()) as server:
        imported = {line.rpartition("|")[2].strip() for line in server.stderr.splitlines()}
    assert "ext_authz.telemetry.metrics" in imported
    assert not {name for name in imported if name.partition(".")[0] == "opentelemetry"}
