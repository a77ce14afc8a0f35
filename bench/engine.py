"""The engine alone: bytes of a CheckRequest in, bytes of a CheckResponse out, no transport.

    python -m bench.engine [--effort quick] [--profile]

256 different requests (tokens, paths, request ids) from 16 clients take turns, so that nothing is fast only because it is
the same again.
"""

import argparse
import asyncio
import base64
import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from support.tokens import signing_key

from bench import workload
from bench.figures import Effort, Report, say
from bench.stages import stages
from bench.timing import time_batches
from ext_authz.authorizer import authorize
from ext_authz.need import Need
from ext_authz.runtime.service import CheckService
from ext_authz.snapshot import Snapshot
from ext_authz.telemetry.decision_log import DecisionLog
from ext_authz.telemetry.line_sink import LineSink
from ext_authz.telemetry.line_turns import LinesInTurns
from ext_authz.telemetry.metrics import Metrics
from ext_authz.token.access_token import verify_access_token
from ext_authz.token.issuer_directory import IssuerDirectory
from ext_authz.token.token_cache import TokenCache
from ext_authz.wire.check_request import parse_check_request
from ext_authz.wire.check_response import serialize

__all__ = ["run"]

REQUESTS = 256
ROUTE_COUNTS = (10, 100, 1_000, 10_000)
COLD_TOKENS = 200
WHOLE = "whole decision"
BETWEEN = "calls between them"

ROUNDS = {Effort.FULL: 60, Effort.QUICK: 8, Effort.SMOKE: 2}
REPETITIONS = {Effort.FULL: 8, Effort.QUICK: 4, Effort.SMOKE: 1}
"""How often a batch goes through its requests."""


def run(effort: Effort) -> Report:
    """Every figure of the engine."""
    report = Report("engine")
    with tempfile.TemporaryDirectory() as folder:
        _warm(report, effort, Path(folder))
        _routes(report, effort, Path(folder))
        _cold(report, effort, Path(folder))
    for stage, value in profile(effort).items():
        if stage != WHOLE:
            report.add(f"stage: {stage}", value, "us")
    return report


def decide(data: bytes, snapshot: Snapshot, now: float) -> bytes:
    """The warm path as the service goes it."""
    decision = authorize(parse_check_request(data), snapshot, now)
    assert not isinstance(decision, Need), "a benchmark with inline keys needs none"
    return serialize(decision)


