"""Runs the scenarios against a stack and prints what came of each."""

import http.client
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass

from ext_authz.demo.caller import Answer, Call, send
from ext_authz.demo.oauth_flow import OAuthFlow
from ext_authz.demo.scenario import Scenario, Stage
from ext_authz.demo.scenarios import SCENARIOS
from ext_authz.demo.stack import Stack

__all__ = ["Outcome", "Tally", "run_scenarios", "run_table"]

_LOG_SECONDS = 3.0
"""How long a decision may take to appear in the log."""

_SHOWN_TARGET = 26
_LINE = "{number:>3}  {title:<54} {request:<35} {expected:>8} {got:>9}  {reason:<34} {latency:>8}  {verdict}"
_COLUMNS = ("request", "expected", "got", "reason", "latency")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one scenario.

    Attributes:
        scenario: which.
        request: method, target and where it went, for people.
        answer: None when there was none.
        decision: what ext-authz logged; None when it was not asked or its log cannot be read.
        complaint: what is not as expected, or None.
    """

    scenario: Scenario
    request: str
    answer: Answer | None
    decision: dict[str, object] | None
    complaint: str | None


@dataclass(frozen=True, slots=True)
class Tally:
    """How many scenarios ended as expected, of how many; as text it is the last line of the demo."""

    good: int
    total: int

    @property
    def all_good(self) -> bool:
        """Whether every one did."""
        return self.good == self.total

    def __str__(self) -> str:
        return f"demo: {self.good}/{self.total} as expected"


class _DecisionLog:
    """The decisions that were logged since the last look."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        lines = stack.decision_log()
        self.is_readable = lines is not None
        self._seen = len(lines or ())

    def decision_on(self, call: Call) -> dict[str, object] | None:
        """The only new decision; None when there is none in time.

        Raises:
            ValueError: it is about another request, or somebody else sends requests too.
        """
        deadline = time.monotonic() + _LOG_SECONDS
        while True:
            lines = self._stack.decision_log() or []
            decisions = [record for record in map(_decision, lines[self._seen :]) if record is not None]
            if decisions:
                self._seen = len(lines)
                if len(decisions) > 1 or decisions[0].get("method") != call.method:
                    raise ValueError("the log holds decisions on other requests")
                return decisions[0]
            if time.monotonic() > deadline:
                return None
            time.sleep(0.01)


def _decision(line: str) -> dict[str, object] | None:
    if not line.startswith("{"):
        return None
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) and record.get("log") == "decision" else None


def run_scenarios(stack: Stack) -> Iterator[tuple[str, Outcome]]:
    """Each scenario's outcome with the heading it belongs under, in order."""
    stage = Stage(stack, OAuthFlow(stack))
    log = _DecisionLog(stack)
    for heading, scenarios in SCENARIOS:
        for scenario in scenarios:
            yield heading, _run(scenario, stage, log)


def _run(scenario: Scenario, stage: Stage, log: _DecisionLog) -> Outcome:
    request, answer, decision = "", None, None
    try:
        call = scenario.request(stage)
        request = f"{call.method} {_shortened(call.target)} @{_listener(call, stage.stack)}"
        answer = send(call, stage.stack.path(stage.stack.ca_file))
        if scenario.reason is not None and log.is_readable:
            decision = log.decision_on(call)
        complaint = _complaint(scenario, answer, decision, has_log=log.is_readable)
    except (OSError, http.client.HTTPException, ValueError, LookupError) as error:
        complaint = f"{type(error).__name__}: {error}"
    return Outcome(scenario, request, answer, decision, complaint)


def _complaint(scenario: Scenario, answer: Answer, decision: dict[str, object] | None, *, has_log: bool) -> str | None:
    if answer.status != scenario.status:
        return f"answered {answer.status}: {answer.body[:200].decode(errors='replace')}"
    if has_log and scenario.reason is not None:
        if decision is None:
            return "no decision was logged"
        if decision.get("reason") != scenario.reason.value:
            return f"the reason is not {scenario.reason.value}"
    return scenario.check(answer) if scenario.check is not None else None


def _shortened(target: str) -> str:
    # a token in a query is nobody's to read, not even here
    path, question, query = target.partition("?")
    target = path + question + (query[:14] + "…" if len(query) > 15 else query)
    return target if len(target) <= _SHOWN_TARGET else target[: _SHOWN_TARGET - 1] + "…"


def _listener(call: Call, stack: Stack) -> str:
    return next(name for name, endpoint in stack.endpoints.items() if endpoint == call.endpoint)


def run_table(stack: Stack) -> Tally:
    """Run the scenarios and print a row for each."""
    print(_LINE.format(**{name: name for name in _COLUMNS}, number="#", title="scenario", verdict="").rstrip())
    total = good = 0
    shown = ""
    for heading, outcome in run_scenarios(stack):
        if heading != shown:
            shown = heading
            print(f"\n     {heading}")
        total += 1
        good += outcome.complaint is None
        print(_row(total, outcome), flush=True)
        if outcome.complaint is not None:
            print(f"     ^ {outcome.complaint}")
            if outcome.decision is not None:
                print(f"       {json.dumps(outcome.decision)}", flush=True)
    print()
    return Tally(good, total)


def _row(number: int, outcome: Outcome) -> str:
    scenario, answer = outcome.scenario, outcome.answer
    return _LINE.format(
        number=number,
        title=scenario.title,
        request=outcome.request,
        expected=scenario.status,
        got="no answer" if answer is None else answer.status,
        reason="-" if outcome.decision is None else str(outcome.decision.get("reason")),
        latency="" if answer is None else f"{answer.seconds * 1000:.1f} ms",
        verdict="ok" if outcome.complaint is None else "NOT AS EXPECTED",
    ).rstrip()
