"""What is told about decisions can be written, and is read as it is written."""

from pathlib import Path

import pytest

from ext_authz.config.load import load
from ext_authz.config.settings import Configuration, TelemetrySettings, TraceSettings
from ext_authz.errors import ConfigurationError


def loaded(folder: Path, text: str) -> Configuration:
    file = folder / "server.yaml"
    file.write_text(f"apiVersion: ext-authz/v1alpha1\nkind: Server\nspec:\n  {text}\n")
    return load(file)


@pytest.mark.parametrize(
    ("written", "ratio"),
    [("all", 1.0), ("none", 0.0), ("true", 1.0), ("false", 0.0), ("0.01", 0.01), ("1", 1.0), ("0.0001", 0.0001)],
)
def test_the_part_of_allow_decisions_that_is_logged(tmp_path: Path, written: str, ratio: float) -> None:
    assert loaded(tmp_path, f"log: {{allowed: {written}}}").log.allowed == ratio


@pytest.mark.parametrize("written", ["some", "0", "-1", "1.5", "[]", '""', "null"])
def test_a_part_that_is_none_is_refused(tmp_path: Path, written: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        loaded(tmp_path, f"log: {{allowed: {written}}}")
    assert "spec.log.allowed" in caught.value.problems[0]


def test_everything_is_told_by_default_and_nothing_is_sent(tmp_path: Path) -> None:
    configuration = loaded(tmp_path, "policies: []")
    assert configuration.telemetry == TelemetrySettings(True, 64, None)
    assert configuration.denials.decision_id


def test_telemetry_is_read(tmp_path: Path) -> None:
    traces = "{endpoint: 'http://c:4318/v1/traces', service_name: s, maximum_per_second: 7, timeout_seconds: 2}"
    written = f"telemetry: {{decision_metadata: false, stage_interval: 0, traces: {traces}}}\n  denials: {{decision_id: false}}"
    configuration = loaded(tmp_path, written)
    expected = TraceSettings("http://c:4318/v1/traces", "s", 7, 2.0)
    assert configuration.telemetry == TelemetrySettings(False, 0, expected)
    assert not configuration.denials.decision_id


def test_a_template_may_have_the_id_and_nothing_unknown(tmp_path: Path) -> None:
    template = loaded(tmp_path, 'denials: {body_template: "${status} ${decision_id}"}').denials.body_template
    assert template == "${status} ${decision_id}"
    with pytest.raises(ConfigurationError):
        loaded(tmp_path, 'denials: {body_template: "${reason}"}')
