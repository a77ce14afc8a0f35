"""Starts the whole stack on loopback, runs the scenarios through it, and takes it down again."""

import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import NoReturn

import httpx

from ext_authz.demo.commands import commands_to_try
from ext_authz.demo.envoy import EnvoyProcess, envoy_binary
from ext_authz.demo.layout import Placement, Ports, envoy_bootstrap, prepare
from ext_authz.demo.process import Process, ProcessFailed
from ext_authz.demo.stack import Stack
from ext_authz.demo.table import run_table

__all__ = ["demonstrate", "running_stack"]

_READY_SECONDS = 30.0
_WATCH_SECONDS = 0.5
_INTERRUPTED = 130
_SHOWN_LINES = 5


def demonstrate(directory: Path, *, once: bool, any_ports: bool = False) -> int:
    """Show everything; the exit code is 0 when every scenario ended as expected.

    Args:
        directory: receives certificates, configuration and logs.
        once: stop after the table; else stay up until Ctrl-C.
        any_ports: take whatever ports are free, for runs beside each other.
    """
    signal.signal(signal.SIGTERM, _end)
    signal.signal(signal.SIGHUP, _end)
    try:
        with running_stack(directory, any_ports=any_ports) as (stack, parts):
            print(flush=True)
            tally = run_table(stack)
            if not tally.all_good:
                _show_logs(parts)
            if once:
                print(tally, flush=True)
                return 0 if tally.all_good else 1
            print(tally)
            _stay(stack, parts)
    except ProcessFailed as failed:
        print(f"\ndemo: {failed}; the end of its log:\n{_indented(failed.log_tail)}", file=sys.stderr, flush=True)
        return 1
    except KeyboardInterrupt:
        print("\ndemo: stopped", flush=True)
        return _INTERRUPTED


@contextmanager
def running_stack(directory: Path, *, any_ports: bool = False) -> Iterator[tuple[Stack, list[Process]]]:
    """A stack that is up: the description for callers, and its processes.

    Raises:
        ProcessFailed: a part did not come up.
    """
    parts: list[Process] = []
    with ExitStack() as cleanup:

        def start(part: Process, is_ready: Callable[[], bool], where: str) -> None:
            parts.append(part)
            cleanup.callback(part.stop)
            with _progress(part.name, where):
                part.start()
                part.wait_until(is_ready, _READY_SECONDS)

        placement = Placement(ports=Ports.free(any_ports=any_ports))
        ports = placement.ports
        with _progress("certificates and configuration", str(directory)):
            stack = prepare(directory, placement, time.time())
        module = [sys.executable, "-m"]
        upstream = [*module, "ext_authz.demo.upstream", f"127.0.0.1:{ports.upstream}"]
        start(
            Process("upstream", upstream, directory / "upstream.log"),
            lambda: _accepts(ports.upstream),
            f"http://127.0.0.1:{ports.upstream}",
        )
        settings = str(directory / "authorization-server.json")
        start(
            Process(
                "authorization server",
                [*module, "ext_authz.demo.authorization_server", settings],
                directory / "authorization-server.log",
            ),
            lambda: _accepts(ports.authorization_server),
            placement.issuer,
        )
        envoy = EnvoyProcess(envoy_binary(), envoy_bootstrap(str(directory.absolute()), placement), directory)
        parts.append(envoy.process)
        cleanup.callback(envoy.stop)
        with _progress("envoy", ", ".join(f"{name} :{endpoint.port}" for name, endpoint in stack.endpoints.items())):
            envoy.start(_READY_SECONDS)
        # last, because it fetches the authorization server's keys through Envoy and is not ready without them
        start(
            Process(
                "ext-authz",
                [*module, "ext_authz", "serve", "--config", str(directory / "ext-authz.yaml")],
                directory / "ext-authz.log",
            ),
            lambda: _is_ready(f"http://127.0.0.1:{ports.ext_authz_admin}/readyz"),
            f"127.0.0.1:{ports.ext_authz}, admin http://127.0.0.1:{ports.ext_authz_admin}/metrics",
        )
        yield stack, parts


def _stay(stack: Stack, parts: list[Process]) -> NoReturn:
    """Until Ctrl-C, or until a part ends by itself."""
    print(f"\nThe stack stays up until Ctrl-C. Logs and certificates: {stack.directory}\nTo try in another shell:\n")
    print(commands_to_try(stack), flush=True)
    while True:
        for part in parts:
            part.check_alive()
        time.sleep(_WATCH_SECONDS)


@contextmanager
def _progress(what: str, where: str) -> Iterator[None]:
    print(f"  {what:<32}", end="", flush=True)
    started = time.monotonic()
    try:
        yield
    except BaseException:
        print("FAILED", flush=True)
        raise
    print(f"{time.monotonic() - started:5.1f} s   {where}", flush=True)


def _show_logs(parts: list[Process]) -> None:
    for part in parts:
        if tail := part.log_tail(_SHOWN_LINES):
            print(f"\nthe end of the log of {part.name}:\n{_indented(tail)}", file=sys.stderr, flush=True)


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines())


def _accepts(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _is_ready(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False


def _end(_signal: int, _frame: FrameType | None) -> NoReturn:
    """As Ctrl-C, so that everything is taken down."""
    raise KeyboardInterrupt
