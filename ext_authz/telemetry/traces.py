"""A span for each decision of a recorded trace, sent to an OpenTelemetry collector; needs the extra `otel`.

The span is made when the decision is: until then tracing costs nothing, and of a trace that nobody records it costs the
reading of one header. The caller says whether a trace is recorded (the sampled flag); a client may be the one that says so,
hence the limit. Spans wait in a bounded queue and a thread of the SDK sends them, so that a collector that hangs slows no one.
"""

import time
from collections import Counter
from collections.abc import Callable, Sequence

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    set_span_in_context,
)

from ext_authz import __version__
from ext_authz.decision import Allow, Decision
from ext_authz.telemetry.traceparent import TraceParent, parse_traceparent

__all__ = ["CheckTraces"]

_NAME = "envoy.service.auth.v3.Authorization/Check"
_CALL = {
    "rpc.system": "grpc",
    "rpc.service": "envoy.service.auth.v3.Authorization",
    "rpc.method": "Check",
}
_NANOSECONDS = 1_000_000_000


class CheckTraces:
    """Records decisions as spans. Used from the event loop alone; `close` from any thread."""

    def __init__(
        self,
        exporter: SpanExporter,
        *,
        service_name: str,
        maximum_per_second: int,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        """Start the thread that sends.

        Args:
            exporter: takes the spans.
            service_name: whose spans they are.
            maximum_per_second: more are not made.
            clock: nanoseconds since the epoch.
        """
        self._counts = Counter({"exported": 0, "failed": 0, "limited": 0})
        self._clock = clock
        self._per_second = maximum_per_second
        self._second = 0
        self._in_second = 0
        resource = Resource.create({"service.name": service_name, "service.version": __version__})
        # the caller's sampled flag decides, before a span is made
        self._provider = TracerProvider(sampler=ALWAYS_ON, resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(_Counting(exporter, self._counts)))
        self._tracer = self._provider.get_tracer("ext_authz", __version__)

    @classmethod
    def over_http(
        cls, endpoint: str, *, service_name: str, maximum_per_second: int, timeout_seconds: float
    ) -> "CheckTraces":
        """Send to the collector at the URL `endpoint`; one batch may take `timeout_seconds`.

        The exporter also reads the standard `OTEL_EXPORTER_OTLP_…` variables for headers and certificates.
        """
        exporter = OTLPSpanExporter(endpoint=endpoint, timeout=timeout_seconds)
        return cls(exporter, service_name=service_name, maximum_per_second=maximum_per_second)

    def counts(self) -> dict[str, int]:
        """Spans so far that were `exported`, `failed` to be, or were not made because of the limit (`limited`)."""
        return dict(self._counts)

    def record(self, traceparent: str, decision: Decision, decision_id: str, times: tuple[float, float, float]) -> str:
        """Record one decision that was just made, if its trace is recorded.

        Args:
            traceparent: as the caller sent it; empty when it did not.
            decision: made.
            decision_id: of it.
            times: seconds from its start until the request was parsed, until it was decided, and until its answer was
                written.

        Returns:
            The trace id, or an empty text when nothing is recorded.
        """
        parent = parse_traceparent(traceparent) if traceparent else None
        if parent is None or not parent.sampled:
            return ""
        now = self._clock()
        parsed, decided, ended = times
        if not self._may_record(now):
            self._counts["limited"] += 1
            return ""
        start = now - round(ended * _NANOSECONDS)
        span = self._tracer.start_span(
            _NAME,
            context=_remote(parent),
            kind=SpanKind.SERVER,
            start_time=start,
            attributes=_attributes(decision, decision_id),
        )
        span.add_event("request parsed", timestamp=start + round(parsed * _NANOSECONDS))
        span.add_event("decided", timestamp=start + round(decided * _NANOSECONDS))
        if not isinstance(decision, Allow) and decision.http_status >= 500:
            span.set_status(Status(StatusCode.ERROR, decision.reason.value))
        span.end(now)
        return parent.trace_id

    def close(self) -> None:
        """Send what waits and end the thread."""
        self._provider.shutdown()

    def _may_record(self, now: int) -> bool:
        second = now // _NANOSECONDS
        if second != self._second:
            self._second = second
            self._in_second = 0
        self._in_second += 1
        return self._in_second <= self._per_second


class _Counting(SpanExporter):
    """Counts what becomes of the spans given to another exporter. Called by the thread that sends."""

    def __init__(self, exporter: SpanExporter, counts: Counter[str]) -> None:
        self._exporter = exporter
        self._counts = counts

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = self._exporter.export(spans)
        self._counts["exported" if result is SpanExportResult.SUCCESS else "failed"] += len(spans)
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()


def _remote(parent: TraceParent) -> Context:
    context = SpanContext(
        trace_id=int(parent.trace_id, 16),
        span_id=int(parent.parent_id, 16),
        is_remote=True,
        trace_flags=TraceFlags(TraceFlags.SAMPLED),
    )
    return set_span_in_context(NonRecordingSpan(context))


def _attributes(decision: Decision, decision_id: str) -> dict[str, str]:
    """What the metrics have as labels, and the id: nothing about the caller, whose place is the decision log."""
    about = decision.diagnostics
    attributes = {
        **_CALL,
        "ext_authz.decision": "allow" if isinstance(decision, Allow) else "deny",
        "ext_authz.decision_id": decision_id,
        "ext_authz.reason": decision.reason.value,
    }
    for name, value in (("policy", about.policy), ("rule", about.rule), ("issuer", about.issuer)):
        if value is not None:
            attributes[f"ext_authz.{name}"] = value
    return attributes
