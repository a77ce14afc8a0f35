"""Metrics count what was decided and stay bounded."""

import pytest
from prometheus_client import generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as openmetrics

from ext_authz.cache import CacheCounts
from ext_authz.decision import Allow, Deny, Diagnostics
from ext_authz.errors import Reason
from ext_authz.telemetry import metrics as module
from ext_authz.telemetry.metrics import KeySource, Metrics


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
    metrics.key_fetch("corp", fault="timed_out")
    metrics.key_fetch("corp")
    metrics.internal_error()
    metrics.generation = 7
    metrics.waiting = 2
    metrics.log_dropped = lambda: 5
    metrics.key_sources = lambda: (KeySource("corp", 1.5, 2, 1), KeySource("lost", None, 0, 4))
    metrics.caches = lambda: {"token": CacheCounts(3, 20, 10)}
    metrics.spans = lambda: {"limited": 6}
    assert sample(metrics, "ext_authz_reloads_total", result="success") == 1
    assert sample(metrics, "ext_authz_reloads_total", result="failure") == 1
    assert sample(metrics, "ext_authz_configuration_loaded_timestamp_seconds") == 12.0
    assert sample(metrics, "ext_authz_key_fetches_total", issuer="corp", result="failure") == 1
    assert sample(metrics, "ext_authz_configuration_reload_failed") == 1
    assert sample(metrics, "ext_authz_key_fetch_faults_total", issuer="corp", fault="timed_out") == 1
    assert sample(metrics, "ext_authz_key_set_age_seconds", issuer="corp") == 1.5
    assert sample(metrics, "ext_authz_key_set_age_seconds", issuer="lost") is None
    assert sample(metrics, "ext_authz_key_set_keys", issuer="corp") == 2
    assert sample(metrics, "ext_authz_key_source_failures", issuer="lost") == 4
    assert sample(metrics, "ext_authz_cache_entries", cache="token") == 3
    assert sample(metrics, "ext_authz_cache_hits_total", cache="token") == 20
    assert sample(metrics, "ext_authz_cache_misses_total", cache="token") == 10
    assert sample(metrics, "ext_authz_spans_total", result="limited") == 6
    assert sample(metrics, "ext_authz_internal_errors_total") == 1
    assert sample(metrics, "ext_authz_configuration_generation") == 7
    assert sample(metrics, "ext_authz_checks_waiting") == 2
    assert sample(metrics, "ext_authz_log_dropped_total") == 5


@pytest.mark.parametrize(
    ("source", "state"),
    [
        (KeySource("corp", 1.0, 1, 0), "serving"),
        (KeySource("corp", 1.0, 1, 2), "failing"),
        (KeySource("corp", None, 0, 2), "unavailable"),
    ],
)
def test_the_keys_of_an_issuer_are_in_exactly_one_state(source: KeySource, state: str) -> None:
    metrics = Metrics()
    metrics.key_sources = lambda: (source,)
    states = ("serving", "failing", "unavailable")
    found = {name: sample(metrics, "ext_authz_key_source_state", issuer="corp", state=name) for name in states}
    assert found == {name: float(name == state) for name in states}


def test_a_reload_that_succeeds_ends_the_failure() -> None:
    metrics = Metrics()
    metrics.reload(succeeded=False, now=1.0)
    metrics.reload(succeeded=True, now=2.0)
    assert sample(metrics, "ext_authz_configuration_reload_failed") == 0


def test_stages_are_observed_apart() -> None:
    metrics = Metrics()
    metrics.stages(0.000_004, 0.000_02, 0.000_001)
    name = "ext_authz_check_stage_duration_seconds"
    assert sample(metrics, f"{name}_bucket", stage="parse", le="2e-06") == 0
    assert sample(metrics, f"{name}_bucket", stage="parse", le="5e-06") == 1
    assert sample(metrics, f"{name}_sum", stage="authorize") == pytest.approx(0.000_02)
    assert sample(metrics, f"{name}_count", stage="serialize") == 1


def test_a_bucket_shows_its_last_decision_to_who_asks_for_openmetrics() -> None:
    metrics = Metrics()
    first, last = "0" * 31 + "1", "0" * 31 + "2"
    metrics.check(Allow(Reason.OK), 0.000_03, waited=False, decision_id=first, trace_id="", now=7.5)
    metrics.check(Allow(Reason.OK), 0.000_04, waited=False, decision_id=last, trace_id="c" * 32, now=8.5)
    metrics.check(Allow(Reason.OK), 0.3, waited=True, decision_id=first, trace_id="", now=9.5)
    metrics.check(Allow(Reason.OK), 3.0, waited=False)
    text = openmetrics(metrics.registry()).decode()  # type: ignore[no-untyped-call]  # as prometheus_client has it
    shown = {line.split(" # ")[0].split("{")[1]: line.split(" # ")[1] for line in text.splitlines() if " # {" in line}
    assert shown == {
        'le="5e-05",waited="false"} 2.0': f'{{decision_id="{last}",trace_id="{"c" * 32}"}} 4e-05 8.5',
        'le="0.5",waited="true"} 1.0': f'{{decision_id="{first}"}} 0.3 9.5',
    }
    assert " # {" not in generate_latest(metrics.registry()).decode()


def test_the_exposition_holds_the_process_too() -> None:
    text = generate_latest(Metrics().registry()).decode()
    assert "process_resident_memory_bytes" in text
    assert "ext_authz_build_info" in text
