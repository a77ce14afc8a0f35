"""What warm requests feel while the server does its slow work: the ninety-ninth percentile against a quiet server's.

    python -m bench.cold [--effort quick]

An open-loop client sends warm requests at a fifth of what the server can do, at most a thousand a second. Beside it a
second client causes, one after another: bursts of first sights of one token whose key was published a moment ago, tokens
with key ids that nobody knows, and the same while the JWKS endpoint hangs.

How the two are kept comparable:

- A ratio compares a scene with the quiet time right before it, at the same rate of the same warm requests, so that what
  else the machine does in that half minute hits both. The figure is the median of the rounds.
- The server has its core to itself. Both clients and the issuer are on another one, and the one whose latencies count goes before the
  other there, where the system lets it. It is a process of its own: starting the other client and answering for the issuer
  hold up whoever shares an interpreter with them. So it measures the server's delays and not its own.
- A latency begins when its request was due, so a server that stops for a while is charged for all that came meanwhile.
- The percentile is taken over the whole scene. With a burst in each second that is what a client of a service feels with
  whom that happens each second; how bad one burst can be is the figure `longest`.
- The bound is judged on `h2`, the default transport. What `grpcio` does before the service is asked is its library's own
  and cannot be put in slices; its figures stand beside.
"""

import contextlib
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from http.server import BaseHTTPRequestHandler
from multiprocessing import get_context
from pathlib import Path

from support.jwks_endpoint import JwksEndpoint
from support.tokens import AUDIENCE, ISSUER, SigningKey, jwks, signing_key

from bench import workload
from bench.client import background, write_frames
from bench.figures import Effort, Report, Unavailable, say, standalone
from bench.load import Load, run_load, verify_answers
from bench.open_loop import open_loop
from bench.serve import TRANSPORT_NAMES
from bench.server import our_server, wait_for_check
from bench.timing import cores, pinned
from ext_authz.config.settings import ListenerSettings

__all__ = ["run"]

UNKNOWN_KIDS = {Effort.FULL: 10_000, Effort.QUICK: 1_000, Effort.SMOKE: 200}
SIGHTS = {Effort.FULL: 1_000, Effort.QUICK: 300, Effort.SMOKE: 50}
BURSTS = {Effort.FULL: 8, Effort.QUICK: 3, Effort.SMOKE: 1}
ROUNDS = {Effort.FULL: 5, Effort.QUICK: 1, Effort.SMOKE: 1}
DEFAULT = ListenerSettings("").transport
SHARE = 0.2
"""Of what the server can do, for warm and for cold requests each: a server that is loaded, and not close to its limit."""

MAXIMUM_RATE = 1_000.0
"""Requests a second: ten thousand in ten seconds, from two clients that share a core."""

BURST_PAUSE_SECONDS = 1.0
SIGHT_CONNECTIONS = 4
HANG_SECONDS = 60.0
_LATE = "StatusCode.DEADLINE_EXCEEDED"
COLD_DEADLINE_SECONDS = 2.0
"""Envoy's default is 200 ms; this client shares its core with the other and needs time for its own work."""


@dataclass(frozen=True, slots=True)
class _Scene:
    """One kind of cold work.

    Attributes:
        name: of the figure.
        seconds: that it takes.
        play: does it and returns how many calls were not answered in time; AssertionError for a wrong answer.
        note: in words.
        hangs: the JWKS endpoint does not answer meanwhile.
    """

    name: str
    seconds: float
    play: Callable[[], int]
    note: str
    hangs: bool = False


class _Rotating(JwksEndpoint):
    """A JWKS that has one more of `coming` at every fetch."""

    def __init__(self, always: SigningKey) -> None:
        super().__init__(jwks(always))
        self._always = always
        self._coming: Sequence[SigningKey] = ()
        self._since = 0

    def announce(self, coming: Sequence[SigningKey]) -> None:
        """The first of them is in the next answer."""
        self._coming, self._since = coming, self.requests

    def _answer(self, handler: BaseHTTPRequestHandler) -> None:
        self.document = jwks(self._always, *self._coming[: self.requests - self._since + 1])
        super()._answer(handler)


def run(effort: Effort) -> Report:
    """The ratio for each transport and scene."""
    report = Report("cold")
    for transport in TRANSPORT_NAMES:
        try:
            worst = _measure(report, transport, effort)
        except Unavailable as error:
            report.skip(transport, str(error))
        else:
            name = "cold_to_quiet_p99_ratio" if transport == DEFAULT else f"{transport}_cold_to_quiet_p99_ratio"
            report.add(name, worst, "ratio", f"the worst scene on {transport}")
    return report


