"""One JSON line for each decision: who, what, where, why, how long. Never a token, never a query string."""

import base64
import json
import re
from datetime import UTC, datetime
from functools import lru_cache
from typing import NamedTuple

import orjson

from ext_authz.decision import Allow, Decision, Diagnostics
from ext_authz.errors import Refusal
from ext_authz.facts import RequestFacts
from ext_authz.telemetry.line_sink import Lines
from ext_authz.telemetry.traceparent import HEADER as TRACEPARENT
from ext_authz.telemetry.traceparent import parse_traceparent

__all__ = ["MAX_FIELD", "MAX_PATH", "DecisionLog", "DecisionRecord", "json_line"]

MAX_PATH = 1_024
"""Characters of the path that are kept: more than any sane route, less than a flood of log."""

MAX_FIELD = 256
"""Characters of any other field a client may choose. A SPIFFE ID may have 2,048 bytes and is kept whole."""

_SAMPLE_STEPS = 1 << 32
_EVERYTHING = "g"  # above every hexadecimal digit

# what may hold a credential ends the logged path: query, fragment, path parameters, also percent-encoded
_PATH_END = re.compile(r"[?#;]|%(?:25)*(?:3[fFbB]|23)")
# three base64url segments of which the first is a JSON object: a JWT that someone put into a path or another field
_JWT = re.compile(r"eyJ[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]*)+")

# for what is not printable ASCII already. Made once: `json.dumps` with these options makes an encoder for each call
_encode = json.JSONEncoder(ensure_ascii=True, separators=(",", ":"), default=str).encode


def _escaped(value: object) -> str:
    return _encode(value).replace("\x7f", "\\u007f")


def json_line(fields: dict[str, object]) -> str:
    """`fields` as JSON on one line of printable ASCII.

    Every other character is escaped, DEL included, which JSON itself would let through.
    """
    try:
        line = orjson.dumps(fields, default=str).decode()
    except TypeError:  # a lone surrogate, an integer beyond 64 bits
        line = ""
    # isprintable is false for DEL, and the usual line has no character beyond ASCII
    if line and line.isascii() and line.isprintable():
        return line
    return _escaped(fields)


class DecisionRecord(NamedTuple):
    """What one line is made of: bounded pieces, so that a full queue holds bounded memory.

    Attributes:
        at: seconds since the epoch.
        verdict: `allow` or `deny`.
        reason: the stable code.
        http_status: of a denial; None when allowed.
        latency: seconds.
        method: as sent, at most MAX_FIELD characters.
        host: as `method`.
        path: raw with query, at most MAX_PATH characters; cut again when rendered.
        source_address: of the connection.
        request_id: Envoy's stream id.
        decision_id: ours.
        client_request_id: the request's `x-request-id`, which Envoy's access log has; at most MAX_FIELD characters.
        traceparent: the request's, or its gRPC call's; bounded as well.
        sample: the part of allow decisions that is logged; 1 for a denial.
        diagnostics: who and which rule.
    """

    at: float
    verdict: str
    reason: str
    http_status: int | None
    latency: float
    method: str
    host: str
    path: str
    source_address: str
    request_id: str
    decision_id: str
    client_request_id: str
    traceparent: str
    sample: float
    diagnostics: Diagnostics

    def render(self) -> str:
        """The line: members in this order, without those that are not known."""
        # what recurs is kept as JSON; a dictionary of everything would take twice as long, for every request
        about = self.diagnostics
        return (
            f'{{"time":"{timestamp(self.at)}","log":"decision"'
            f"{self._identified() if self.decision_id else ''}"
            f"{_verdict(self.verdict, self.reason, self.http_status)}"
            f"{_about(about)}"
            f"{_target(self.method, self.host)}"
            f',"path":{_json(_without_token(_PATH_END.split(self.path, maxsplit=1)[0]))}'
            f"{_member('source_address', self.source_address)}"
            f"{_member('request_id', self.request_id)}"
            f"{_member('x_request_id', _without_token(self.client_request_id))}"
            f"{self._traced() if self.traceparent else ''}"
            f"{'' if self.sample == 1 else self._sampled()}"
            f',"latency_us":{round(self.latency * 1_000_000)}'
            f"{_member('detail', about.detail) if about.detail else ''}}}"
        )

    def _identified(self) -> str:
        # ours: 32 hexadecimal digits
        return f',"decision_id":"{self.decision_id}"'

    def _traced(self) -> str:
        trace = parse_traceparent(self.traceparent)
        return "" if trace is None else _member("trace_id", trace.trace_id)

    def _sampled(self) -> str:
        return f',"sample":{self.sample!r}'


def _json(text: str) -> str:
    """`text` as JSON; most is printable ASCII without a quote, and stands as it is."""
    if text.isascii() and text.isprintable() and '"' not in text and "\\" not in text:
        return f'"{text}"'
    return _escaped(text)


