"""One JSON line for each decision: who, what, where, why, how long. Never a token, never a query string."""

import base64
import json
import re
from datetime import UTC, datetime
from typing import NamedTuple

import orjson

from ext_authz.decision import Allow, Decision, Diagnostics
from ext_authz.facts import RequestFacts
from ext_authz.telemetry.line_sink import LineSink

__all__ = ["MAX_FIELD", "MAX_PATH", "DecisionLog", "DecisionRecord", "json_line"]

MAX_PATH = 1_024
"""Characters of the path that are kept: more than any sane route, less than a flood of log."""

MAX_FIELD = 256
"""Characters of any other field a client may choose. A SPIFFE ID may have 2,048 bytes and is kept whole."""

# what may hold a credential ends the logged path: query, fragment, path parameters, also percent-encoded
_PATH_END = re.compile(r"[?#;]|%(?:25)*(?:3[fFbB]|23)")
# three base64url segments of which the first is a JSON object: a JWT that someone put into a path or another field
_JWT = re.compile(r"eyJ[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]*)+")

# for what is not printable ASCII already. Made once: `json.dumps` with these options makes an encoder for each call
_encode = json.JSONEncoder(ensure_ascii=True, separators=(",", ":"), default=str).encode


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
    return _encode(fields).replace("\x7f", "\\u007f")


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
        request_id: Envoy's.
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
    diagnostics: Diagnostics

    def render(self) -> str:
        """The line."""
        about = self.diagnostics
        fields: dict[str, object] = {
            "time": timestamp(self.at),
            "log": "decision",
            "decision": self.verdict,
            "reason": self.reason,
            "http_status": self.http_status,
            "policy": about.policy,
            "rule": about.rule,
            "issuer": about.issuer,
            "subject": _bounded(about.subject),
            "client_id": _bounded(about.client_id),
            "token_id": _bounded(about.token_id),
            "spiffe_id": about.spiffe_id,
            "thumbprint": _base64url(about.thumbprint),
            "provenance": ",".join(about.provenance) or None,
            "method": self.method,
            "host": _without_token(self.host.rpartition("@")[2]),
            "path": _without_token(_PATH_END.split(self.path, maxsplit=1)[0]),
            "source_address": self.source_address or None,
            "request_id": self.request_id or None,
            "latency_us": round(self.latency * 1_000_000),
            "detail": about.detail or None,
        }
        return json_line({name: value for name, value in fields.items() if value is not None})


class DecisionLog:
    """Takes decisions on the request path and leaves the writing to the sink."""

    __slots__ = ("_sink", "allowed")

    def __init__(self, sink: LineSink, *, allowed: bool = True) -> None:
        """Write to `sink`; allow decisions only while `allowed`."""
        self._sink = sink
        self.allowed = allowed

    def record(self, decision: Decision, facts: RequestFacts | None, now: float, latency: float) -> None:
        """Queue the record of one decision.

        Args:
            decision: made.
            facts: what it was about; None when the request could not be parsed.
            now: seconds since the epoch.
            latency: seconds.
        """
        allowed = isinstance(decision, Allow)
        if allowed and not self.allowed:
            return
        self._sink.put(
            DecisionRecord(
                at=now,
                verdict="allow" if allowed else "deny",
                reason=decision.reason.value,
                http_status=None if isinstance(decision, Allow) else decision.http_status,
                latency=latency,
                method=facts.method[:MAX_FIELD] if facts else "",
                host=facts.host[:MAX_FIELD] if facts else "",
                path=facts.path[:MAX_PATH] if facts else "",
                source_address=facts.source_address[:MAX_FIELD] if facts else "",
                request_id=facts.request_id[:MAX_FIELD] if facts else "",
                diagnostics=decision.diagnostics,
            )
        )


def timestamp(at: float) -> str:
    """RFC 3339 in UTC with microseconds."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def _bounded(text: str | None) -> str | None:
    return None if text is None else _without_token(text[:MAX_FIELD])


def _without_token(text: str) -> str:
    return _JWT.sub("[token]", text) if "eyJ" in text else text


def _base64url(thumbprint: bytes | None) -> str | None:
    # the form of `x5t#S256`, so that an operator can compare it with the token
    return None if thumbprint is None else base64.urlsafe_b64encode(thumbprint).rstrip(b"=").decode()