def _measure(report: Report, transport: str, effort: Effort) -> float:
    message = workload.request()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        with pinned(cores()[1]):
            # its thread stays where it began
            endpoint = stack.enter_context(_Rotating(signing_key("RS256")))
            measuring = stack.enter_context(ProcessPoolExecutor(1, get_context("spawn")))
        issuer = {"name": "corp", "issuer": ISSUER, "audiences": [AUDIENCE], "algorithms": ["RS256", "ES256"]}
        issuers = [{**issuer, "keys": {"url": endpoint.url}}]
        fetch = {"unknown_key_cooldown_seconds": 0.5, "timeout_seconds": 5}
        address = stack.enter_context(our_server(transport, folder / "server", issuers=issuers, key_fetch=fetch))
        with pinned(cores()[1]):
            workload.check_allowed(wait_for_check(address, message))
            maximum = run_load(address, message, seconds=2.0).rate
            warm, cold = min(MAXIMUM_RATE, maximum * SHARE), min(MAXIMUM_RATE, maximum * SHARE)
            quiet: list[float] = []
            noisy: dict[str, list[float]] = {}
            ratios: dict[str, list[float]] = {}
            notes: dict[str, str] = {}
            longest: dict[str, float] = {}
            late = 0
            for number in range(ROUNDS[effort]):
                keys = [signing_key("ES256", index=1 + burst + number * 100) for burst in range(BURSTS[effort])]
                endpoint.announce(keys)
                for scene in _scenes(address, folder, effort, cold, keys):
                    quiet.append(_warm(measuring, address, message, warm, min(scene.seconds, 5.0)).percentile(99))
                    load, unanswered = _beside(scene, endpoint, partial(_warm, measuring, address, message, warm))
                    noisy.setdefault(scene.name, []).append(load.percentile(99))
                    ratios.setdefault(scene.name, []).append(load.percentile(99) / quiet[-1])
                    longest[scene.name] = max(longest.get(scene.name, 0.0), load.percentile(100))
                    notes[scene.name] = f"{scene.note}, beside {warm:.0f} warm ones a second"
                    late += unanswered
            workload.check_allowed(wait_for_check(address, message))
    report.add(f"{transport}_quiet_p99_ms", quiet, "ms", f"warm requests at {warm:.0f} a second")
    worst = 0.0
    for scene_name, samples in noisy.items():
        report.add(f"{transport}_{scene_name}_p99_ms", samples, "ms", notes[scene_name])
        report.add(f"{transport}_{scene_name}_longest_ms", longest[scene_name], "ms", notes[scene_name])
        ratio = report.add(f"{transport}_{scene_name}_p99_ratio", ratios[scene_name], "ratio", notes[scene_name])
        worst = max(worst, ratio.value)
    report.add(
        f"{transport}_late_cold_calls", late, "count", f"cold calls without an answer in {COLD_DEADLINE_SECONDS:g} s"
    )
    return worst


def _beside(scene: _Scene, endpoint: _Rotating, warm: Callable[[float], Load]) -> tuple[Load, int]:
    """The warm load while the scene is played, and how many of the scene's calls were late."""
    endpoint.delay = HANG_SECONDS if scene.hangs else 0.0
    try:
        with ThreadPoolExecutor(1) as stage:
            playing = stage.submit(scene.play)
            load = warm(scene.seconds)
            return load, playing.result(scene.seconds + 60)
    finally:
        endpoint.delay = 0.0


def _scenes(address: str, folder: Path, effort: Effort, rate: float, keys: Sequence[SigningKey]) -> tuple[_Scene, ...]:
    count, sights = UNKNOWN_KIDS[effort], SIGHTS[effort]
    unknown = signing_key("ES256", index=0)
    strangers = [
        workload.request(number, text=workload.token(number, key=replace(unknown, kid=f"unknown-{number}")))
        for number in range(count)
    ]
    firsts = [workload.request(number, text=workload.token(number, key=key)) for number, key in enumerate(keys)]
    at_rate = f"at {rate:.0f} a second"
    return (
        # before the others, whose fetches would bring the keys too early
        _Scene(
            "first_sights",
            # it begins with the warm-up of the other client
            len(firsts) * BURST_PAUSE_SECONDS,
            partial(_first_sights, address, firsts, sights),
            f"{sights} first sights of one token at once, every {BURST_PAUSE_SECONDS:g} s",
        ),
        _Scene(
            "unknown_kids",
            count / rate,
            partial(_strangers, address, strangers, rate, folder),
            f"{count} unknown key ids {at_rate}",
        ),
        _Scene(
            "hanging_jwks",
            count / 2 / rate,
            partial(_strangers, address, strangers[: count // 2], rate, folder),
            f"{count // 2} unknown key ids {at_rate}",
            hangs=True,
        ),
    )


def _first_sights(address: str, messages: Sequence[bytes], sights: int) -> int:
    """Each message `sights` times at once, one message after the other; every one must be allowed."""
    allowed = wait_for_check(address, workload.request())
    begin = time.monotonic() + 1.0
    for number, message in enumerate(messages):
        time.sleep(max(0.0, begin + number * BURST_PAUSE_SECONDS - time.monotonic()))
        # its clients' names have one digit as the first has, so the answers are of one size
        verify_answers(address, message, allowed, sights, connections=SIGHT_CONNECTIONS, streams=sights)
        workload.check_allowed(wait_for_check(address, message))
    return 0


def _strangers(address: str, requests: Sequence[bytes], rate: float, folder: Path) -> int:
    """Tokens whose keys nobody knows; every one must be denied."""
    frames = folder / "frames"
    write_frames(frames, requests)
    seconds = len(requests) / rate
    with background(address, frames, folder, rate=rate, burst=1, deadline=COLD_DEADLINE_SECONDS) as client:
        outcome = client.finish(seconds + 60)
    # the client shares its core with the one that measures, and may be late itself: such calls are told, not refused
    if outcome.denials + outcome.errors[_LATE] != outcome.total:
        raise AssertionError(f"tokens with unknown keys were not all denied: {outcome}")
    return outcome.errors[_LATE]


def _warm(measuring: Executor, address: str, message: bytes, rate: float, seconds: float) -> Load:
    return measuring.submit(open_loop, address, message, rate=rate, seconds=max(1.0, seconds)).result(seconds + 60)


if __name__ == "__main__":
    say("cold")
    standalone(run, __doc__)
