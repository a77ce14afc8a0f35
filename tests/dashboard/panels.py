"""What Grafana asks for a dashboard: its expressions with the variables filled in, and the answers by panel."""

import json
from pathlib import Path
from typing import Any

from dashboard.prometheus import SCRAPE_SECONDS, Prometheus

__all__ = ["COLUMN_PIXELS", "DASHBOARD", "answered"]

DASHBOARD = Path(__file__).parents[2] / "charts" / "ext-authz" / "files" / "dashboard.json"
COLUMN_PIXELS = 64
"""Of Grafana's 24 columns, in our picture; a query has a point for each pixel of its panel, at most one for each scrape."""


def answered(asked: Prometheus, start: float, end: float) -> dict[str, Any]:
    """The dashboard with `results` in every target, and the times of its annotations."""
    dashboard: dict[str, Any] = json.loads(DASHBOARD.read_text())
    for panel in dashboard["panels"]:
        step = max(SCRAPE_SECONDS, (end - start) / (panel["gridPos"]["w"] * COLUMN_PIXELS))
        for target in panel.get("targets", ()):
            query = _filled(target["expr"], start, end, step)
            if target.get("instant"):
                series = asked.ask("query", query=query, time=end)["result"]
                target["results"] = [{"metric": one["metric"], "values": [one["value"]]} for one in series]
            else:
                found = asked.ask("query_range", query=query, start=start, end=end, step=step)
                target["results"] = found["result"]
    for annotation in dashboard["annotations"]["list"]:
        query = _filled(annotation["expr"], start, end, SCRAPE_SECONDS)
        found = asked.ask("query_range", query=query, start=start, end=end, step=SCRAPE_SECONDS)["result"]
        annotation["times"] = sorted(_begins(time for one in found for time, _ in one["values"]))
    for variable in dashboard["templating"]["list"]:
        variable["shown"] = "Prometheus" if variable["type"] == "datasource" else "All"
    return {**dashboard, "start": start, "end": end, "columnPixels": COLUMN_PIXELS}


def _filled(expression: str, start: float, end: float, step: float) -> str:
    """As Grafana fills them in, with "All" for every choice."""
    values = {
        "$__rate_interval": f"{max(step + SCRAPE_SECONDS, 4 * SCRAPE_SECONDS):g}s",
        "$__range": f"{end - start:.0f}s",
        "$job": ".*",
        "$instance": ".*",
    }
    for name, value in values.items():
        expression = expression.replace(name, value)
    return expression


def _begins(times: Any) -> list[float]:
    """The first of each run of times that follow each other, as Grafana joins the points of an annotation."""
    found: list[float] = []
    last = 0.0
    for time in sorted({float(time) for time in times}):
        if time - last > 2 * SCRAPE_SECONDS:
            found.append(time)
        last = time
    return found
