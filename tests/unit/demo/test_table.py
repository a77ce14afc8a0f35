"""The table: what counts as expected, and what is said when something is not."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from ext_authz.demo import table
from ext_authz.demo.scenario import Scenario, upstream_saw
from ext_authz.demo.scenarios import SCENARIOS
from ext_authz.demo.serving import Request, Response, serve
from ext_authz.demo.stack import Endpoint, Stack
from ext_authz.demo.upstream import echo
from ext_authz.errors import Reason


class Checked:
    """An upstream in plain text that logs a decision for each request, as ext-authz would."""

    def __init__(self, log: Path) -> None:
        self.log = log
        self.reasons: list[str] = ["ok"]
        self.status = 200

    def answer(self, request: Request) -> Response:
        with self.log.open("a") as file:
            file.write("not a decision\n{broken\n" + json.dumps({"log": "server"}) + "\n")
            for reason in self.reasons:
                file.write(json.dumps({"log": "decision", "reason": reason, "method": request.method}) + "\n")
        response = echo(request)
        return Response(self.status, response.body, response.headers)


@pytest.fixture
def checked(tmp_path: Path) -> Checked:
    (tmp_path / "log").touch()
    return Checked(tmp_path / "log")


@pytest.fixture
def stack(tmp_path: Path, checked: Checked) -> Iterator[Stack]:
    server = serve(checked.answer, "127.0.0.1", 0)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    endpoint = Endpoint("127.0.0.1", server.server_port, "billing.example.com", is_tls=False)
    yield Stack(tmp_path, {"billing": endpoint, "auth": endpoint}, "https://issuer", "ca.pem", {}, "log")
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def only(monkeypatch: pytest.MonkeyPatch) -> Scenario:
    scenario = Scenario(
        "reads",
        lambda stage: stage.call("/invoices?access_token=secret", headers=(("X-Subject", "me"),)),
        200,
        Reason.OK,
        upstream_saw(x_subject="me", x_caller=None),
    )
    monkeypatch.setattr(table, "SCENARIOS", (("Heading", (scenario,)),))
    monkeypatch.setattr(table, "_LOG_SECONDS", 0.1)
    return scenario


@pytest.mark.usefixtures("only")
def test_a_row_says_what_was_asked_and_what_came_of_it(stack: Stack, capsys: pytest.CaptureFixture[str]) -> None:
    tally = table.run_table(stack)
    printed = capsys.readouterr().out
    assert str(tally) == "demo: 1/1 as expected"
    assert tally.all_good
    assert "Heading" in printed
    row = next(line for line in printed.splitlines() if "reads" in line)
    assert "GET /invoices?access_token=s… @billing" in row
    assert row.endswith("ok")


@pytest.mark.usefixtures("only")
@pytest.mark.parametrize(
    "expected",
    [
        (401, ["ok"], "answered 401"),
        (200, ["public_route"], "the reason is not ok"),
        (200, [], "no decision was logged"),
        (200, ["ok", "ok"], "the log holds decisions on other requests"),
    ],
)
def test_a_row_that_is_not_as_expected_says_why(
    stack: Stack,
    checked: Checked,
    capsys: pytest.CaptureFixture[str],
    expected: tuple[int, list[str], str],
) -> None:
    checked.status, checked.reasons, complaint = expected
    tally = table.run_table(stack)
    printed = capsys.readouterr().out
    assert str(tally) == "demo: 0/1 as expected"
    assert "NOT AS EXPECTED" in printed
    assert complaint in printed


def test_an_upstream_that_saw_another_header_is_noticed(
    stack: Stack, monkeypatch: pytest.MonkeyPatch, only: Scenario
) -> None:
    wrong = Scenario(only.title, only.request, 200, Reason.OK, upstream_saw(x_subject="somebody"))
    monkeypatch.setattr(table, "SCENARIOS", (("Heading", (wrong,)),))
    ((_, outcome),) = table.run_scenarios(stack)
    assert outcome.complaint == "upstream saw x-subject: ['me']"


@pytest.mark.usefixtures("only")
def test_a_listener_that_is_not_there_is_no_answer(
    tmp_path: Path, stack: Stack, capsys: pytest.CaptureFixture[str]
) -> None:
    nowhere = Endpoint("127.0.0.1", 1, "billing.example.com", is_tls=False)
    absent = Stack(tmp_path, {"billing": nowhere, "auth": nowhere}, stack.issuer, "ca.pem", {}, "log")
    assert not table.run_table(absent).all_good
    assert "no answer" in capsys.readouterr().out


@pytest.mark.usefixtures("only")
def test_without_a_log_the_status_alone_is_judged(tmp_path: Path, stack: Stack, checked: Checked) -> None:
    checked.reasons = ["public_route"]
    unlogged = Stack(tmp_path, stack.endpoints, stack.issuer, "ca.pem", {})
    ((_, outcome),) = table.run_scenarios(unlogged)
    assert outcome.complaint is None
    assert outcome.decision is None


def test_titles_fit_into_their_column_and_are_unique() -> None:
    titles = [scenario.title for _, scenarios in SCENARIOS for scenario in scenarios]
    assert len(titles) == len(set(titles))
    assert max(map(len, titles)) <= 54
    assert len(titles) >= 18
