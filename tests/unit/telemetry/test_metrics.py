"""Metrics count what was decided and stay bounded."""

import pytest
from prometheus_client import generate_latest

from ext_authz.decision import Allow, Deny, Diagnostics
from ext_authz.errors import Reason
from ext_authz.telemetry import metrics as module
from ext_authz.telemetry.metrics import Metrics


def sample(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry().get_sample_value(name, labels)


def test_decisions_are_counted_by_reason_rule_and_issuer() -> None:
    metrics = Metrics()
    about = Diagnostics(policy="p", rule="r", issuer="corp")
    metrics.check(Allow(Reason.OK, diagnostics=about), 0.00002, waited=False)
    metrics.check(Allow(Reason.OK, diagnostics=about), 0.00002, waited=False)
    metrics.check(Deny(Reason.NO_RULE, 403), 0.3, waited=True)
    assert sample(metrics, "ext_authz_checks_total", decision="allow", reason="ok") == 2
    assert sample(metrics, "ext_authz_checks_total", decision="deny", reason="no_rule") == 1
    assert sample(metrics, "ext_authz_rule_checks_total", decision="allow", policy="p", rule="r") == 2
    assert sample(metrics, "ext_authz_issuer_checks_total", decision="allow", issuer="corp") == 2
    assert sample(metrics, "ext_authz_issuer_checks_total", decision="deny", issuer="") is None


def test_durations_fall_into_cumulative_buckets() -> None:
    metrics = Metrics()
    for seconds in (0.000_025, 0.000_026, 100.0):
        metrics.check(Allow(Reason.OK), seconds, waited=False)
    name = "ext_authz_check_duration_seconds"
    assert sample(metrics, f"{name}_bucket", waited="false", le="2.5e-05") == 1
    assert sample(metrics, f"{name}_bucket", waited="false", le="5e-05") == 2
    assert sample(metrics, f"{name}_bucket", waited="false", le="5.0") == 2
    assert sample(metrics, f"{name}_bucket", waited="false", le="+Inf") == 3
    assert sample(metrics, f"{name}_count", waited="true") == 0


def test_series_beyond_the_bound_keep_only_decision_and_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_SERIES", 3)
    metrics = Metrics()
    for number in range(10):
        metrics.check(Allow(Reason.OK, diagnostics=Diagnostics(policy="p", rule=f"r{number}")), 0.0, waited=False)
    assert sample(metrics, "ext_authz_checks_total", decision="allow", reason="ok") == 10
    assert sample(metrics, "ext_authz_rule_checks_total", decision="allow", policy="p", rule="r2") == 1
    assert sample(metrics, "ext_authz_rule_checks_total", decision="allow", policy="p", rule="r3") is None


def test_reloads_keys_errors_and_drops_are_shown() -> None:
    metrics = Metrics()
    metrics.reload(succeeded=True, now=12.0)
    metrics.reload(succeeded=False, now=13.0)
    metrics.key_fetch("corp", succeeded=False)
    metrics.internal_error()
    metrics.generation = 7
    metrics.waiting = 2
    metrics.log_dropped = lambda: 5
    metrics.key_set_ages = lambda: {"corp": 1.5}
    assert sample(metrics, "ext_authz_reloads_total", result="success") == 1
    assert sample(metrics, "ext_authz_reloads_total", result="failure") == 1
    assert sample(metrics, "ext_authz_configuration_loaded_timestamp_seconds") == 12.0
    assert sample(metrics, "ext_authz_key_fetches_total", issuer="corp", result="failure") == 1
    assert sample(metrics, "ext_authz_key_set_age_seconds", issuer="corp") == 1.5
    assert sample(metrics, "ext_authz_internal_errors_total") == 1
    assert sample(metrics, "ext_authz_configuration_generation") == 7
    assert sample(metrics, "ext_authz_checks_waiting") == 2
    assert sample(metrics, "ext_authz_log_dropped_total") == 5


def test_the_exposition_holds_the_process_too() -> None:
    text = generate_latest(Metrics().registry()).decode()
    assert "process_resident_memory_bytes" in text
    assert "ext_authz_build_info" in text
