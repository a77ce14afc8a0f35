"""Every expression of the dashboard and of the alerts is right and speaks of what the server exports; and of that, the
reference in the documentation says everything and nothing else."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from ext_authz.cache import CacheCounts
from ext_authz.decision import Allow, Deny, Diagnostics
from ext_authz.errors import Reason
from ext_authz.runtime.workers.member import Member
from ext_authz.runtime.workers.worker_metrics import WorkersCollector
from ext_authz.telemetry.metrics import KeySource, Metrics

ROOT = Path(__file__).parents[3]
FILES = ROOT / "charts" / "ext-authz" / "files"
ALERTS = FILES / "alerts.yaml"
DASHBOARD = json.loads((FILES / "dashboard.json").read_text())
RULES = [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]
DOCUMENT = (ROOT / "docs" / "observability.md").read_text()
SELECTOR = re.compile(r"\b((?:ext_authz|process)_\w+)(?:\{([^}]*)\})?")
ADDED = {"job", "instance", "le"}


def panels() -> list[dict[str, Any]]:
    return [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


def queries() -> list[str]:
    found = [target["expr"] for panel in panels() for target in panel["targets"]]
    return found + [annotation["expr"] for annotation in DASHBOARD["annotations"]["list"]]


def expressions() -> list[str]:
    """Everything that Prometheus is asked, with the dashboard's variables filled in."""
    values = {"$__rate_interval": "1m", "$__range": "1h", "$job": ".*", "$instance": ".*"}
    texts = [rule["expr"] for rule in RULES]
    for query in queries():
        for name, value in values.items():
            query = query.replace(name, value)  # noqa: PLW2901 - filled in step by step
        texts.append(query)
    return texts


def exported() -> dict[str, set[str]]:
    """Names and labels of a registry in which everything has happened once."""
    metrics = Metrics()
    about = Diagnostics(policy="p", rule="r", issuer="corp")
    metrics.check(Allow(Reason.OK, diagnostics=about), 0.1, waited=False)
    metrics.check(Deny(Reason.NO_RULE, 403, diagnostics=about), 0.1, waited=True)
    metrics.stages(0.1, 0.1, 0.1)
    metrics.key_fetch("corp", fault="timed_out")
    metrics.key_sources = lambda: (KeySource("corp", 1.0, 1, 0),)
    metrics.caches = lambda: {"token": CacheCounts(1, 1, 1)}
    metrics.spans = lambda: {"failed": 1}
    names: dict[str, set[str]] = {}
    workers = WorkersCollector(lambda: [Member(1, 1)], {"crashed": 0})
    for family in (*metrics.registry().collect(), *workers.collect()):
        for sample in family.samples:
            names.setdefault(sample.name, set()).update(sample.labels)
    return names


@pytest.mark.parametrize("expression", expressions())
def test_an_expression_speaks_of_what_is_exported(expression: str) -> None:
    names = exported()
    used = SELECTOR.findall(expression)
    assert used
    for name, matchers in used:
        assert name in names, name
        for label in re.findall(r"(\w+)\s*(?:=~|!=|!~|=)", matchers):
            assert label in names[name] | ADDED, (name, label)
    known = set().union(*(names[name] for name, _ in used)) | ADDED
    for labels in re.findall(r"\bby \(([^)]*)\)", expression):
        assert set(re.split(r",\s*", labels)) <= known, labels


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_annotation_speaks_of_labels_that_its_alert_has(rule: dict[str, Any]) -> None:
    kept = set(re.split(r",\s*", ", ".join(re.findall(r"\bby \(([^)]*)\)", rule["expr"]))))
    for label in re.findall(r"\$labels\.(\w+)", json.dumps(rule["annotations"])):
        assert label in kept


@pytest.mark.parametrize("panel", panels(), ids=lambda panel: panel["title"])
def test_the_legend_of_a_panel_names_labels_that_its_query_keeps(panel: dict[str, Any]) -> None:
    for target in panel["targets"]:
        kept = ", ".join(re.findall(r"\bby \(([^)]*)\)", target["expr"]))
        for label in re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]):
            assert label in re.split(r",\s*", kept)