def requests_over(table: Sequence[workload.Route], tokens: Sequence[str], **parts: Any) -> list[bytes]:  # noqa: ANN401 - as `workload.request`
    """As many requests as tokens, spread evenly over the routes of `table`."""
    step = max(1, len(table) // len(tokens))
    return [
        workload.request(number, table[number * step % len(table)], text=text, **parts)
        for number, text in enumerate(tokens)
    ]


def _warm(report: Report, effort: Effort, folder: Path) -> None:
    table = workload.routes(ROUTE_COUNTS[0])
    snapshot = workload.snapshot_of(workload.deployment(folder / "warm", table))
    tokens = [workload.token(number) for number in range(REQUESTS)]
    requests = requests_over(table, tokens)
    other = requests_over(table, tokens, method="POST")
    # a name with `_` may have to be removed, so the answer is worded for each of these requests
    spelled = requests_over(table, tokens, headers={"x_trace": "1"})
    now = time.time()
    for data in requests:
        workload.check_allowed(decide(data, snapshot, now))
    rounds = ROUNDS[effort]
    core = _batch(requests, lambda data: decide(data, snapshot, now), REPETITIONS[effort])
    samples = time_batches(
        {
            "core": core,
            "denied": _batch(other, lambda data: decide(data, snapshot, now), REPETITIONS[effort]),
            "worded": _batch(spelled, lambda data: decide(data, snapshot, now), REPETITIONS[effort]),
        },
        rounds=rounds,
    )
    collected = time_batches({"core": core}, rounds=rounds, collector=True)
    served = _served(snapshot, requests, effort)
    report.add("request_bytes", len(requests[0]), "bytes", "size of the CheckRequest")
    report.add("warm_decision_us", samples["core"], "us", "token and certificate seen before")
    report.add("warm_decision_with_gc_us", collected["core"], "us", "the same, the garbage collector on")
    report.add("warm_decision_worded_us", samples["worded"], "us", "the same, where no answer can be given again")
    report.add("warm_service_us", served, "us", "with metrics, the decision record and its line, log to /dev/null")
    report.add("warm_denial_us", samples["denied"], "us", "no rule for the method")


def _served(snapshot: Snapshot, requests: Sequence[bytes], effort: Effort) -> Sequence[float]:
    """Microseconds of the whole service for each request, up to the line that the log's thread writes."""
    with Path(os.devnull).open("wb") as nowhere, asyncio.Runner() as runner:
        sink = LineSink(nowhere.fileno())
        lines = LinesInTurns(sink)
        service = CheckService(
            _Current(snapshot),
            _NoKeys(),
            Metrics(),
            DecisionLog(lines),
            maximum_message_bytes=1_048_576,
            default_deadline=1.0,
        )
        check = _batch(requests, lambda data: service.check(data, None), 1)

        async def batch() -> int:
            count = 0
            for _ in range(REPETITIONS[effort]):
                count += check()
                lines.flush()
            return count

        # not in turns with the others, whose turn the log's thread would reach into
        samples = time_batches({"service": lambda: runner.run(batch())}, rounds=ROUNDS[effort])
        sink.close()
    return samples["service"]


def _routes(report: Report, effort: Effort, folder: Path) -> None:
    counts = ROUTE_COUNTS if effort is not Effort.SMOKE else ROUTE_COUNTS[:2]
    tokens = [workload.token(number) for number in range(REQUESTS)]
    now = time.time()
    for layout in ("one destination", "many destinations"):
        batches: dict[str, Callable[[], int]] = {}
        for count in counts:
            destinations = 1 if layout == "one destination" else count // 10
            table = workload.routes(count, destinations=destinations)
            where = folder / f"{count}-{destinations}"
            snapshot = workload.snapshot_of(workload.deployment(where, table))
            requests = requests_over(table, tokens)
            workload.check_allowed(decide(requests[-1], snapshot, now))
            batches[str(count)] = _batch(requests, _deciding(snapshot, now), REPETITIONS[effort])
        samples = time_batches(batches, rounds=ROUNDS[effort])
        short = layout.split()[0]
        for count in counts:
            report.add(f"warm_decision_{count}_routes_{short}_us", samples[str(count)], "us", f"{layout}")
        first, last = samples[str(counts[0])], samples[str(counts[-1])]
        ratios = [large / small for small, large in zip(first, last, strict=True)]
        report.add(f"route_scaling_ratio_{short}", ratios, "ratio", f"{counts[-1]} over {counts[0]} routes, {layout}")
    worse = max(report.value("route_scaling_ratio_one") or 0, report.value("route_scaling_ratio_many") or 0)
    report.add("route_scaling_ratio", worse, "ratio", f"{counts[-1]} over {counts[0]} routes, the worse layout")


def _cold(report: Report, effort: Effort, folder: Path) -> None:
    """First sights: the same tokens again and again, each time with an empty token cache."""
    count = COLD_TOKENS if effort is not Effort.SMOKE else 20
    table = workload.routes(ROUTE_COUNTS[0])
    base = workload.snapshot_of(workload.deployment(folder / "cold", table))
    tokens = [workload.token(number) for number in range(count)]
    requests = requests_over(table, tokens)
    now = time.time()
    for data in requests:
        decide(data, base, now)
    current = [base]

    def forget() -> None:
        terms = [trusted.issuer for trusted in base.issuers]
        keys = {trusted.issuer.name: trusted.keys for trusted in base.issuers if trusted.keys is not None}
        current[0] = replace(base, issuers=IssuerDirectory(terms, keys, cache=TokenCache()))

    public = signing_key("RS256").private.public_key()
    assert isinstance(public, RSAPublicKey)
    parts = [text.rpartition(".") for text in tokens]
    signed = [(head.encode(), _decoded(signature)) for head, _, signature in parts]
    scheme, digest = padding.PKCS1v15(), SHA256()

    def verify(pair: tuple[bytes, bytes]) -> None:
        public.verify(pair[1], pair[0], scheme, digest)

    rounds = ROUNDS[effort]
    samples = time_batches(
        {
            "verify": _batch(signed, verify, 1),
            "cold": _batch(requests, lambda data: decide(data, current[0], now), 1),
            "token": _batch(tokens, lambda text: verify_access_token(text, current[0].issuers, now), 1),
        },
        rounds=rounds,
        prepare={"cold": forget, "token": forget},
    )
    beyond = [cold - raw for cold, raw in zip(samples["cold"], samples["verify"], strict=True)]
    alone = [token - raw for token, raw in zip(samples["token"], samples["verify"], strict=True)]
    report.add("raw_verify_us", samples["verify"], "us", "RS256, 2048 bits, by cryptography alone")
    report.add("cold_decision_us", samples["cold"], "us", "token never seen, certificate seen before")
    report.add("cold_token_overhead_us", beyond, "us", "cold decision, all of it, less the raw verification")
    report.add("cold_token_alone_us", alone, "us", "of that the token: its form, header, claims and cache entries")


def _batch(items: Sequence[object], operation: Callable[..., object], repetitions: int) -> Callable[[], int]:
    def batch() -> int:
        for _ in range(repetitions):
            for item in items:
                operation(item)
        return repetitions * len(items)

    return batch


def _deciding(snapshot: Snapshot, now: float) -> Callable[[bytes], bytes]:
    return lambda data: decide(data, snapshot, now)


def _decoded(segment: str) -> bytes:
    return base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4))


