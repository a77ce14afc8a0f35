"""The whole server on one core under h2load on another: checks per second, and latency at half of that.

python -m bench.server [--effort quick]
"""

import contextlib
import functools
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import httpx
from support.server import check_over

from bench import workload
from bench.figures import Effort, Report, Unavailable, say, standalone
from bench.load import CONNECTIONS, STREAMS, Load, on_core, run_load, verify_answers
from bench.open_loop import open_loop
from bench.serve import TRANSPORT_NAMES
from bench.timing import cores
from ext_authz.demo.ports import choose_ports
from ext_authz.demo.process import Process

__all__ = ["Subject", "measure", "measured_server", "our_process", "our_server", "run", "wait_for_check"]

SECONDS = {Effort.FULL: 6.0, Effort.QUICK: 1.0, Effort.SMOKE: 1.0}
TURNS = {Effort.FULL: 5, Effort.QUICK: 2, Effort.SMOKE: 1}
PERCENTS = (50, 99, 99.9)
MAXIMUM_OPEN_RATE = 30_000.0
"""Requests a second: what the open-loop client can send on a core of its own. Beyond it the latencies would be its own."""

START_SECONDS = 60.0


def run(effort: Effort) -> Report:
    """Both transports, with the full job and with an empty handler."""
    report = Report("server")
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as servers:
        folder = Path(name)
        subjects: dict[str, Subject] = {}
        for transport in TRANSPORT_NAMES:
            address = servers.enter_context(our_server(transport, folder / transport))
            subjects[transport] = Subject(address, workload.check_allowed)
            if effort is Effort.FULL:
                quiet = our_server(transport, folder / f"{transport}-quiet", log={"allowed": False})
                address = servers.enter_context(quiet)
                subjects[f"{transport}_allowed_not_logged"] = Subject(address, workload.check_allowed)
            subjects[f"{transport}_empty"] = Subject(servers.enter_context(_empty_server(transport, folder)))
        try:
            rates = measure(report, subjects, workload.request(), effort)
        except Unavailable as error:
            report.skip("h2load", str(error))
            return report
    fastest = max(TRANSPORT_NAMES, key=lambda transport: statistics.median(rates[transport]))
    report.add("checks_per_second", rates[fastest], "1/s", f"the full job on {fastest}")
    p99 = report.value(f"{fastest}_half_load_p99_ms")
    if p99 is not None:
        report.add("half_load_p99_ms", p99, "ms", f"on {fastest}, open loop at half its maximum")
    return report


@dataclass(frozen=True, slots=True)
class Subject:
    """A server to be measured.

    Attributes:
        address: `host:port` of Check.
        is_right: raises AssertionError for an answer that does not do the job; None for an empty handler.
    """

    address: str
    is_right: Callable[[bytes], None] | None = None


