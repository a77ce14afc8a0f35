"""How many connections one process holds at a time, and what becomes of the others."""

import contextlib
import logging
import resource
import socket
import struct
import time
from collections.abc import Callable

from ext_authz.telemetry.server_log import log_event

__all__ = ["ConnectionLimit", "affordable"]

OTHER_DESCRIPTORS = 100
"""For everything but connections of Envoys: files, the admin listener's connections, fetches of keys, the log."""

LOG_SECONDS = 10.0
"""Between two lines about connections that were refused, however many there are."""

# linger for zero seconds: the connection is reset, and no socket of ours stays behind in TIME_WAIT
_RESET = struct.pack("ii", 1, 0)

_logger = logging.getLogger(__name__)


def affordable(wanted: int) -> int:
    """As many of `wanted` connections as the process may have files open.

    The soft limit is raised as far as it has to be and the hard one allows: many systems set it to 1,024 for programs that
    use `select`, and leave half a million to those that ask.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted + OTHER_DESCRIPTORS
    if soft != resource.RLIM_INFINITY and soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        # a system may allow less than its hard limit says
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft < needed:
            log_event(_logger, logging.WARNING, "fewer connections than configured", files=soft, maximum=wanted)
            return max(1, soft - OTHER_DESCRIPTORS)
    return wanted


class ConnectionLimit:
    """Counts connections, and resets those that are too many as soon as they were accepted.

    An Envoy whose connection is reset knows at once that this server is of no use to it, tries another or denies. One
    that was left to wait would hold its requests until they time out.

    Attributes:
        maximum: at a time.
        open: now.
    """

    def __init__(
        self, maximum: int, on_refused: Callable[[], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Nothing is open.

        Args:
            maximum: at a time.
            on_refused: told of each that is refused.
            clock: seconds.
        """
        self.maximum = maximum
        self.open = 0
        self._on_refused = on_refused
        self._clock = clock
        self._untold = 0
        self._told_at = -LOG_SECONDS

    def admit(self, accepted: socket.socket) -> bool:
        """Whether the connection may stay; one that may not is closed."""
        if self.open < self.maximum:
            self.open += 1
            return True
        with contextlib.suppress(OSError):
            accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        accepted.close()
        self._on_refused()
        self._untold += 1
        now = self._clock()
        if now - self._told_at >= LOG_SECONDS:
            log_event(_logger, logging.WARNING, "connections are refused", refused=self._untold, maximum=self.maximum)
            self._untold, self._told_at = 0, now
        return False

    def release(self) -> None:
        """One that was admitted has ended."""
        self.open -= 1
