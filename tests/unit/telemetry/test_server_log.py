"""The server's log is JSON lines that say what happened and never what a client sent."""

import json
import logging
import warnings
from collections.abc import Iterator

import pytest

from ext_authz.telemetry.line_sink import Line, LineSink
from ext_authz.telemetry.server_log import exception_summary, log_event, start_server_log


class Collected(LineSink):
    def __init__(self) -> None:
        self.lines: list[Line] = []

    def put(self, line: Line) -> None:
        self.lines.append(line)


@pytest.fixture
def sink() -> Iterator[Collected]:
    collected = Collected()
    root = logging.getLogger()
    before = root.level
    handler = start_server_log(collected, "info")
    yield collected
    root.removeHandler(handler)
    root.setLevel(before)


def only_line(sink: Collected) -> dict[str, object]:
    (line,) = sink.lines
    value = json.loads(line.render())
    assert isinstance(value, dict)
    return value


def test_an_event_has_its_fields_as_members(sink: Collected) -> None:
    log_event(logging.getLogger("ext_authz.runtime"), logging.INFO, "listening", address="127.0.0.1:1")
    fields = only_line(sink)
    assert fields["message"] == "listening"
    assert fields["level"] == "info"
    assert fields["address"] == "127.0.0.1:1"
    assert fields["log"] == "server"


def test_our_log_has_the_configured_level_and_libraries_only_warn(sink: Collected) -> None:
    logging.getLogger("ext_authz.x").debug("hidden")
    logging.getLogger("httpx").info("hidden")
    logging.getLogger("httpx").warning("shown")
    assert only_line(sink)["message"] == "shown"


def fail_over(text: str) -> None:
    try:
        int(text)
    except ValueError as error:
        raise KeyError(text) from error


def test_an_exception_is_logged_with_its_stack_and_without_its_message(sink: Collected) -> None:
    try:
        fail_over("s3cret")
    except KeyError:
        logging.getLogger("ext_authz").exception("a check failed")
    fields = only_line(sink)
    assert "s3cret" not in json.dumps(fields)
    assert "builtins.KeyError at" in str(fields["exception"])
    assert "<- builtins.ValueError at" in str(fields["exception"])
    assert "fail_over" in str(fields["exception"])


def test_a_suppressed_context_and_a_loop_of_causes_end_the_summary() -> None:
    first, second = ValueError(), KeyError()
    first.__cause__, second.__cause__ = second, first
    assert exception_summary(first).count("<-") == 1
    third = ValueError()
    third.__context__, third.__suppress_context__ = KeyError(), True
    assert exception_summary(third) == "builtins.ValueError at "


def test_a_record_without_an_exception_being_handled_has_no_exception(sink: Collected) -> None:
    logging.getLogger("ext_authz").error("odd", exc_info=True)  # noqa: LOG014 - the case that is tested
    assert "exception" not in only_line(sink)


def warn(text: str) -> None:
    warnings.warn(text, UserWarning, stacklevel=1)


@pytest.fixture
def default_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.resetwarnings()
        yield


@pytest.mark.usefixtures("default_warnings")
def test_a_library_that_warns_again_and_again_is_told_once_with_its_place_and_without_its_words(
    sink: Collected, capsys: pytest.CaptureFixture[str]
) -> None:
    before = dict(globals().get("__warningregistry__", {}))
    for number in range(1_000):
        warn(f"a client sent {number}")
    fields = only_line(sink)
    assert fields["level"] == "warning"
    assert fields["message"] == "a library warned, and is not told again"
    assert fields["kind"] == "builtins.UserWarning"
    assert str(fields["at"]).startswith(f"{__file__}:")
    assert "a client sent" not in json.dumps(fields)
    assert capsys.readouterr().err == ""
    # nothing that grows with what clients send
    assert globals().get("__warningregistry__", {}).keys() <= before.keys() | {"version"}


@pytest.mark.usefixtures("default_warnings")
def test_each_place_that_warns_is_told(sink: Collected) -> None:
    warn("one")
    warnings.warn("another", UserWarning, stacklevel=1)
    assert len(sink.lines) == 2


def test_what_the_operator_says_of_warnings_goes_before(sink: Collected) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UserWarning):
            warn("as told")
        warnings.simplefilter("ignore")
        warn("as told")
    assert sink.lines == []
