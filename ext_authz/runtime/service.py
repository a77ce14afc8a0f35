"""CheckRequest bytes to CheckResponse bytes: parse, authorize, serialize, count, record. Every transport calls this.

A warm decision is one synchronous call. When the authorizer names a `Need`, the answer becomes an awaitable (`waiting`).
"""

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Protocol, TypeAlias

from ext_authz.authorizer import Examination, authorize
from ext_authz.decision import Decision, Diagnostics
from ext_authz.denials import Denials, DenialSettings
from ext_authz.errors import Reason, Refusal
from ext_authz.facts import RequestFacts
from ext_authz.need import Need
from ext_authz.runtime.waiting import ENDS, CurrentSnapshot, KeySource, Undecided, Waiting
from ext_authz.telemetry.decision_id import decision_ids
from ext_authz.telemetry.decision_log import DecisionLog
from ext_authz.telemetry.metrics import Metrics
from ext_authz.telemetry.traceparent import HEADER as TRACEPARENT
from ext_authz.wire.check_request import parse_check_request
from ext_authz.wire.check_response import says_internal_error, serialize

__all__ = ["CheckService", "Traces"]

_logger = logging.getLogger(__name__)


class Traces(Protocol):
    """Who records decisions of traces."""

    def record(self, traceparent: str, decision: Decision, decision_id: str, times: tuple[float, float, float]) -> str:
        """As `telemetry.traces.CheckTraces.record`."""
        ...


# A check that is under way: `time.perf_counter()` when its bytes came and when they were parsed, and the `traceparent` of
# its gRPC call, None when nobody looked. A plain tuple, because one is made twice for every request.
_Started: TypeAlias = tuple[float, float, str | None]


