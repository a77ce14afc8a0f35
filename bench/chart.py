"""The results as charts and a table for the documentation.

    python -m bench.chart [--results bench/results.json] [--docs docs]

Writes `performance/throughput.svg` and `performance/decision.svg` and replaces what stands between the markers in
`performance.md`. The charts follow the reader's light or dark setting.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

from bench.results import Results, read

__all__ = ["decision_chart", "headline", "summary", "throughput_chart", "write"]

WIDTH = 800
LABEL_WIDTH = 300
VALUE_WIDTH = 92
ROW = 34
TOP = 62

_STYLE = """\
text { font: 14px system-ui, sans-serif; fill: #1f2328; }
.title { font-size: 17px; font-weight: 600; }
.note { font-size: 12px; fill: #59636e; }
.ours { fill: #0969da; } .peer { fill: #bf8700; } .ceiling { fill: #8c959f; }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3; }
  .note { fill: #9198a1; }
  .ours { fill: #4493f8; } .peer { fill: #d29922; } .ceiling { fill: #656c76; }
}"""

QUIET_LOAD = 0.5
"""Above it, before anything was started, somebody else was at work."""

BEGIN = "<!-- results: written by python -m bench.chart -->"
END = "<!-- end of results -->"

_THROUGHPUT = (
    ("ext_authz_h2", "ext-authz, h2 transport", "ours"),
    ("ext_authz_grpcio", "ext-authz, grpcio transport", "ours"),
    ("opa_envoy", "OPA-Envoy, as it comes", "peer"),
    ("opa_envoy_cached", "OPA-Envoy, token cache on", "peer"),
    ("authorino", "Authorino, as it comes", "peer"),
    ("authorino_cached", "Authorino, caches on, no log", "peer"),
    ("grpc_go_empty", "grpc-go, empty handler", "ceiling"),
)


@dataclass(frozen=True, slots=True)
class Bar:
    """One row of a chart.

    Attributes:
        label: at its left.
        value: its length.
        text: at its right.
        kind: `ours`, `peer` or `ceiling`.
    """

    label: str
    value: float
    text: str
    kind: str


def throughput_chart(document: Results) -> str:
    """Checks per second on one core, ours and the others'."""
    values = _values(document)
    bars = [
        Bar(label, values[f"{name}_checks_per_second"], f"{values[f'{name}_checks_per_second']:,.0f}", kind)
        for name, label, kind in _THROUGHPUT
        if f"{name}_checks_per_second" in values
    ]
    note = "JWT signature, audience, scope, certificate binding, four headers; 2 KiB request; same client, same run"
    return _bars("Checks per second on one core", note, bars)


def decision_chart(document: Results) -> str:
    """Where the microseconds of a warm decision go."""
    stages = [
        (name.removeprefix("stage: "), value) for name, value in _values(document).items() if name.startswith("stage: ")
    ]
    # the stages are of one run of their own, so their sum is that run's whole decision
    whole = sum(value for _, value in stages)
    bars = [Bar(name, value, f"{value:.1f} µs", "ours") for name, value in stages]
    return _bars(f"A warm decision: {whole:.1f} µs", "each stage measured alone, less the cost of the call", bars)


def headline(document: Results) -> str:
    """One sentence for the README."""
    values = _values(document)
    parts = []
    if "warm_decision_us" in values:
        parts.append(f"decides in {values['warm_decision_us']:.0f} µs")
    if "checks_per_second" in values:
        parts.append(f"answers {values['checks_per_second']:,.0f} checks a second on one core")
    sentence = f"ext-authz {' and '.join(parts)}" if parts else "ext-authz was not measured"
    ratios = [
        f"{values[name]:.1f} times as many as {peer}"
        for name, peer in (("times_opa_envoy", "OPA-Envoy"), ("times_authorino", "Authorino"))
        if name in values
    ]
    return f"{sentence}{': ' if ratios else ''}{' and '.join(ratios)}{' with the same policy' if ratios else ''}."


def summary(document: Results) -> str:
    """Targets and figures as Markdown."""
    machine, versions, run = (_mapping(document[name]) for name in ("machine", "versions", "run"))
    lines = [
        f"`{run['command']}`, {run['started']}: {machine['processor']}, {machine['cores']} cores, {machine['system']}; "
        + ", ".join(f"{name} {version}" for name, version in versions.items())
        + ".",
        *_caution(run, machine),
        "",
        "| target | bound | measured | |",
        "|---|---:|---:|---|",
    ]
    for one in _items(document["targets"]):
        verdict = "not measured" if one["met"] is None else "met" if one["met"] else "**missed**"
        value = "" if one["value"] is None else f"{_number(one['value'])} {_unit(one['unit'])}"
        sign = "≥" if one["at_least"] else "≤"
        lines.append(f"| {one['what']} | {sign} {_number(one['bound'])} {_unit(one['unit'])} | {value} | {verdict} |")
    section = ""
    for figure in _items(document["figures"]):
        # those are in the charts or in the JSON; a page has to be read
        if str(figure["name"]).startswith("stage: ") or "_full_load_" in str(figure["name"]):
            continue
        if figure["section"] != section:
            section = str(figure["section"])
            lines += [
                "",
                f"`{figure['command']}`",
                "",
                "| figure | median | 10th to 90th percentile | |",
                "|---|---:|---:|---|",
            ]
        spread = "" if figure["low"] is None else f"{_number(figure['low'])} to {_number(figure['high'])}"
        value = f"{_number(figure['value'])} {_unit(figure['unit'])}"
        lines.append(f"| {figure['name']} | {value} | {spread} | {figure['note']} |")
    lines += [
        f"\nNot measured: {one['section']}, {one['name']}: {one['reason']}." for one in _items(document["skipped"])
    ]
    return "\n".join(lines).rstrip() + "\n"


def _caution(run: Mapping[str, object], machine: Mapping[str, object]) -> list[str]:
    """What a reader must know of a run whose figures are no good yet."""
    said = []
    if run["effort"] != "full":
        said.append("it was a short run")
    if float(str(machine.get("load_before", 0))) > QUIET_LOAD:
        said.append(f"the machine was busy with other work (load {machine['load_before']})")
    return ["", f"**These figures are provisional: {' and '.join(said)}.** `make bench` replaces them."] if said else []


def write(document: Results, docs: Path) -> None:
    """Charts and table into the documentation folder."""
    folder = docs / "performance"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "throughput.svg").write_text(throughput_chart(document))
    (folder / "decision.svg").write_text(decision_chart(document))
    page = docs / "performance.md"
    if page.exists():
        text = page.read_text()
        before, _, rest = text.partition(BEGIN)
        _, _, after = rest.partition(END)
        if BEGIN in text and END in text:
            page.write_text(f"{before}{BEGIN}\n\n{summary(document)}\n{END}{after}")


def _bars(title: str, note: str, bars: Sequence[Bar]) -> str:
    longest = max((bar.value for bar in bars), default=1.0) or 1.0
    room = WIDTH - LABEL_WIDTH - VALUE_WIDTH
    height = TOP + ROW * len(bars) + 10
    # read out where a picture cannot be seen
    spoken = "; ".join(f"{bar.label} {bar.text}" for bar in bars)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" role="img">',
        f"<title>{escape(title)}</title>",
        f"<desc>{escape(spoken)}</desc>",
        f"<style>\n{_STYLE}\n</style>",
        f'<text class="title" x="0" y="20">{escape(title)}</text>',
        f'<text class="note" x="0" y="42">{escape(note)}</text>',
    ]
    for position, bar in enumerate(bars):
        top = TOP + position * ROW
        length = max(1.0, room * bar.value / longest)
        lines += [
            f'<text x="{LABEL_WIDTH - 10}" y="{top + 17}" text-anchor="end">{escape(bar.label)}</text>',
            f'<rect class="{bar.kind}" x="{LABEL_WIDTH}" y="{top}" width="{length:.1f}" height="{ROW - 10}" rx="3"/>',
            f'<text x="{LABEL_WIDTH + length + 8:.1f}" y="{top + 17}">{escape(bar.text)}</text>',
        ]
    return "\n".join([*lines, "</svg>", ""])


def _values(document: Results) -> dict[str, float]:
    return {str(figure["name"]): float(str(figure["value"])) for figure in _items(document["figures"])}


def _items(value: object) -> Sequence[Mapping[str, object]]:
    if not isinstance(value, list):
        raise TypeError("the document has a list here")
    return value


def _mapping(value: object) -> Mapping[str, object]:
    if not isinstance(value, dict):
        raise TypeError("the document has a mapping here")
    return value


def _number(value: object) -> str:
    number = float(str(value))
    return f"{number:,.0f}" if abs(number) >= 1_000 else f"{number:.3g}"


def _unit(unit: object) -> str:
    return {"us": "µs", "ratio": "x", "count": "", "1/s": "/s"}.get(str(unit), str(unit))


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    root = Path(__file__).resolve().parents[1]
    parser.add_argument("--results", type=Path, default=root / "bench" / "results.json")
    parser.add_argument("--docs", type=Path, default=root / "docs")
    arguments = parser.parse_args()
    document = read(arguments.results)
    write(document, arguments.docs)
    print(headline(document), file=sys.stdout)


if __name__ == "__main__":
    main()