def test_panels_do_not_overlap_and_have_numbers_of_their_own() -> None:
    taken: dict[tuple[int, int], str] = {}
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert taken.setdefault((x, y), panel["title"]) == panel["title"]
    numbers = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(numbers)) == len(numbers)


def test_the_reference_of_metrics_is_what_is_exported() -> None:
    rows = re.findall(r"^\| `(ext_authz_\w+)` \| (\w+) \|([^|]*)\|", DOCUMENT, re.MULTILINE)
    written = {name: (kind, set(re.findall(r"`(\w+)`", labels))) for name, kind, labels in rows}
    names = exported()
    shown = {
        re.sub(r"_(bucket|count|sum)$", "", name): labels - {"le"}
        for name, labels in names.items()
        if name.startswith("ext_authz_")
    }
    assert {name: labels for name, (_, labels) in written.items()} == shown
    for name, (kind, _) in written.items():
        assert (kind == "counter") == name.endswith("_total")
        assert (kind == "histogram") == (f"{name}_bucket" in names)


def test_every_alert_is_explained() -> None:
    section = DOCUMENT.partition("## Alerts")[2]
    assert re.findall(r"^\| `(\w+)`", section, re.MULTILINE) == [rule["alert"] for rule in RULES]


@pytest.fixture(scope="module")
def promtool() -> str:
    path = shutil.which("promtool")
    if path is None:
        pytest.skip("promtool is not installed (Debian: apt-get install prometheus)")
    return path


def run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_prometheus_takes_the_alerts(promtool: str) -> None:
    run(promtool, "check", "rules", str(ALERTS))


def test_prometheus_parses_every_expression(promtool: str, tmp_path: Path) -> None:
    rules = [{"record": f"expression:{number}", "expr": text} for number, text in enumerate(expressions())]
    file = tmp_path / "rules.yaml"
    file.write_text(json.dumps({"groups": [{"name": "all", "rules": rules}]}))
    run(promtool, "check", "rules", str(file))


def series(name: str, values: str, **labels: str) -> dict[str, str]:
    pairs = ",".join(f'{label}="{value}"' for label, value in {"job": "authz", "instance": "a:9001", **labels}.items())
    return {"series": f"{name}{{{pairs}}}", "values": values}


