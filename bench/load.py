"""`h2load` (Debian's `nghttp2-client`) as the load on every server that is compared: one client, one set of settings."""

import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from support.server import CHECK_METHOD

from bench.figures import Unavailable, percentile
from bench.timing import cores

__all__ = ["CONNECTIONS", "STREAMS", "Load", "grpc_frame", "on_core", "run_load", "verify_answers"]

CONNECTIONS = 4
"""Envoy keeps one HTTP/2 connection for each of its worker threads."""

STREAMS = 16
"""Requests at once on each."""

VERIFIED = 2_000
"""Answers whose size is held to the right one before anything is measured."""

_FINISHED = re.compile(r"finished in [\d.]+\w+, ([\d.]+) req/s")
_REQUESTS = re.compile(
    r"requests: (\d+) total, \d+ started, (\d+) done, (\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout"
)
_STATUSES = re.compile(r"status codes: (\d+) 2xx")
_TRAFFIC = re.compile(r"traffic: .*\((\d+)\) data$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Load:
    """What one run of h2load saw.

    Attributes:
        rate: answers per second.
        answers: how many.
        latencies: of each, in milliseconds.
    """

    rate: float
    answers: int
    latencies: tuple[float, ...]

    def percentile(self, percent: float) -> float:
        """In milliseconds."""
        return percentile(self.latencies, percent)


def grpc_frame(message: bytes) -> bytes:
    """A message as it stands in a gRPC request body: not compressed, its length, itself."""
    return b"\0" + len(message).to_bytes(4, "big") + message


def on_core(core: int, command: list[str]) -> list[str]:
    """`command` on `core` alone, where the system can do that."""
    return ["taskset", "--cpu-list", str(core), *command] if shutil.which("taskset") else command


def run_load(
    address: str,
    message: bytes,
    *,
    seconds: float,
) -> Load:
    """Send Check with `message` as fast as answers come (closed loop), after a second of warming up.

    Args:
        address: `host:port` of a plain-text gRPC server.
        message: the CheckRequest.
        seconds: how long.

    Raises:
        Unavailable: there is no h2load.
        AssertionError: requests failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "log")
        options = ["--duration", f"{seconds:g}", "--warm-up-time", "1", "--log-file", str(log)]
        counted = _h2load(address, message, [*options, *_parallel(CONNECTIONS, STREAMS)], seconds + 60, Path(folder))
        return Load(counted.rate, counted.answers, _latencies(log, seconds))


def verify_answers(
    address: str,
    message: bytes,
    response: bytes,
    count: int = VERIFIED,
    *,
    connections: int = CONNECTIONS,
    streams: int = STREAMS,
) -> None:
    """Send `count` requests, `streams` at once on each connection, and hold every answer to the size of `response`.

    h2load looks at HTTP statuses only, and a gRPC error has status 200 and no body; a denial has another size.

    Raises:
        Unavailable: there is no h2load.
        AssertionError: requests failed, or answers differ.
    """
    with tempfile.TemporaryDirectory() as folder:
        options = ["--requests", str(count), *_parallel(connections, streams)]
        counted = _h2load(address, message, options, 120, Path(folder))
    expected = count * len(grpc_frame(response))
    if counted.answers != count or counted.data_bytes != expected:
        raise AssertionError(f"{counted.answers} answers with {counted.data_bytes} bytes, not {count} with {expected}")


@dataclass(frozen=True, slots=True)
class _Counted:
    rate: float
    answers: int
    data_bytes: int


def _parallel(connections: int, streams: int) -> list[str]:
    return ["--clients", str(connections), "--max-concurrent-streams", str(streams)]


def _h2load(address: str, message: bytes, options: list[str], timeout: float, folder: Path) -> _Counted:
    binary = shutil.which("h2load")
    if binary is None:
        raise Unavailable("no h2load on this machine (Debian: apt-get install nghttp2-client)")
    body = folder / "body"
    body.write_bytes(grpc_frame(message))
    command = [binary, "--threads", "1", *options, "--data", str(body)]
    command += ["--header", "content-type: application/grpc", "--header", "te: trailers"]
    # windows of a client that never makes the server wait
    command += ["--window-bits", "20", "--connection-window-bits", "20", f"http://{address}{CHECK_METHOD}"]
    command = on_core(cores()[1], command)
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    text = done.stdout
    finished, requests, traffic = _FINISHED.search(text), _REQUESTS.search(text), _TRAFFIC.search(text)
    statuses = _STATUSES.search(text)
    if not (finished and requests and traffic and statuses):
        raise AssertionError(f"h2load said something else:\n{text}{done.stderr}")
    answers, failed = int(requests[3]), int(requests[4]) + int(requests[5]) + int(requests[6])
    # a status is counted when its headers arrive: at either end of the time some requests have only one of the two
    if answers == 0 or failed or abs(int(statuses[1]) - answers) > CONNECTIONS * STREAMS:
        raise AssertionError(f"requests failed:\n{text}{done.stderr}")
    return _Counted(float(finished[1]), answers, int(traffic[1]))


def _latencies(log: Path, seconds: float) -> tuple[float, ...]:
    """Milliseconds of the requests that began after the warm-up; the log has start, status and duration in us."""
    entries = [line.split("\t") for line in log.read_text().splitlines()]
    started = [(int(fields[0]), int(fields[2])) for fields in entries if len(fields) == 3]
    if not started:
        raise AssertionError("h2load logged nothing")
    last = max(begin for begin, _ in started)
    return tuple(duration / 1_000 for begin, duration in started if begin >= last - seconds * 1_000_000)
