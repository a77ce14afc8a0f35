"""Floods that a client can cause: nothing fails open, nothing crashes, memory stays bounded. Ends with an error if not.

    python -m bench.flood [--effort quick]

Distinct invalid tokens, distinct valid tokens beyond what the cache holds, and blocks of 60 KB of headers, each against the
whole server. Afterwards a right request is still allowed and a stolen token still denied.
"""

import base64
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from support.tokens import access_token, compact, signing_key

from bench import workload
from bench.client import Outcome, send
from bench.figures import Effort, Report, say, standalone
from bench.memory import resident_mib
from bench.serve import TRANSPORT_NAMES
from bench.server import Running, our_process, wait_for_check
from ext_authz.token.token_cache import TOKEN_CAPACITY
from ext_authz.wire._pb.envoy.service.auth.v3.external_auth_pb2 import CheckResponse

__all__ = ["run"]

INVALID = {Effort.FULL: 30_000, Effort.QUICK: 2_000, Effort.SMOKE: 200}
VALID = {Effort.FULL: TOKEN_CAPACITY * 5 // 4, Effort.QUICK: 3_000, Effort.SMOKE: 200}
LARGE = {Effort.FULL: 3_000, Effort.QUICK: 500, Effort.SMOKE: 50}
HEADER_BLOCK_BYTES = 60 * 1024
"""Envoy's default for all headers of a request together."""

GROWTH_MIB = {"invalid_tokens": 48.0, "valid_tokens": 200.0, "header_blocks": 64.0}
"""How much each flood may add. The caches are bounded by entries: 4,096 refusals and certificates, 100,000 tokens of
about 1.3 KiB; the rest is what the allocator keeps."""


def run(effort: Effort) -> Report:
    """Every flood on every transport.

    Raises:
        AssertionError: something failed open, crashed or grew too much.
    """
    report = Report("flood")
    for transport in TRANSPORT_NAMES:
        with tempfile.TemporaryDirectory() as folder, our_process(transport, Path(folder)) as server:
            before = resident_mib(server.process.pid)
            report.add(f"{transport}_rss_before_mib", before, "MiB")
            floods: tuple[tuple[str, Iterator[bytes], Callable[[Outcome], bool]], ...] = (
                ("invalid_tokens", _invalid(INVALID[effort]), lambda seen: seen.denials == seen.total),
                ("header_blocks", _large(LARGE[effort]), lambda seen: seen.denials == seen.total),
                ("valid_tokens", _valid(VALID[effort]), lambda seen: seen.allowed == seen.total),
            )
            for name, requests, holds in floods:
                before = _flood(
                    report, server, f"{transport}_{name}", requests, holds, before=before, growth=GROWTH_MIB[name]
                )
    return report


def _flood(
    report: Report,
    server: Running,
    name: str,
    requests: Iterator[bytes],
    holds: Callable[[Outcome], bool],
    *,
    before: float,
    growth: float,
) -> float:
    outcome = send(server.address, requests)
    server.process.check_alive()
    after = resident_mib(server.process.pid)
    if not outcome.total or not holds(outcome):
        raise AssertionError(f"{name}: {outcome}")
    if after - before > growth:
        raise AssertionError(f"{name}: memory grew by {after - before:.0f} MiB, more than {growth:.0f}")
    _still_right(server.address)
    report.add(f"{name}_count", outcome.total, "count", "all answered as they must, none with a gRPC error")
    report.add(f"{name}_rss_mib", after, "MiB", f"after the flood; it may add {growth:.0f}")
    return after


def _still_right(address: str) -> None:
    workload.check_allowed(wait_for_check(address, workload.request()))
    stolen = wait_for_check(address, workload.request(1, text=workload.token(0)))
    answer = CheckResponse.FromString(stolen)
    if not answer.HasField("status") or answer.status.code == 0:
        raise AssertionError("after a flood a stolen token is allowed")


def _invalid(count: int) -> Iterator[bytes]:
    """Eight kinds in turn, no two tokens the same; for most of them the signature has to be looked at."""
    right, wrong = signing_key("ES256"), signing_key("ES256", index=99, kid=signing_key("ES256").kid)
    for number in range(count):
        kind = number % 8
        if kind == 0:
            text = workload.token(number, key=wrong)
        elif kind == 1:
            text = workload.token(number, key=right, aud="https://other.example")
        elif kind == 2:
            text = workload.token(number, key=right, exp=1_000_000_000 + number)
        elif kind == 3:
            # another client's certificate
            text = workload.token(number, key=right, caller=workload.callers()[(number + 1) % workload.CALLERS])
        elif kind == 4:
            text = compact({"alg": "none", "typ": "at+jwt"}, {"iss": "https://issuer.example", "jti": str(number)})
        elif kind == 5:
            text = f"{number}." * 3 + "."
        elif kind == 6:
            text = base64.urlsafe_b64encode(number.to_bytes(8, "big") * 100).decode()
        else:
            text = access_token(right, sub=f"unbound-{number}", exp=4_000_000_000)
        yield workload.request(number, text=text)


def _valid(count: int) -> Iterator[bytes]:
    key = signing_key("ES256")
    return (workload.request(number, text=workload.token(number, key=key)) for number in range(count))


def _large(count: int) -> Iterator[bytes]:
    """Requests without a token and with as many header bytes as Envoy lets through, in few or many fields."""
    for number in range(count):
        fields = 1 if number % 2 else 90
        size = HEADER_BLOCK_BYTES // fields
        headers = {f"x-{number}-{position}": f"{position}" * (size // len(str(position))) for position in range(fields)}
        yield workload.request(number, text="", headers=headers)


if __name__ == "__main__":
    say("flood")
    standalone(run, __doc__)
