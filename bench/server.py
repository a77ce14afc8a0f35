"""The whole server on one core under h2load on another: checks per second, and latency at half of that.

python -m bench.server [--effort quick]
"""

import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
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

__all__ = ["measure", "measured_server", "our_process", "our_server", "run", "wait_for_check"]

SECONDS = {Effort.FULL: 8.0, Effort.QUICK: 3.0, Effort.SMOKE: 1.0}
START_SECONDS = 60.0


def run(effort: Effort) -> Report:
    """Both transports, with the full job and with an empty handler."""
    report = Report("server")
    message = workload.request()
    with tempfile.TemporaryDirectory() as folder:
        for transport in TRANSPORT_NAMES:
            try:
                with our_server(transport, Path(folder) / transport) as address:
                    measure(report, transport, address, message, effort, is_right=workload.check_allowed)
                if effort is Effort.FULL:
                    with our_server(transport, Path(folder) / f"{transport}-quiet", log={"allowed": False}) as address:
                        measure(report, f"{transport}_denials_logged_only", address, message, effort, latency=False)
                with _empty_server(transport, Path(folder)) as address:
                    measure(report, f"{transport}_empty", address, message, effort, latency=effort is Effort.FULL)
            except Unavailable as error:
                report.skip(transport, str(error))
    best = max(
        (report.value(f"{transport}_checks_per_second") or 0.0 for transport in TRANSPORT_NAMES),
        default=0.0,
    )
    if best:
        report.add("checks_per_second", best, "1/s", "the full job on the faster transport")
        fastest = next(name for name in TRANSPORT_NAMES if report.value(f"{name}_checks_per_second") == best)
        p99 = report.value(f"{fastest}_half_load_p99_ms")
        if p99 is not None:
            report.add("half_load_p99_ms", p99, "ms", "of the faster transport, open loop at half its maximum")
    return report


def measure(
    report: Report,
    name: str,
    address: str,
    message: bytes,
    effort: Effort,
    *,
    is_right: Callable[[bytes], None] | None = None,
    latency: bool = True,
) -> Load:
    """Closed loop, then open loop at half of what that reached."""
    seconds = SECONDS[effort]
    answer = wait_for_check(address, message)
    if is_right is not None:
        is_right(answer)
    verify_answers(address, message, answer)
    note = f"closed loop, {CONNECTIONS} connections with {STREAMS} requests each"
    loads = [run_load(address, message, seconds=seconds) for _ in range(3 if effort is Effort.FULL else 1)]
    load = sorted(loads, key=lambda one: one.rate)[len(loads) // 2]
    report.add(f"{name}_checks_per_second", [one.rate for one in loads], "1/s", note)
    for percent in (50, 99, 99.9):
        report.add(f"{name}_full_load_p{percent:g}_ms", load.percentile(percent), "ms", note)
    if latency:
        half = open_loop(address, message, rate=load.rate / 2, seconds=seconds, response=answer)
        sent = f"open loop, {half.rate:.0f} requests a second"
        for percent in (50, 99, 99.9):
            report.add(f"{name}_half_load_p{percent:g}_ms", half.percentile(percent), "ms", sent)
    # the order of headers may differ from answer to answer
    if len(wait_for_check(address, message)) != len(answer):
        raise AssertionError("the server answers otherwise after the load")
    return load


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


@contextmanager
def our_server(transport: str, folder: Path, **parts: Any) -> Iterator[str]:  # noqa: ANN401 - as `our_process`
    """As `our_process`; yields the address of Check."""
    with our_process(transport, folder, **parts) as running:
        yield running.address


@contextmanager
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


@contextmanager
def measured_server(name: str, arguments: list[str], folder: Path) -> Iterator[Process]:
    """A Python process on the measured core."""
    folder.mkdir(parents=True, exist_ok=True)
    process = Process(name, on_core(cores()[0], [sys.executable, *arguments]), folder / "log")
    process.start()
    try:
        yield process
    finally:
        process.stop()


@contextmanager
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