class CheckService:
    """The service behind every transport; one per process, used from the event loop alone."""

    def __init__(
        self,
        current: CurrentSnapshot,
        keys: KeySource,
        metrics: Metrics,
        log: DecisionLog,
        *,
        maximum_message_bytes: int,
        default_deadline: float,
        stage_interval: int = 0,
        traces: Traces | None = None,
        random_bits: Callable[[int], int] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Wire up.

        Args:
            current: gives the snapshot for each decision.
            keys: fulfils needs.
            metrics: counts.
            log: records.
            maximum_message_bytes: a larger request is denied unparsed.
            default_deadline: seconds a call may take when the caller did not say.
            stage_interval: the stages of one decision in so many are measured; 0 for none.
            traces: records the decisions of traces; None for no traces.
            random_bits: for decision ids; by default a generator of this service's own.
            clock: seconds since the epoch.
        """
        self._current = current
        self._waiting = Waiting(current, keys, default_deadline=default_deadline, clock=clock)
        self._metrics = metrics
        self._log = log
        self._maximum_message_bytes = maximum_message_bytes
        self._clock = clock
        self._stage_interval = stage_interval
        self._until_stages = stage_interval
        self._traces = traces
        # a service of its own is made in each process, so no two processes share a generator's state
        self._new_id = decision_ids(random_bits or random.Random().getrandbits)  # noqa: S311 - an id is no secret
        # made now, so that nothing is left that could fail when it is needed
        self._internal_denials = Denials(DenialSettings())
        self._internal_error = serialize(self._internal_denials.deny(Reason.INTERNAL_ERROR))

    def check(self, request: bytes, deadline: float | None, traceparent: str | None = None) -> bytes | Awaitable[bytes]:
        """Answer one CheckRequest; see `transport.CheckCall`. Never raises, never answers with an error of the transport.

        A gRPC error would hand the decision to Envoy's `failure_mode_allow`.
        """
        arrived = time.perf_counter()
        started: _Started = (arrived, arrived, traceparent)
        now = self._clock()
        facts: RequestFacts | None = None
        try:
            snapshot = self._current.snapshot
            try:
                facts = self._parse(request)
            except Refusal as refusal:
                denial = snapshot.denials.deny(
                    refusal.reason, takes_token=False, diagnostics=Diagnostics(detail=refusal.detail)
                )
                return self._answer(denial, None, now, started)
            started = (arrived, time.perf_counter(), traceparent)
            seen = Examination()
            outcome = authorize(facts, snapshot, now, self._waiting.futile, seen)
            if isinstance(outcome, Need):
                return self._wait(Undecided(facts, seen, outcome), deadline, started)
            return self._answer(outcome, facts, now, started)
        except ENDS:
            raise
        except BaseException as error:  # noqa: BLE001 - a panic of native code is no Exception, and a denial all the same
            return self._fail(error, facts, now, started)

    def _parse(self, request: bytes) -> RequestFacts:
        if len(request) > self._maximum_message_bytes:
            raise Refusal(Reason.REQUEST_MALFORMED, "the message is larger than the configured maximum")
        return parse_check_request(request)

    def _wait(self, undecided: Undecided, deadline: float | None, started: _Started) -> Awaitable[bytes]:
        self._metrics.waiting += 1
        facts = undecided.facts
        answer, fail = partial(self._answer_late, facts, started), partial(self._fail_late, facts, started)
        answered = self._waiting.wait(undecided, deadline, answer, fail)
        answered.add_done_callback(self._waited)
        return answered

    def _waited(self, _: "asyncio.Future[bytes]") -> None:
        self._metrics.waiting -= 1

    def _answer_late(self, facts: RequestFacts, started: _Started, decision: Decision) -> bytes:
        return self._answer(decision, facts, self._clock(), started, waited=True)

    def _fail_late(self, facts: RequestFacts, started: _Started, error: BaseException) -> bytes:
        return self._fail(error, facts, self._clock(), started)

    def _answer(
        self, decision: Decision, facts: RequestFacts | None, now: float, started: _Started, *, waited: bool = False
    ) -> bytes:
        decided = time.perf_counter()
        decision_id = self._new_id()
        id_in_metadata = self._current.snapshot.id_in_metadata
        response = serialize(decision, decision_id, id_in_metadata=id_in_metadata)
        if says_internal_error(response):
            # an allowed request whose changes cannot be written: the records say what Envoy is told
            _logger.error("an allowed request could not be answered and was denied")
            self._metrics.internal_error()
            about = decision.diagnostics._replace(detail="the changes to the request cannot be written")
            decision = self._internal_denials.deny(Reason.INTERNAL_ERROR, diagnostics=about)
            response = serialize(decision, decision_id, id_in_metadata=id_in_metadata)
        ended = time.perf_counter()
        if not waited:
            self._until_stages -= 1
            if self._until_stages == 0:
                self._until_stages = self._stage_interval
                arrived, parsed, _ = started
                self._metrics.stages(parsed - arrived, decided - parsed, ended - decided)
        self._tell(decision, decision_id, facts, started, now=now, times=(decided, ended), waited=waited)
        return response

    def _tell(
        self,
        decision: Decision,
        decision_id: str,
        facts: RequestFacts | None,
        started: _Started,
        *,
        now: float,
        times: tuple[float, float],
        waited: bool,
    ) -> None:
        """Count, trace and log one decision, which was made and written at these `time.perf_counter()`."""
        arrived, parsed, traceparent = started
        decided, ended = times
        latency = ended - arrived
        trace_id = ""
        if self._traces is not None:
            if traceparent is None:
                traceparent = _traceparent(facts)
            trace_id = self._traces.record(
                traceparent, decision, decision_id, (parsed - arrived, decided - arrived, latency)
            )
        self._metrics.check(decision, latency, waited=waited, decision_id=decision_id, trace_id=trace_id, now=now)
        self._log.record(decision, facts, now, latency, decision_id=decision_id, traceparent=traceparent)

    def _fail(self, error: BaseException, facts: RequestFacts | None, now: float, started: _Started) -> bytes:
        """Deny because of `error`, whatever else still works."""
        response = self._internal_error
        with contextlib.suppress(Exception):
            _logger.error("a check failed and was denied", exc_info=error)
            self._metrics.internal_error()
            about = Diagnostics(detail="see the server log for the exception")
            denial = self._internal_denials.deny(Reason.INTERNAL_ERROR, diagnostics=about)
            decision_id = self._new_id()
            response = serialize(denial, decision_id)
            ended = time.perf_counter()
            self._tell(denial, decision_id, facts, started, now=now, times=(ended, ended), waited=False)
        return response


def _traceparent(facts: RequestFacts | None) -> str:
    """The request's own, which is that of Envoy's caller; empty when there is none."""
    try:
        return "" if facts is None else facts.headers.joined(TRACEPARENT) or ""
    except Refusal:
        # not UTF-8
        return ""