class _Current:
    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot


class _NoKeys:
    def may_fetch(self, need: Need, now: float) -> bool:  # noqa: ARG002 - the protocol's
        return False

    async def fulfil(self, need: Need, deadline: float) -> None:
        """Never asked."""


def profile(effort: Effort) -> Mapping[str, float]:
    """Microseconds of each stage, measured alone on the values that the stage before it made."""
    with tempfile.TemporaryDirectory() as folder:
        table = workload.routes(ROUTE_COUNTS[0])
        snapshot = workload.snapshot_of(workload.deployment(Path(folder), table))
        tokens = [workload.token(number) for number in range(REQUESTS)]
        requests = requests_over(table, tokens)
        now = time.time()
        for data in requests:
            workload.check_allowed(decide(data, snapshot, now))
        prepared = stages(requests, snapshot, now)
        batches = {name: _staged(calls, REPETITIONS[effort]) for name, calls in prepared.items()}
        batches[WHOLE] = _batch(requests, _deciding(snapshot, now), REPETITIONS[effort])
        batches["empty call"] = _staged([(_nothing, ())] * REQUESTS, REPETITIONS[effort])
        samples = time_batches(batches, rounds=ROUNDS[effort])
    medians = {name: sorted(values)[len(values) // 2] for name, values in samples.items()}
    empty = medians.pop("empty call")
    whole = medians.pop(WHOLE)
    alone = {name: max(0.0, value - empty) for name, value in medians.items()}
    # the authorizer itself, and values that the caches of the processor no longer hold
    return {**alone, BETWEEN: max(0.0, whole - sum(alone.values())), WHOLE: whole}


def _staged(calls: Sequence[tuple[Callable[..., object], tuple[object, ...]]], repetitions: int) -> Callable[[], int]:
    def batch() -> int:
        for _ in range(repetitions):
            for function, arguments in calls:
                function(*arguments)
        return repetitions * len(calls)

    return batch


def _nothing(*_: object) -> None:
    """What calling costs."""


def _print_profile(shares: Mapping[str, float]) -> None:
    for name, value in shares.items():
        print(f"{name:<44} {value:6.2f} us {value / shares[WHOLE]:6.1%}")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--effort", type=Effort, choices=list(Effort), default=Effort.FULL)
    parser.add_argument("--profile", action="store_true", help="print where each microsecond goes")
    arguments = parser.parse_args()
    if arguments.profile:
        _print_profile(profile(arguments.effort))
    else:
        say("engine")
        run(arguments.effort)


if __name__ == "__main__":
    main()
