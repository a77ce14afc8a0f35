"""A decision is exactly one line of printable ASCII, and never a credential."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ext_authz.decision import Allow, Decision, Deny, Diagnostics
from ext_authz.errors import Reason
from ext_authz.facts import RequestFacts
from ext_authz.telemetry.decision_log import MAX_FIELD, MAX_PATH, DecisionLog, json_line, timestamp
from ext_authz.telemetry.line_sink import Line, LineSink

JWT = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhIn0.c2lnbmF0dXJl"


class Collected(LineSink):
    """A sink that keeps the lines."""

    def __init__(self) -> None:
        self.lines: list[Line] = []

    def put(self, line: Line) -> None:
        self.lines.append(line)


def rendered(facts: RequestFacts | None, decision: Decision | None = None) -> str:
    sink = Collected()
    DecisionLog(sink).record(decision or Allow(Reason.OK), facts, 1_795_000_000.25, 0.000_123_4)
    (line,) = sink.lines
    return line.render()


def record(facts: RequestFacts | None, decision: Decision | None = None) -> dict[str, Any]:
    value = json.loads(rendered(facts, decision))
    assert isinstance(value, dict)
    return value


def test_a_denial_says_who_what_why_and_how_long() -> None:
    denial = Deny(
        Reason.BINDING_THUMBPRINT_MISMATCH,
        401,
        diagnostics=Diagnostics(
            policy="billing",
            rule="read",
            issuer="corp",
            subject="alice",
            client_id="site",
            token_id="j1",
            spiffe_id="spiffe://a/b",
            thumbprint=b"\xff" * 32,
            provenance=("x-forwarded-client-cert",),
            detail="the certificate is another one",
        ),
    )
    facts = RequestFacts(method="GET", path="/a?secret=1", host="h.example", source_address="10.0.0.1", request_id="77")
    assert record(facts, denial) == {
        "time": "2026-11-18T11:06:40.250000Z",
        "log": "decision",
        "decision": "deny",
        "reason": "binding_thumbprint_mismatch",
        "http_status": 401,
        "policy": "billing",
        "rule": "read",
        "issuer": "corp",
        "subject": "alice",
        "client_id": "site",
        "token_id": "j1",
        "spiffe_id": "spiffe://a/b",
        "thumbprint": "_" * 42 + "8",
        "provenance": "x-forwarded-client-cert",
        "method": "GET",
        "host": "h.example",
        "path": "/a",
        "source_address": "10.0.0.1",
        "request_id": "77",
        "latency_us": 123,
        "detail": "the certificate is another one",
    }


def test_a_request_that_could_not_be_parsed_has_a_record_too() -> None:
    fields = record(None, Deny(Reason.REQUEST_MALFORMED, 400))
    assert fields["decision"] == "deny"
    assert fields["path"] == ""


def test_allow_decisions_can_be_left_out_and_denials_cannot() -> None:
    sink = Collected()
    log = DecisionLog(sink, allowed=False)
    log.record(Allow(Reason.OK), None, 0.0, 0.0)
    log.record(Deny(Reason.NO_RULE, 403), None, 0.0, 0.0)
    assert [json.loads(line.render())["decision"] for line in sink.lines] == ["deny"]


@pytest.mark.parametrize(
    ("path", "logged"),
    [
        ("/a?access_token=s3cret", "/a"),
        ("/a#access_token=s3cret", "/a"),
        ("/a;token=s3cret", "/a"),
        ("/a%3Faccess_token=s3cret", "/a"),
        ("/a%253faccess_token=s3cret", "/a"),
        ("/a%23s3cret", "/a"),
        ("/a%3bs3cret", "/a"),
        (f"/t/{JWT}/x", "/t/[token]/x"),
        ("", ""),
    ],
)
def test_what_may_hold_a_credential_is_not_logged(path: str, logged: str) -> None:
    assert record(RequestFacts(method="GET", path=path, host="h"))["path"] == logged


def test_user_information_and_tokens_in_other_fields_are_not_logged() -> None:
    facts = RequestFacts(method="GET", path="/", host=f"user:s3cret@{JWT}")
    line = rendered(facts, Deny(Reason.NO_RULE, 403, diagnostics=Diagnostics(subject=JWT, client_id=JWT)))
    assert "s3cret" not in line
    assert "eyJ" not in line


def test_fields_are_bounded() -> None:
    facts = RequestFacts(method="M" * 100_000, path="/" + "p" * 100_000, host="h" * 100_000, request_id="i" * 100_000)
    fields = record(facts, Allow(Reason.OK, diagnostics=Diagnostics(subject="s" * 100_000)))
    assert len(fields["path"]) == MAX_PATH
    assert {len(fields[name]) for name in ("method", "host", "request_id", "subject")} == {MAX_FIELD}


INJECTIONS = '\r\n\x00\x1b[31m\x7f\x85\u2028\u2029\ud800\t"}\n{"decision":"allow"}'


def test_control_characters_are_escaped_and_come_back_whole() -> None:
    line = rendered(RequestFacts(method=INJECTIONS, path="/" + INJECTIONS.replace("\x00", ""), host=INJECTIONS))
    assert line.isascii()
    assert line.isprintable()
    assert json.loads(line)["method"] == INJECTIONS


@given(st.text(), st.text(), st.text())
def test_any_text_gives_one_printable_line(method: str, path: str, host: str) -> None:
    line = rendered(RequestFacts(method=method, path=path, host=host))
    assert line.isprintable()
    assert isinstance(json.loads(line), dict)


def test_a_value_that_json_does_not_know_becomes_its_text() -> None:
    assert json_line({"a": Reason.OK, "b": ValueError("x")}) == '{"a":"ok","b":"x"}'


def test_times_are_rfc_3339_in_utc() -> None:
    assert timestamp(0.0) == "1970-01-01T00:00:00.000000Z"
