"""A gRPC client that sends different requests and counts the answers, in this process or as one of its own.

python -m bench.client --address 127.0.0.1:9000 --frames FILE --rate 1000
"""

import argparse
import asyncio
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
from grpc import aio
from support.server import CHECK_METHOD

from bench.load import on_core
from bench.timing import cores
from ext_authz.demo.process import Process
from ext_authz.wire._pb.envoy.service.auth.v3.external_auth_pb2 import CheckResponse

__all__ = ["Outcome", "background", "send", "write_frames"]

NICENESS = 5
"""As a process of its own it shares a core with the client whose latencies count."""

CHANNELS = 4
CONCURRENCY = 64
DEADLINE_SECONDS = 20.0
"""Of each call: far more than Envoy gives, so that a slow machine is not taken for an error."""


@dataclass(slots=True)
class Outcome:
    """What came back.

    Attributes:
        allowed: answers that let the request through.
        denied: answers that do not, by HTTP status.
        errors: calls that ended with a gRPC error, by its code: Envoy would ask `failure_mode_allow`.
        seconds: that all of it took.
    """

    allowed: int
    denied: Counter[int]
    errors: Counter[str]
    seconds: float

    @property
    def denials(self) -> int:
        """Of any status."""
        return sum(self.denied.values())

    @property
    def total(self) -> int:
        """Answers of any kind."""
        return self.allowed + self.denials + sum(self.errors.values())


def send(address: str, requests: Iterable[bytes], concurrency: int = CONCURRENCY) -> Outcome:
    """Send every request once, so many at a time."""
    return asyncio.run(_send(address, requests, concurrency))


async def _send(
    address: str,
    requests: Iterable[bytes],
    concurrency: int,
    *,
    rate: float | None = None,
    burst: int = 1,
    deadline: float = DEADLINE_SECONDS,
) -> Outcome:
    """Send `requests` at `rate` a second, or as fast as answers come, always `burst` of them at once."""
    outcome = Outcome(0, Counter(), Counter(), 0.0)
    options = (("grpc.use_local_subchannel_pool", 1),)
    channels = [aio.insecure_channel(address, options=options) for _ in range(CHANNELS)]
    calls = [channel.unary_unary(CHECK_METHOD, None, None) for channel in channels]
    free = asyncio.Semaphore(concurrency)

    async def one(number: int, request: bytes) -> None:
        try:
            answer = CheckResponse.FromString(await calls[number % CHANNELS](request, timeout=deadline))
        except grpc.RpcError as error:
            outcome.errors[str(error.code())] += 1
        else:
            # as Envoy reads it: a missing status is an allow
            if answer.status.code == 0:
                outcome.allowed += 1
            else:
                outcome.denied[int(answer.denied_response.status.code)] += 1
        finally:
            free.release()

    started = time.monotonic()
    try:
        async with asyncio.TaskGroup() as group:
            for number, request in enumerate(requests):
                if rate is not None:
                    turn = started + number // burst * burst / rate
                    if (early := turn - time.monotonic()) > 0:
                        await asyncio.sleep(early)
                await free.acquire()
                group.create_task(one(number, request))
    finally:
        for channel in channels:
            await channel.close(None)
    outcome.seconds = time.monotonic() - started
    return outcome


def write_frames(file: Path, requests: Iterable[bytes]) -> int:
    """Requests with their lengths, for `--frames`; returns how many."""
    count = 0
    with file.open("wb") as out:
        for request in requests:
            out.write(len(request).to_bytes(4, "big") + request)
            count += 1
    return count


def _read_frames(file: Path) -> Iterator[bytes]:
    with file.open("rb") as frames:
        while header := frames.read(4):
            yield frames.read(int.from_bytes(header, "big"))


@contextmanager
def background(
    address: str, frames: Path, folder: Path, *, rate: float, burst: int, deadline: float
) -> Iterator["Background"]:
    """The client as a process beside the load, behind it in priority. It keeps to `rate` also when nothing is answered."""
    at_once = max(burst, CONCURRENCY, int(2 * rate * deadline))
    arguments = ["--address", address, "--frames", str(frames), "--concurrency", str(at_once)]
    arguments += ["--rate", f"{rate:g}", "--burst", str(burst), "--deadline", f"{deadline:g}"]
    command = on_core(cores()[1], [sys.executable, "-m", "bench.client", *arguments])
    process = Process("client", command, folder / "client.log")
    process.start()
    try:
        yield Background(process, folder / "client.log")
    finally:
        process.stop()


@dataclass(frozen=True, slots=True)
class Background:
    """A client that runs beside."""

    process: Process
    log: Path

    def finish(self, seconds: float) -> Outcome:
        """Wait for its end and read what it counted."""
        until = time.monotonic() + seconds
        while not self.log.read_text().rstrip().endswith("}"):
            if time.monotonic() > until:
                raise AssertionError(f"the client is not finished: {self.log.read_text()[-1000:]}")
            time.sleep(0.1)
        counted = json.loads(self.log.read_text().strip().splitlines()[-1])
        denied = Counter({int(status): count for status, count in counted["denied"].items()})
        return Outcome(counted["allowed"], denied, Counter(counted["errors"]), counted["seconds"])


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--address", required=True)
    parser.add_argument("--frames", type=Path, required=True)
    parser.add_argument("--rate", type=float)
    parser.add_argument("--concurrency", type=int, default=CONCURRENCY)
    parser.add_argument("--burst", type=int, default=1)
    parser.add_argument("--deadline", type=float, default=DEADLINE_SECONDS)
    arguments = parser.parse_args()
    os.nice(NICENESS)
    requests = _read_frames(arguments.frames)
    outcome = asyncio.run(
        _send(
            arguments.address,
            requests,
            arguments.concurrency,
            rate=arguments.rate,
            burst=arguments.burst,
            deadline=arguments.deadline,
        )
    )
    counted = {"allowed": outcome.allowed, "denied": outcome.denied, "errors": outcome.errors}
    print(json.dumps({**counted, "seconds": outcome.seconds}), flush=True)


if __name__ == "__main__":
    main()
