"""Allow decisions can be sampled; denials are always logged, and what joins them with other records is there."""

import json
import random
from typing import Any

import pytest

from ext_authz.decision import Allow, Deny
from ext_authz.errors import Reason
from ext_authz.facts import Headers, RequestFacts
from ext_authz.telemetry.decision_id import decision_ids
from ext_authz.telemetry.decision_log import MAX_FIELD, DecisionLog
from ext_authz.telemetry.line_sink import Line, LineSink

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
ID = "0123456789abcdef0123456789abcdef"


class Collected(LineSink):
    def __init__(self) -> None:
        self.lines: list[Line] = []

    def put(self, line: Line) -> None:
        self.lines.append(line)

    def records(self) -> list[dict[str, Any]]:
        return [json.loads(line.render()) for line in self.lines]


def record(headers: Headers, traceparent: str | None = None) -> dict[str, Any]:
    sink = Collected()
    facts = RequestFacts(method="GET", path="/", host="h", headers=headers)
    DecisionLog(sink).record(Allow(Reason.OK), facts, 0.0, 0.0, decision_id=ID, traceparent=traceparent)
    return sink.records()[0]


@pytest.mark.parametrize(
    ("ratio", "least", "most"), [(0.0, 0, 0), (0.1, 900, 1_100), (0.5, 4_800, 5_200), (1.0, 10_000, 10_000)]
)
def test_the_part_of_the_allowed_is_logged_and_every_denial(ratio: float, least: int, most: int) -> None:
    sink = Collected()
    log = DecisionLog(sink, allowed=ratio)
    new_id = decision_ids(random.Random(3).getrandbits)
    for _ in range(10_000):
        log.record(Allow(Reason.OK), None, 0.0, 0.0, decision_id=new_id())
    allowed = len(sink.lines)
    assert least <= allowed <= most
    for _ in range(100):
        log.record(Deny(Reason.NO_RULE, 403), None, 0.0, 0.0, decision_id=new_id())
    assert len(sink.lines) == allowed + 100


def test_a_line_of_a_sample_says_so_and_a_denial_does_not() -> None:
    sink = Collected()
    log = DecisionLog(sink, allowed=0.25)
    log.record(Allow(Reason.OK), None, 0.0, 0.0, decision_id="3" + "f" * 31)
    log.record(Allow(Reason.OK), None, 0.0, 0.0, decision_id="4" + "0" * 31)
    log.record(Deny(Reason.NO_RULE, 403), None, 0.0, 0.0, decision_id="f" * 32)
    allowed, denied = sink.records()
    assert (allowed["decision_id"][0], allowed["sample"]) == ("3", 0.25)
    assert "sample" not in denied


def test_the_sample_can_be_changed_while_it_runs() -> None:
    sink = Collected()
    log = DecisionLog(sink, allowed=0)
    log.record(Allow(Reason.OK), None, 0.0, 0.0, decision_id=ID)
    log.allowed = 1.0
    log.record(Allow(Reason.OK), None, 0.0, 0.0, decision_id=ID)
    assert len(sink.lines) == 1
    assert log.allowed == 1.0


def test_the_ids_that_others_know_the_request_by_are_there() -> None:
    headers = Headers.merged(
        {"x-request-id": "51b31fc3-6005-45d3-99d8-0bb3b6130481", "traceparent": f"00-{TRACE}-00f067aa0ba902b7-00"}
    )
    fields = record(headers)
    assert fields["decision_id"] == ID
    assert fields["x_request_id"] == "51b31fc3-6005-45d3-99d8-0bb3b6130481"
    assert fields["trace_id"] == TRACE


def test_the_trace_of_the_call_counts_before_that_of_the_request() -> None:
    headers = Headers.merged({"traceparent": f"00-{TRACE}-00f067aa0ba902b7-00"})
    assert record(headers, f"00-{'a' * 32}-00f067aa0ba902b7-00")["trace_id"] == "a" * 32


@pytest.mark.parametrize(
    ("value", "logged"),
    [
        ("", None),
        ("x" * 100_000, "x" * MAX_FIELD),
        ('a"\r\n{"decision":"allow"}', 'a"\r\n{"decision":"allow"}'),
        ("eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhIn0.c2ln", "[token]"),
    ],
)
def test_what_a_client_may_choose_is_bounded_escaped_and_no_token(value: str, logged: str | None) -> None:
    assert record(Headers.merged({"x-request-id": value, "traceparent": value})).get("x_request_id") == logged


def test_headers_that_are_not_text_are_left_out() -> None:
    fields = record(Headers.raw([("x-request-id", b"\xff"), ("traceparent", b"\xff")]))
    assert "x_request_id" not in fields
    assert "trace_id" not in fields
