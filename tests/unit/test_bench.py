"""The benchmarks themselves: that they run, and that what they write has the shape that readers rely on."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

ROOT = Path(__file__).resolve().parents[2]
ENGINE = {"warm_decision_us", "cold_token_overhead_us", "route_scaling_ratio", "raw_verify_us", "warm_service_us"}
VERDICT = {"figure", "bound", "unit", "what", "at_least", "value", "met"}
FIGURE = {"section", "name", "value", "unit", "command", "low", "high", "samples", "note"}

pytestmark = pytest.mark.slow


def run_module(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", name, *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=110, check=True)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    output = tmp_path_factory.mktemp("bench") / "results.json"
    done = run_module("bench.run", "--quick", "--effort", "smoke", "--output", str(output))
    return output, done.stdout


@pytest.fixture
def document(results: tuple[Path, str]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(results[0].read_text())
    return found


def test_the_quick_run_measures_the_engine_and_says_what_it_ran_on(document: dict[str, Any]) -> None:
    assert document["format"] == 1
    assert {figure["name"] for figure in document["figures"]} >= ENGINE
    assert document["machine"]["cores"] >= 1
    assert document["versions"]["python"].startswith("CPython ")
    assert document["run"]["command"].startswith("python -m bench.run --quick")
    assert document["run"]["effort"] == "smoke"


def test_every_figure_names_its_command_and_its_spread_encloses_it(document: dict[str, Any]) -> None:
    for figure in document["figures"]:
        assert figure.keys() == FIGURE
        assert figure["command"] == f"python -m bench.{figure['section']}"
        if figure["low"] is not None:
            assert figure["low"] <= figure["value"] <= figure["high"]


def test_every_target_is_met_missed_or_said_not_to_be_measured(document: dict[str, Any]) -> None:
    assert len(document["targets"]) >= 7
    for target in document["targets"]:
        assert target.keys() == VERDICT
        if target["value"] is None:
            assert target["met"] is None
        else:
            reached = target["value"] >= target["bound"]
            assert target["met"] is (reached if target["at_least"] else target["value"] <= target["bound"])


def test_the_table_has_every_figure_and_target(document: dict[str, Any], results: tuple[Path, str]) -> None:
    table = results[1]
    for figure in document["figures"]:
        assert figure["name"] in table
    for target in document["targets"]:
        assert target["what"] in table


def test_the_charts_are_svg_and_the_page_gets_the_results(results: tuple[Path, str], tmp_path: Path) -> None:
    page = tmp_path / "performance.md"
    page.write_text(
        "before\n<!-- results: written by python -m bench.chart -->\nof last year\n<!-- end of results -->\nafter\n"
    )
    done = run_module("bench.chart", "--results", str(results[0]), "--docs", str(tmp_path))
    assert done.stdout.startswith("ext-authz decides in ")
    for name in ("throughput", "decision"):
        root = ET.fromstring((tmp_path / "performance" / f"{name}.svg").read_text())
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "of last year" not in text
    assert "| target | bound | measured |" in text