UP = series("ext_authz_build_info", "1+0x60", version="1")
QUIET = [
    UP,
    series("ext_authz_configuration_reload_failed", "0+0x60"),
    series("ext_authz_internal_errors_total", "3+0x60"),
    series("ext_authz_connections_refused_total", "2+0x60"),
    series("ext_authz_worker_restarts_total", "4+0x60", reason="crashed"),
    series("ext_authz_worker_restarts_total", "0+1x60", reason="left"),
    series("ext_authz_checks_total", "0+600x60", decision="allow", reason="ok"),
    series("ext_authz_checks_total", "0+200x60", decision="deny", reason="no_rule"),
    series("ext_authz_checks_total", "7+0x60", decision="deny", reason="deadline_exceeded"),
    series("ext_authz_check_duration_seconds_bucket", "0+600x60", waited="false", le="0.005"),
    series("ext_authz_check_duration_seconds_bucket", "0+600x60", waited="false", le="+Inf"),
    series("ext_authz_key_source_state", "1+0x60", issuer="corp", state="serving"),
    series("ext_authz_key_source_state", "0+0x60", issuer="corp", state="failing"),
    series("ext_authz_key_source_state", "0+0x60", issuer="corp", state="unavailable"),
    series("ext_authz_key_set_age_seconds", "0+60x60", issuer="corp"),
    series("ext_authz_log_dropped_total", "5+0x60"),
    series("ext_authz_spans_total", "9+0x60", result="failed"),
]
FIRING: dict[str, tuple[list[dict[str, str]], dict[str, str]]] = {
    "ExtAuthzAbsent": ([series("up", "0+0x60")], {}),
    "ExtAuthzReloadFailed": (
        [UP, series("ext_authz_configuration_reload_failed", "0x5 1+0x60")],
        {"job": "authz", "instance": "a:9001"},
    ),
    "ExtAuthzInternalErrors": ([UP, series("ext_authz_internal_errors_total", "0+1x60")], {"job": "authz"}),
    "ExtAuthzMostlyDenied": (
        [
            UP,
            series("ext_authz_checks_total", "0+600x60", decision="allow", reason="ok"),
            series("ext_authz_checks_total", "0+601x60", decision="deny", reason="no_rule"),
        ],
        {"job": "authz"},
    ),
    "ExtAuthzCannotDecide": (
        [UP, series("ext_authz_checks_total", "0+2x60", decision="deny", reason="signing_keys_unavailable")],
        {"job": "authz"},
    ),
    "ExtAuthzSlow": (
        [
            UP,
            series("ext_authz_check_duration_seconds_bucket", "0+500x60", waited="false", le="0.05"),
            series("ext_authz_check_duration_seconds_bucket", "0+600x60", waited="false", le="0.1"),
            series("ext_authz_check_duration_seconds_bucket", "0+600x60", waited="false", le="+Inf"),
        ],
        {"job": "authz"},
    ),
    "ExtAuthzConnectionsRefused": (
        [UP, series("ext_authz_connections_refused_total", "0+1x60")],
        {"job": "authz", "instance": "a:9001"},
    ),
    "ExtAuthzWorkersReplaced": (
        [UP, series("ext_authz_worker_restarts_total", "0+1x60", reason="crashed")],
        {"job": "authz", "instance": "a:9001"},
    ),
    "ExtAuthzKeysUnavailable": (
        [UP, series("ext_authz_key_source_state", "1+0x60", issuer="corp", state="unavailable")],
        {"job": "authz", "issuer": "corp"},
    ),
    "ExtAuthzKeysNotRefreshed": (
        [UP, series("ext_authz_key_source_state", "1+0x60", issuer="corp", state="failing")],
        {"job": "authz", "issuer": "corp"},
    ),
    "ExtAuthzKeysOld": (
        [UP, series("ext_authz_key_set_age_seconds", "43000+60x60", issuer="corp")],
        {"job": "authz", "issuer": "corp"},
    ),
    "ExtAuthzLogLost": (
        [UP, series("ext_authz_log_dropped_total", "0+5x60")],
        {"job": "authz", "instance": "a:9001"},
    ),
    "ExtAuthzSpansLost": ([UP, series("ext_authz_spans_total", "0+5x60", result="failed")], {"job": "authz"}),
}


def test_there_is_a_case_for_every_alert() -> None:
    assert list(FIRING) == [rule["alert"] for rule in RULES]


def test_each_alert_fires_when_it_should_and_all_are_quiet_when_all_is_well(promtool: str, tmp_path: Path) -> None:
    def case(inputs: list[dict[str, str]], expected: dict[str, dict[str, str] | None]) -> dict[str, Any]:
        return {
            "interval": "1m",
            "input_series": inputs,
            "alert_rule_test": [
                {
                    "eval_time": "50m",
                    "alertname": name,
                    "exp_alerts": [] if labels is None else [{"exp_labels": labels}],
                }
                for name, labels in expected.items()
            ],
        }

    # without annotations: their text is the rule's, with numbers in it
    bare = [{key: value for key, value in rule.items() if key != "annotations"} for rule in RULES]
    (tmp_path / "alerts.yaml").write_text(json.dumps({"groups": [{"name": "ext-authz", "rules": bare}]}))
    severity = {rule["alert"]: rule["labels"] for rule in RULES}
    tests = [case(QUIET, dict.fromkeys(FIRING))]
    for name, (inputs, labels) in FIRING.items():
        tests.append(case(inputs, {name: {**labels, **severity[name]}}))
    file = tmp_path / "tests.yaml"
    file.write_text(json.dumps({"rule_files": ["alerts.yaml"], "evaluation_interval": "1m", "tests": tests}))
    run(promtool, "test", "rules", str(file))
