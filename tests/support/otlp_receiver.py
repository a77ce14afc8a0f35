"""A collector on loopback: takes OTLP over HTTP, decodes it, and keeps the spans."""

import gzip
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

__all__ = ["OtlpReceiver", "ReceivedSpan"]


@dataclass(frozen=True)
class ReceivedSpan:
    """One span.

    Attributes:
        service: `service.name` of its resource.
        name: of the span.
        trace_id: lowercase hexadecimal, as the two that follow.
        span_id: see `trace_id`.
        parent_id: see `trace_id`; empty for a root.
        kind: the number of its kind; 2 is a server's.
        attributes: those that are text.
        events: name of each, in order.
        times: start, each event, end; nanoseconds.
        is_error: whether its status says so.
    """

    service: str
    name: str
    trace_id: str
    span_id: str
    parent_id: str
    kind: int
    attributes: Mapping[str, str]
    events: tuple[str, ...]
    times: tuple[int, ...]
    is_error: bool


class OtlpReceiver:
    """Listens while its `with` block runs.

    Attributes:
        status: HTTP status of the answers.
        delay: seconds to wait before each.
        failures: exports that could not be decoded.
    """

    def __init__(self) -> None:
        self.status = 200
        self.delay = 0.0
        self.failures: list[str] = []
        self._spans: list[ReceivedSpan] = []
        self._stopping = threading.Event()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                receiver._take(self)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)

    @property
    def address(self) -> str:
        """`host:port`."""
        return f"127.0.0.1:{self._server.server_address[1]}"

    @property
    def endpoint(self) -> str:
        """Where spans go."""
        return f"http://{self.address}/v1/traces"

    @property
    def spans(self) -> list[ReceivedSpan]:
        """Those that have arrived."""
        return list(self._spans)

    def wait_for(self, wanted: Callable[[ReceivedSpan], bool], seconds: float = 15.0) -> ReceivedSpan:
        """The first span that is `wanted`, once it is there."""
        until = time.monotonic() + seconds
        while True:
            for span in self.spans:
                if wanted(span):
                    return span
            if time.monotonic() > until:
                raise AssertionError(f"no such span among {self.spans}; {self.failures}")
            time.sleep(0.02)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _take(self, handler: BaseHTTPRequestHandler) -> None:
        body = _body(handler)
        if handler.headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        self._stopping.wait(self.delay)
        if self.status == 200:
            self._keep(handler.path, handler.headers["content-type"], body)
        answer = ExportTraceServiceResponse().SerializeToString()
        try:
            handler.send_response(self.status)
            handler.send_header("content-type", "application/x-protobuf")
            handler.send_header("content-length", str(len(answer)))
            handler.end_headers()
            handler.wfile.write(answer)
        except OSError:
            # the exporter has given up, as some tests want
            pass

    def _keep(self, path: str, content_type: str, body: bytes) -> None:
        if (path, content_type) != ("/v1/traces", "application/x-protobuf"):
            self.failures.append(f"{path} {content_type}")
            return
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            names = {pair.key: pair.value.string_value for pair in resource.resource.attributes}
            for scope in resource.scope_spans:
                self._spans += [
                    ReceivedSpan(
                        service=names.get("service.name", ""),
                        name=span.name,
                        trace_id=span.trace_id.hex(),
                        span_id=span.span_id.hex(),
                        parent_id=span.parent_span_id.hex(),
                        kind=span.kind,
                        attributes={pair.key: pair.value.string_value for pair in span.attributes},
                        events=tuple(event.name for event in span.events),
                        times=(
                            span.start_time_unix_nano,
                            *(event.time_unix_nano for event in span.events),
                            span.end_time_unix_nano,
                        ),
                        is_error=span.status.code == 2,
                    )
                    for span in scope.spans
                ]


def _body(handler: BaseHTTPRequestHandler) -> bytes:
    if handler.headers.get("transfer-encoding") != "chunked":
        return handler.rfile.read(int(handler.headers["content-length"]))
    body = b""
    while size := int(handler.rfile.readline(), 16):
        body += handler.rfile.read(size)
        handler.rfile.readline()
    handler.rfile.readline()
    return body
