"""The server's own log: JSON lines in the same stream as the decisions.

An exception is logged with its type and where it passed, never with its message: messages quote what was being parsed.
"""

import logging
import traceback
from types import TracebackType

from ext_authz.telemetry.decision_log import json_line, timestamp
from ext_authz.telemetry.line_sink import LineSink, Text

__all__ = ["LOGGER_NAME", "ServerLogHandler", "exception_summary", "log_event", "start_server_log"]

LOGGER_NAME = "ext_authz"
_EVENT = "ext_authz_event"


class ServerLogHandler(logging.Handler):
    """Turns log records of the standard library into lines of the sink."""

    def __init__(self, sink: LineSink) -> None:
        """Write to `sink`."""
        super().__init__()
        self._sink = sink

    def emit(self, record: logging.LogRecord) -> None:
        """Queue one line. Fields passed through `log_event` become members of their own."""
        fields: dict[str, object] = {
            "time": timestamp(record.created),
            "log": "server",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        extra = getattr(record, _EVENT, None)
        if isinstance(extra, dict):
            fields |= extra
        if record.exc_info is not None and record.exc_info[1] is not None:
            fields["exception"] = exception_summary(record.exc_info[1])
        self._sink.put(Text(json_line(fields)))


def start_server_log(sink: LineSink, level: str) -> ServerLogHandler:
    """Send every library's log to `sink` from `level` up; ours too.

    Returns:
        The handler, to be removed from the root logger at the end.
    """
    handler = ServerLogHandler(sink)
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(logging.WARNING)  # libraries speak when something is wrong
    # httpx logs each request with its URL at INFO, which says nothing our key log does not
    logging.getLogger(LOGGER_NAME).setLevel(level.upper())
    return handler


def log_event(logger: logging.Logger, level: int, message: str, **fields: object) -> None:
    """Log `message` with members of its own for what varies."""
    logger.log(level, message, extra={_EVENT: fields})


def exception_summary(exception: BaseException) -> str:
    """Type and call stack of `exception`, oldest call first, without its message.

    A chain of causes is followed; it is what the traceback of the standard library would show, less the text.
    """
    parts: list[str] = []
    seen: set[int] = set()
    current: BaseException | None = exception
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        kind = type(current)
        parts.append(f"{kind.__module__}.{kind.__qualname__} at {_frames(current.__traceback__)}")
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)
    return " <- ".join(parts)


def _frames(trace: TracebackType | None) -> str:
    return " > ".join(f"{frame.filename}:{frame.lineno} {frame.name}" for frame in traceback.extract_tb(trace))
