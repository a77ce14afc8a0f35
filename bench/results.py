"""Results as JSON, and as a table that one can read."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TypeAlias

from bench.figures import Figure, Report
from bench.targets import Verdict, verdicts

__all__ = ["Results", "as_document", "as_table", "read"]

Results: TypeAlias = dict[str, object]

FORMAT = 1
"""Changes when a reader would have to change."""


def as_document(reports: Sequence[Report], environment: Mapping[str, object], run: Mapping[str, object]) -> Results:
    """Everything that was measured; each figure names its command, and one environment holds for all of a run.

    Args:
        reports: of the sections.
        environment: machine and versions.
        run: command, effort, time and duration.
    """
    figures = [figure for report in reports for figure in report.figures]
    skipped = [
        {"section": report.section, "name": name, "reason": reason}
        for report in reports
        for name, reason in report.skipped
    ]
    return {
        "format": FORMAT,
        "run": dict(run),
        **environment,
        "targets": [_verdict(one) for one in verdicts({figure.name: figure.value for figure in figures})],
        "figures": [_rounded(figure) for figure in figures],
        "skipped": skipped,
    }


def read(file: Path) -> Results:
    """A document of `as_document`."""
    document = json.loads(file.read_text())
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise ValueError(f"{file} is not a result of this benchmark")
    return document


def as_table(document: Results) -> str:
    """For a terminal."""
    lines: list[str] = []
    section = None
    for figure in _mappings(document["figures"]):
        if figure["section"] != section:
            section = figure["section"]
            lines += ["", f"{section}  ({figure['command']})"]
        spread = f"{figure['low']:,.6g} to {figure['high']:,.6g}" if figure["low"] is not None else ""
        lines.append(
            f"  {figure['name']:<46} {_number(figure['value']):>11} {figure['unit']:<6} {spread:<24} {figure['note']}"
        )
    for skipped in _mappings(document["skipped"]):
        lines.append(f"  {skipped['section']}: {skipped['name']} was skipped: {skipped['reason']}")
    lines += ["", "targets"]
    for one in _mappings(document["targets"]):
        said = "not measured" if one["met"] is None else "met" if one["met"] else "MISSED"
        value = "" if one["value"] is None else f"{_number(one['value'])} {one['unit']}"
        sign = "at least" if one["at_least"] else "at most"
        lines.append(f"  {said:<12} {value:>16}  ({sign} {_number(one['bound'])})  {one['what']}")
    return "\n".join([*_about(document), *lines])


def _about(document: Results) -> list[str]:
    run, machine, versions = document["run"], document["machine"], document["versions"]
    if not (isinstance(run, dict) and isinstance(machine, dict) and isinstance(versions, dict)):
        raise TypeError("the document has no machine, versions or run")
    return [
        f"{run['command']}  ({run['started']}, {run['seconds']:.0f} s)",
        ", ".join(f"{name} {value}" for name, value in machine.items()),
        ", ".join(f"{name} {version}" for name, version in versions.items()),
    ]


def _verdict(verdict: Verdict) -> Results:
    target = verdict.target
    return {**asdict(target), "value": verdict.value, "met": verdict.met}


def _rounded(figure: Figure) -> Results:
    fields = asdict(figure)
    for name in ("value", "low", "high"):
        number = fields[name]
        fields[name] = None if number is None else float(f"{number:.5g}")
    return fields


def _number(value: object) -> str:
    if not isinstance(value, (int, float)):
        raise TypeError("a figure is a number")
    return f"{value:,.0f}" if abs(value) >= 1_000 else f"{value:.4g}"


def _mappings(items: object) -> Sequence[Mapping[str, object]]:
    if not isinstance(items, list):
        raise TypeError("the document has a list here")
    return items
