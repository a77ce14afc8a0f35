"""Accepts connections for the workers.

One process accepts for all, because Envoy keeps few connections and each carries much. A kernel that chooses by a hash of
addresses (`SO_REUSEPORT`), or whichever worker happens to wake first, leaves some workers with two or three and others with
none; handed to the one with the fewest, they differ by one at most. Handing one over takes less than a tenth of a millisecond,
once for each connection. A worker that dies loses none that waits: it has no queue of its own.
"""

import asyncio
import logging
import socket
from collections.abc import Callable

from ext_authz.runtime.listening import Listening
from ext_authz.telemetry.server_log import exception_summary, log_event

__all__ = ["Accepting"]

ACCEPTED_AT_ONCE = 100
"""Connections, before everything else has its turn again."""

PAUSE_SECONDS = 1.0
"""While the process has as many files open as it may."""

_logger = logging.getLogger(__name__)


class Accepting:
    """Takes connections from listening sockets, on the event loop."""

    def __init__(self, listening: Listening, on_connection: Callable[[socket.socket], None]) -> None:
        """Begin; each connection belongs to `on_connection`."""
        self._listening: Listening | None = listening
        self._on_connection = on_connection
        self._loop = asyncio.get_running_loop()
        for listener in listening.sockets:
            self._loop.add_reader(listener, self._accept, listener)

    def close(self) -> None:
        """Listen no longer."""
        listening, self._listening = self._listening, None
        if listening is not None:
            for listener in listening.sockets:
                self._loop.remove_reader(listener)
            listening.close()

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(ACCEPTED_AT_ONCE):
            try:
                accepted, _ = listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                # the connection stays in the queue, and asking again at once would never end
                log_event(_logger, logging.ERROR, "a connection cannot be accepted", detail=exception_summary(error))
                self._loop.remove_reader(listener)
                self._loop.call_later(PAUSE_SECONDS, self._accept_again, listener)
                return
            self._on_connection(accepted)

    def _accept_again(self, listener: socket.socket) -> None:
        if self._listening is not None:
            self._loop.add_reader(listener, self._accept, listener)
