"""A real `ext-authz serve` process on loopback, for tests that need the whole server.

    with ServerProcess(tmp_path, server_spec(policies=["policy.yaml"])) as server:
        response = server.check(check_request(path="/public"))

The configuration is written as JSON, which is YAML. Ports are chosen by the kernel and read from the log.
"""

import atexit
import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self, TypeAlias

import grpc

from ext_authz.wire._pb.envoy.service.auth.v3.external_auth_pb2 import CheckResponse

__all__ = ["CHECK_METHOD", "ServerProcess", "check_over", "document", "route_policy", "server_spec"]

CHECK_METHOD = "/envoy.service.auth.v3.Authorization/Check"
HEALTH_METHOD = "/grpc.health.v1.Health/Check"

START_SECONDS = 20.0
"""More than a start takes on a busy machine."""

Json: TypeAlias = dict[str, Any]


def document(kind: str, name: str, spec: Mapping[str, object]) -> str:
    """A configuration file's text."""
    return json.dumps(
        {"apiVersion": "ext-authz/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec}, indent=1
    )


def server_spec(**parts: object) -> Json:
    """`spec` of a server on free ports that looks at its files often and ends when told to; `parts` replace members."""
    spec = {
        "listener": {"address": "127.0.0.1:0"},
        "admin": {"address": "127.0.0.1:0"},
        "reload_seconds": 0.1,
        **parts,
    }
    if isinstance(spec["listener"], dict):
        spec["listener"] = {"lame_duck_seconds": 0, **spec["listener"]}
    return spec


def route_policy(*rules: Mapping[str, object], name: str = "test", **spec: object) -> str:
    """A policy file with `rules`."""
    return document("RoutePolicy", name, {**spec, "rules": list(rules)})


def check_over(channel: grpc.Channel, request: bytes, timeout: float | None = 10.0) -> CheckResponse:
    """One Check on `channel`. Raises grpc.RpcError."""
    return CheckResponse.FromString(channel.unary_unary(CHECK_METHOD, None, None)(request, timeout=timeout))


class ServerProcess:
    """One server; stops with its `with` block."""

    def __init__(self, folder: Path, spec: Mapping[str, object], **files: str | bytes) -> None:
        """Write the configuration; `start` runs it.

        Args:
            folder: for the configuration.
            spec: of the server, see `server_spec`.
            files: more files in the folder, by name with `__` for `.`.
        """
        self.folder = folder
        self.config = folder / "server.yaml"
        self.lines: list[str] = []
        self._records: list[Json] = []
        self._arrived = threading.Condition()
        self._process: subprocess.Popen[bytes] | None = None
        self._reader: threading.Thread | None = None
        self._channel: grpc.Channel | None = None
        for name, content in files.items():
            self.write(name.replace("__", "."), content)
        self.configure(spec)

    def configure(self, spec: Mapping[str, object]) -> None:
        """Write the server's configuration file."""
        self.write("server.yaml", document("Server", "test", spec))

    def write(self, name: str, content: str | bytes) -> Path:
        """Replace a file of the folder at once, as configuration tools do."""
        target = self.folder / name
        temporary = self.folder / f".{name}.new"
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)
        temporary.replace(target)
        return target

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self, *, ready: bool = True) -> None:
        """Start and wait until it listens, and by default until it is ready."""
        environment = {**os.environ, "PYTHONUNBUFFERED": "1", "GRPC_VERBOSITY": "NONE"}
        with (self.folder / "stderr.txt").open("wb") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "ext_authz", "serve", "--config", str(self.config)],
                stdout=subprocess.PIPE,
                stderr=errors,
                env=environment,
            )
        # a test that fails half-way leaves no server behind
        atexit.register(self._process.kill)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.wait_for(lambda: self.events("listening"), "listening")
        if ready:
            self.wait_for(lambda: self.admin("/readyz")[0] == 200, "ready")

    def stop(self, number: int | None = signal.SIGTERM) -> int:
        """Signal (unless None), wait for the end, and return the exit code."""
        if self._process is None:
            raise AssertionError("the server was not started")
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        if number is not None and self._process.poll() is None:
            self._process.send_signal(number)
        try:
            code = self._process.wait(START_SECONDS)
        finally:
            self._process.kill()
            if self._reader is not None:
                self._reader.join()
            if self._process.stdout is not None:
                self._process.stdout.close()
        return code

    def signal(self, number: int) -> None:
        """Send a signal."""
        if self._process is None:
            raise AssertionError("the server was not started")
        self._process.send_signal(number)

    @property
    def stderr(self) -> str:
        """What it has written there."""
        return (self.folder / "stderr.txt").read_text()

    @property
    def address(self) -> str:
        """Where it serves Check."""
        return str(self.events("listening")[0]["check"])

    @property
    def channel(self) -> grpc.Channel:
        """A plain-text channel, shared."""
        if self._channel is None:
            self._channel = grpc.insecure_channel(self.address, options=(("grpc.use_local_subchannel_pool", 1),))
        return self._channel

    def check(self, request: bytes, timeout: float | None = 10.0) -> CheckResponse:
        """One Check over the shared channel."""
        return check_over(self.channel, request, timeout)

    def admin(self, target: str) -> tuple[int, str]:
        """Status and body of a GET on the admin listener; status 0 when it does not answer."""
        host, _, port = str(self.events("listening")[0]["admin"]).rpartition(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=10)
        try:
            connection.request("GET", target)
            response = connection.getresponse()
            return response.status, response.read().decode()
        except OSError:
            return 0, ""
        finally:
            connection.close()

    def metric(self, sample: str) -> float | None:
        """The value of the sample written exactly so, such as `a_total{b="c"}`."""
        for line in self.admin("/metrics")[1].splitlines():
            name, _, value = line.rpartition(" ")
            if name == sample:
                return float(value)
        return None

    def events(self, message: str | None = None) -> list[Json]:
        """The server's own log lines so far, by message."""
        return [
            fields
            for fields in list(self._records)
            if fields.get("log") == "server" and (message is None or fields.get("message") == message)
        ]

    def decisions(self) -> list[Json]:
        """The decision records so far."""
        return [fields for fields in list(self._records) if fields.get("log") == "decision"]

    def wait_for(self, condition: Callable[[], object], what: str, seconds: float = START_SECONDS) -> None:
        """Wait until `condition` holds; fail with what the server said when it does not."""
        until = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > until or (self._process is not None and self._process.poll() is not None):
                if condition():
                    return
                log = "\n".join(self.lines)
                raise AssertionError(f"the server is not {what}\nlog:\n{log}\nstderr:\n{self.stderr}")
            with self._arrived:
                self._arrived.wait(0.02)

    def _read(self) -> None:
        if self._process is None or self._process.stdout is None:
            raise AssertionError("the server was not started")
        for line in self._process.stdout:
            with self._arrived:
                self.lines.append(line.decode("ascii").rstrip("\n"))
                with contextlib.suppress(json.JSONDecodeError):
                    self._records.append(json.loads(line))
                self._arrived.notify_all()
