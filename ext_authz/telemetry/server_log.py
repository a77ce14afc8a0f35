"""The server's own log: JSON lines in the same stream as the decisions.

An exception is logged with its type and where it passed, never with its message: messages quote what was being parsed.
"""

import logging
import traceback
import warnings
from types import TracebackType
from typing import TextIO

from ext_authz.telemetry.decision_log import json_line, timestamp
from ext_authz.telemetry.line_sink import LineSink, Text

__all__ = ["LOGGER_NAME", "ServerLogHandler", "exception_summary", "log_event", "start_server_log"]

LOGGER_NAME = "ext_authz"
_EVENT = "ext_authz_event"

_logger = logging.getLogger(__name__)


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
    logging.getLogger(LOGGER_NAME).setLevel(level.upper())
    warnings.showwarning = _WarningsOnce()
    # behind whatever `-W` says. The standard library's own "once" keeps every text it has seen; this keeps nothing
    warnings.simplefilter("always", UserWarning, append=True)
    return handler


class _WarningsOnce:
    """Logs a library's warning the first time that its place in the code warns, and without its text.

    A certificate that a client sends can make a library warn, as often as the client likes and in words that may quote it. On
    standard error they would stand between the lines of nobody's log.
    """

    def __init__(self) -> None:
        # as many as there are lines of code that call what warns
        self._told: set[tuple[type[Warning], str, int]] = set()

    def __call__(  # noqa: PLR0917 - the interface of `warnings.showwarning`
        self,
        message: Warning | str,  # noqa: ARG002 - may quote what a client sent
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,  # noqa: ARG002 - of the interface
        line: str | None = None,  # noqa: ARG002 - of the interface
    ) -> None:
        """Log, in the place of `warnings.showwarning`."""
        place = (category, filename, lineno)
        if place not in self._told:
            self._told.add(place)
            kind = f"{category.__module__}.{category.__qualname__}"
            log_event(
                _logger,
                logging.WARNING,
                "a library warned, and is not told again",
                kind=kind,
                at=f"{filename}:{lineno}",
            )


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
