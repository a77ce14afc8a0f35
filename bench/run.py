"""All benchmarks in one run: `make bench`, and `make bench-quick` for those that are done in a minute.

    python -m bench.run [--quick] [--sections engine,server] [--output bench/results.json]

Writes the results as JSON and prints a table with every figure and target; a whole run also renews the charts and tables of
`docs/performance.md`. Bounded in count and time; loopback only.
"""

import argparse
import datetime as dt
import importlib
import json
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from bench import chart
from bench.environment import environment
from bench.figures import Effort, Report, say
from bench.results import as_document, as_table
from ext_authz.demo.process import ProcessFailed

__all__ = ["QUICK", "SECTIONS", "main"]

SECTIONS = ("engine", "server", "peers", "envoy", "memory", "cold", "flood")
QUICK = ("engine", "server")
"""What a developer waits for."""

_FOLDER = Path(__file__).parent


def main(arguments: Sequence[str] | None = None) -> int:
    """Run; returns 1 when a section failed; a missed target is a result, not a failure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="engine and server only, in about a minute")
    parser.add_argument("--effort", type=Effort, choices=list(Effort), help="how much time to take (default: full)")
    parser.add_argument("--sections", type=lambda text: text.split(","), help=f"some of {','.join(SECTIONS)}")
    parser.add_argument("--output", type=Path, help="where the JSON goes (default: results.json beside this file)")
    parsed = parser.parse_args(arguments)
    effort = parsed.effort or (Effort.QUICK if parsed.quick else Effort.FULL)
    sections = parsed.sections or (QUICK if parsed.quick else SECTIONS)
    if unknown := set(sections) - set(SECTIONS):
        parser.error(f"there is no section {', '.join(sorted(unknown))}")
    whole = effort is Effort.FULL and tuple(sections) == SECTIONS
    # only a whole run replaces the results that the documentation quotes
    output = parsed.output or _FOLDER / ("results.json" if whole else "results-partial.json")
    about = environment()
    started = time.monotonic()
    began = dt.datetime.now(dt.UTC)
    failures: dict[str, str] = {}
    reports = [report for section in sections if (report := _run(section, effort, failures)) is not None]
    command = "make bench" if whole else f"python -m bench.run {' '.join(arguments or sys.argv[1:])}".rstrip()
    run = {
        "command": command,
        "effort": str(effort),
        "started": began.isoformat(timespec="seconds"),
        "seconds": round(time.monotonic() - started, 1),
    }
    document = as_document(reports, about, run | {"failed": failures})
    output.write_text(json.dumps(document, indent=1) + "\n")
    if whole and not failures:
        chart.write(document, _FOLDER.parent / "docs")
    print(as_table(document))
    say(f"\nwritten to {output}")
    for section, reason in failures.items():
        say(f"{section} FAILED: {reason.strip().splitlines()[-1]}")
    return 1 if failures else 0


def _run(section: str, effort: Effort, failures: dict[str, str]) -> Report | None:
    """The section's report, or None with the reason in `failures`: the others are measured all the same."""
    say(section)
    module = importlib.import_module("bench.peers.section" if section == "peers" else f"bench.{section}")
    measure: Callable[[Effort], Report] = module.run
    try:
        return measure(effort)
    except ProcessFailed as error:
        failures[section] = f"{error}: {error.log_tail[-2_000:]}"
    except Exception:  # noqa: BLE001 - whatever went wrong in one section is told at the end
        failures[section] = traceback.format_exc()
    say(f"{section} failed: {failures[section]}")
    return None


if __name__ == "__main__":
    sys.exit(main())
