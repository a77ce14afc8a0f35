"""Memory of one worker, and how long it takes from the start of the process until it is ready.

python -m bench.memory [--effort quick]
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path

from support.tokens import signing_key

from bench import workload
from bench.client import send
from bench.figures import Effort, Report, say, standalone
from bench.serve import TRANSPORT_NAMES
from bench.server import our_process, wait_for_check

__all__ = ["resident_mib", "run"]

ROUTES = {Effort.FULL: 10_000, Effort.QUICK: 1_000, Effort.SMOKE: 100}
TOKENS = {Effort.FULL: 100_000, Effort.QUICK: 5_000, Effort.SMOKE: 200}
STARTS = {Effort.FULL: 7, Effort.QUICK: 3, Effort.SMOKE: 1}


def run(effort: Effort) -> Report:
    """Every figure for the transports that are installed."""
    report = Report("memory")
    for transport in TRANSPORT_NAMES:
        _measure(report, transport, effort)
    # fewer routes and tokens say nothing about the bound for all of them
    judged = ("rss_full_mib", "ready_seconds") if effort is Effort.FULL else ("ready_seconds",)
    for name in judged:
        values = [value for transport in TRANSPORT_NAMES if (value := report.value(f"{transport}_{name}")) is not None]
        report.add(name, max(values), "MiB" if name == "rss_full_mib" else "s", "the larger of the transports")
    return report


def _measure(report: Report, transport: str, effort: Effort) -> None:
    routes, tokens = ROUTES[effort], TOKENS[effort]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with our_process(transport, folder / "idle") as idle:
            wait_for_check(idle.address, workload.request())
            report.add(f"{transport}_rss_idle_mib", resident_mib(idle.process.pid), "MiB", "10 routes, one check")
        with our_process(
            transport, folder / "large", table=workload.routes(routes, destinations=routes // 10)
        ) as large:
            wait_for_check(large.address, workload.request())
            what = f"{routes} routes for {routes // 10} destinations"
            report.add(f"{transport}_rss_routes_mib", resident_mib(large.process.pid), "MiB", what)
            outcome = send(large.address, _distinct(tokens))
            if outcome.allowed != tokens:
                raise AssertionError(f"valid tokens were not all accepted: {outcome}")
            with_tokens = f"{what}, {tokens} cached tokens"
            report.add(f"{transport}_rss_full_mib", resident_mib(large.process.pid), "MiB", with_tokens)
        starts: list[float] = []
        table = workload.routes(min(routes, 1_000), destinations=min(routes, 1_000) // 10)
        for number in range(STARTS[effort]):
            with our_process(transport, folder / f"start-{number}", table=table) as running:
                starts.append(running.ready_seconds)
        report.add(f"{transport}_ready_seconds", starts, "s", f"{len(table)} routes, from exec to /readyz")


def _distinct(count: int) -> Iterator[bytes]:
    # ES256 signs fast, which makes so many tokens bearable; a cached token keeps nothing of its signature
    key = signing_key("ES256")
    return (workload.request(number, text=workload.token(number, key=key)) for number in range(count))


def resident_mib(pid: int) -> float:
    """The resident set of a process."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise AssertionError("the process has ended")


if __name__ == "__main__":
    say("memory")
    standalone(run, __doc__)
