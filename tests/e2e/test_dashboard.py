"""A real Prometheus over real servers answers everything that the dashboard and the alerts ask."""

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from dashboard.panels import DASHBOARD, answered
from dashboard.prometheus import Prometheus, prometheus
from dashboard.scene import perform, scene

ALERTS = DASHBOARD.with_name("alerts.yaml")
SECONDS = 24.0
NO_TRACES = {"spans {{result}}"}
"""Legends of what there is only where traces are configured."""

pytestmark = [pytest.mark.slow]


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Prometheus, float]]:
    """After half a minute in which everything happens."""
    if shutil.which("prometheus") is None:
        pytest.skip("prometheus is not installed (Debian: apt-get install prometheus)")
    folder = tmp_path_factory.mktemp("watched")
    with scene(folder, refresh_seconds=2) as played:
        targets = {
            name: server.events("listening")[0]["admin"] for name, server in zip("ab", played.servers, strict=True)
        }
        with prometheus(folder, targets, ALERTS) as asked:
            start = time.time()
            perform(played, SECONDS)
            yield asked, start


def test_every_panel_shows_something(watched: tuple[Prometheus, float]) -> None:
    asked, start = watched
    dashboard = answered(asked, start, start + SECONDS)
    empty = [
        (panel["title"], target["legendFormat"])
        for panel in dashboard["panels"]
        for target in panel.get("targets", ())
        if not target["results"] and target["legendFormat"] not in NO_TRACES
    ]
    assert empty == []
    assert all(annotation["times"] for annotation in dashboard["annotations"]["list"])


def test_the_choices_of_the_dashboard_offer_the_servers(watched: tuple[Prometheus, float]) -> None:
    asked, _ = watched
    answered_once = answered(asked, time.time() - 10, time.time())
    names = [variable["name"] for variable in answered_once["templating"]["list"] if variable["type"] == "query"]
    assert names == ["job", "instance"]
    series = asked.ask("series", **{"match[]": "ext_authz_build_info"})
    assert {one["instance"] for one in series} == {"a", "b"}
    assert {one["job"] for one in series} == {"ext-authz"}


def test_prometheus_judges_by_every_alert(watched: tuple[Prometheus, float]) -> None:
    asked, _ = watched
    (group,) = asked.ask("rules")["groups"]
    wanted: Any = [rule for group in yaml.safe_load(Path(ALERTS).read_text())["groups"] for rule in group["rules"]]
    assert [rule["name"] for rule in group["rules"]] == [rule["alert"] for rule in wanted]
    assert {rule["health"] for rule in group["rules"]} == {"ok"}, group["rules"]