def measure(
    report: Report, subjects: Mapping[str, Subject], message: bytes, effort: Effort
) -> Mapping[str, Sequence[float]]:
    """Closed loops in turns, so that whatever else the machine does hits all alike; then open loops at half of those.

    Returns:
        Checks per second by name, one for each turn.
    """
    seconds = SECONDS[effort]
    answers: dict[str, bytes] = {}
    for name, subject in subjects.items():
        answers[name] = wait_for_check(subject.address, message)
        if subject.is_right is not None:
            subject.is_right(answers[name])
        verify_answers(subject.address, message, answers[name])
    loads: dict[str, list[Load]] = {name: [] for name in subjects}
    for _ in range(TURNS[effort]):
        for name, subject in subjects.items():
            loads[name].append(run_load(subject.address, message, seconds=seconds))
    closed = f"closed loop, {CONNECTIONS} connections with {STREAMS} requests each"
    for name, subject in subjects.items():
        load = sorted(loads[name], key=lambda one: one.rate)[len(loads[name]) // 2]
        report.add(f"{name}_checks_per_second", [one.rate for one in loads[name]], "1/s", closed)
        for percent in PERCENTS:
            report.add(f"{name}_full_load_p{percent:g}_ms", load.percentile(percent), "ms", closed)
        rate = min(load.rate / 2, MAXIMUM_OPEN_RATE)
        half = open_loop(subject.address, message, rate=rate, seconds=seconds, response=answers[name])
        for percent in PERCENTS:
            what = f"open loop, {half.rate:.0f} requests a second"
            report.add(f"{name}_half_load_p{percent:g}_ms", half.percentile(percent), "ms", what)
        # the order of headers may differ from answer to answer
        if len(wait_for_check(subject.address, message)) != len(answers[name]):
            raise AssertionError(f"{name} answers otherwise after the load")
    return {name: [load.rate for load in own] for name, own in loads.items()}


@dataclass(frozen=True, slots=True)
class Running:
    """A server that is ready.

    Attributes:
        address: of Check.
        process: its process.
        ready_seconds: from the start of the process until `/readyz` said so.
    """

    address: str
    process: Process
    ready_seconds: float


@contextlib.contextmanager
def our_server(transport: str, folder: Path, **parts: Any) -> Iterator[str]:  # noqa: ANN401 - as `our_process`
    """As `our_process`; yields the address of Check."""
    with our_process(transport, folder, **parts) as running:
        yield running.address


@contextlib.contextmanager
def our_process(
    transport: str,
    folder: Path,
    *,
    table: Sequence[workload.Route] | None = None,
    **spec: object,
) -> Iterator[Running]:
    """`ext-authz serve` on one core, once it is ready; `table` are its routes and `spec` as in `server_document`."""
    check, admin = choose_ports(2)
    listener = {"address": f"127.0.0.1:{check}", "transport": transport, "drain_seconds": 1}
    members: dict[str, object] = {"listener": listener, "admin": {"address": f"127.0.0.1:{admin}"}, **spec}
    config = workload.configure(folder, table or workload.routes(10), **members)
    arguments = ["-m", "ext_authz", "serve", "--config", str(config)]
    started = time.monotonic()
    with measured_server(f"ext-authz on {transport}", arguments, folder) as process:
        process.wait_until(lambda: _is_ready(admin), START_SECONDS, 0.01)
        yield Running(f"127.0.0.1:{check}", process, time.monotonic() - started)


@contextlib.contextmanager
def measured_server(name: str, arguments: list[str], folder: Path) -> Iterator[Process]:
    """A Python process on the measured core."""
    folder.mkdir(parents=True, exist_ok=True)
    process = Process(name, on_core(cores()[0], [sys.executable, *arguments]), folder / "log", _environment())
    process.start()
    try:
        yield process
    finally:
        process.stop()


def _environment() -> dict[str, str]:
    """Ours, and bytecode is kept: it is compiled when a package or an image is installed, not at each start."""
    environment = dict(os.environ)
    if sys.dont_write_bytecode:
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        environment["PYTHONPYCACHEPREFIX"] = _bytecode().name
    return environment


@functools.cache
def _bytecode() -> tempfile.TemporaryDirectory[str]:
    """Of one run of the benchmarks; it goes with this process."""
    return tempfile.TemporaryDirectory()


@contextlib.contextmanager
def _empty_server(transport: str, folder: Path) -> Iterator[str]:
    (port,) = choose_ports(1)
    address = f"127.0.0.1:{port}"
    arguments = ["-m", "bench.serve", "--transport", transport, "--address", address]
    with measured_server(f"empty {transport}", arguments, folder / f"{transport}-empty"):
        yield address


def wait_for_check(address: str, message: bytes, seconds: float = 30.0) -> bytes:
    """The answer to one Check, as soon as the server gives it."""
    until = time.monotonic() + seconds
    with grpc.insecure_channel(address, options=(("grpc.use_local_subchannel_pool", 1),)) as channel:
        while True:
            try:
                return check_over(channel, message, 5.0).SerializeToString()
            except grpc.RpcError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.1)


def _is_ready(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/readyz", timeout=2).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False


if __name__ == "__main__":
    say("server")
    standalone(run, __doc__)