def _member(name: str, text: str | None) -> str:
    """One more member of an object, or nothing when there is no text."""
    return f',"{name}":{_json(text)}' if text else ""


@lru_cache(maxsize=256)
def _verdict(verdict: str, reason: str, http_status: int | None) -> str:
    status = "" if http_status is None else f',"http_status":{http_status}'
    return f"{_member('decision', verdict)}{_member('reason', reason)}{status}"


@lru_cache(maxsize=4096)  # a caller's requests of one rule are about the same; at some 2 KB each
def _about(about: Diagnostics) -> str:
    """Who and which rule."""
    fields = {
        "policy": about.policy,
        "rule": about.rule,
        "issuer": about.issuer,
        "subject": _bounded(about.subject),
        "client_id": _bounded(about.client_id),
        "token_id": _bounded(about.token_id),
        "spiffe_id": about.spiffe_id,
        "thumbprint": _base64url(about.thumbprint),
        "provenance": ",".join(about.provenance) or None,
    }
    return "".join(f',"{name}":{_json(value)}' for name, value in fields.items() if value is not None)


@lru_cache(maxsize=1024)  # at most 6 KB each, when 512 characters are escaped
def _target(method: str, host: str) -> str:
    return f',"method":{_json(method)},"host":{_json(_without_token(host.rpartition("@")[2]))}'


class DecisionLog:
    """Takes decisions on the request path and leaves the writing to the sink."""

    __slots__ = ("_allowed", "_below", "_sink")

    def __init__(self, sink: Lines, *, allowed: float = 1.0) -> None:
        """Write to `sink`: every denial, and the part `allowed` (0 to 1) of the decisions that allow."""
        self._sink = sink
        self.allowed = allowed

    @property
    def allowed(self) -> float:
        """The part of allow decisions that is logged; denials always are."""
        return self._allowed

    @allowed.setter
    def allowed(self, ratio: float) -> None:
        self._allowed = ratio
        # Ids are evenly distributed hexadecimal digits of one length, which sort as the numbers they stand for: which
        # decisions are logged can be told from their ids, and the choice is one comparison.
        self._below = _EVERYTHING if ratio >= 1 else f"{int(ratio * _SAMPLE_STEPS):08x}" if ratio > 0 else ""

    def record(
        self,
        decision: Decision,
        facts: RequestFacts | None,
        now: float,
        latency: float,
        *,
        decision_id: str = "",
        traceparent: str | None = None,
    ) -> None:
        """Queue the record of one decision.

        Args:
            decision: made.
            facts: what it was about; None when the request could not be parsed.
            now: seconds since the epoch.
            latency: seconds.
            decision_id: of the decision.
            traceparent: of the gRPC call; by default that of the request.
        """
        if isinstance(decision, Allow):
            if decision_id >= self._below:
                return
            verdict, http_status, sample = "allow", None, self._allowed
        else:
            verdict, http_status, sample = "deny", decision.http_status, 1.0
        if facts is None:
            facts = _UNREADABLE
        if traceparent is None:
            traceparent = _header(facts, TRACEPARENT)
        # in the order of the fields: naming them would take as long as all the rest
        self._sink.put(
            DecisionRecord(
                now,
                verdict,
                decision.reason._value_,  # `value` is two calls of Python code
                http_status,
                latency,
                facts.method[:MAX_FIELD],
                facts.host[:MAX_FIELD],
                facts.path[:MAX_PATH],
                facts.source_address[:MAX_FIELD],
                facts.request_id[:MAX_FIELD],
                decision_id,
                _header(facts, "x-request-id"),
                traceparent[:MAX_FIELD],
                sample,
                decision.diagnostics,
            )
        )


_UNREADABLE = RequestFacts("", "", "")


def _header(facts: RequestFacts, name: str) -> str:
    try:
        return (facts.headers.joined(name) or "")[:MAX_FIELD]
    except Refusal:
        # not UTF-8
        return ""


def timestamp(at: float) -> str:
    """RFC 3339 in UTC with microseconds."""
    microseconds = round(at * 1_000_000)
    return f"{_second(microseconds // 1_000_000)}.{microseconds % 1_000_000:06d}Z"


@lru_cache(maxsize=16)
def _second(at: int) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def _bounded(text: str | None) -> str | None:
    return None if text is None else _without_token(text[:MAX_FIELD])


def _without_token(text: str) -> str:
    return _JWT.sub("[token]", text) if "eyJ" in text else text


def _base64url(thumbprint: bytes | None) -> str | None:
    # the form of `x5t#S256`, so that an operator can compare it with the token
    return None if thumbprint is None else base64.urlsafe_b64encode(thumbprint).rstrip(b"=").decode()
