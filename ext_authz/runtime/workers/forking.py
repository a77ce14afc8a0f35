"""The supervisor's end of the nursery: workers are asked for here, and their end is told."""

import asyncio
import logging
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from typing import IO

from ext_authz.runtime.workers.channel import Channel, Message
from ext_authz.telemetry.server_log import log_event

__all__ = ["Forking"]

END_SECONDS = 2.0
"""For the nursery to see off what has ended."""

_MODULE = "ext_authz.runtime.workers.nursery"

_logger = logging.getLogger(__name__)


class Forking:
    """Keeps a nursery. When it ends, its workers go on, and the next worker comes from a new one."""

    def __init__(self, on_forked: Callable[[int, int], None], on_ended: Callable[[int, int], None]) -> None:
        """Prepare; the first worker starts the nursery.

        Args:
            on_forked: told serial number and process id of a worker that has been started.
            on_ended: told process id and exit code, negative for a signal.
        """
        self._on_forked = on_forked
        self._on_ended = on_ended
        self._channel: Channel | None = None
        self._process: subprocess.Popen[bytes] | None = None
        # for `LineSink`: a file without a name that all workers have open
        self._lock: IO[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """Of the nursery that lives."""
        return None if self._process is None else self._process.pid

    def fork(self, serial: int, number: int, patience: float, on_message: Callable[[Message], None]) -> Channel:
        """Start a worker.

        Args:
            serial: unlike that of any other.
            number: its place, for the log.
            patience: seconds that workers have to end when the supervisor is gone.
            on_message: given what it says; `None` never: its end is a message `gone`.

        Returns:
            The channel to it; what is sent at once waits until it reads.

        Raises:
            OSError: no more files or processes are to be had.
        """
        own, its = socket.socketpair()
        with its:
            fields = {"serial": serial, "worker": number, "patience": patience}
            try:
                self._nursery().send(Message("fork", fields, files=(its.fileno(),)))
            except OSError:
                own.close()
                raise
        return Channel(own, on_message, lambda: on_message(Message("gone")))

    def kill(self) -> None:
        """End the nursery at once, because it hangs; those that it was to start end with it."""
        if self._process is not None:
            self._process.kill()

    def close(self) -> None:
        """End the nursery."""
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        if self._process is not None:
            try:
                self._process.wait(END_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _nursery(self) -> Channel:
        if self._channel is None:
            self._lock = self._lock or tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - closed by `close`
            own, its = socket.socketpair()
            with its:
                descriptors = (its.fileno(), self._lock.fileno())
                command = [sys.executable, "-m", _MODULE, *map(str, descriptors)]
                try:
                    self._process = subprocess.Popen(command, pass_fds=descriptors, stdin=subprocess.DEVNULL)  # noqa: S603 - ourselves
                except OSError:
                    own.close()
                    raise
            self._channel = Channel(own, self._receive, self._ended)
        return self._channel

    def _receive(self, message: Message) -> None:
        if message.kind == "forked":
            self._on_forked(message.fields["serial"], message.fields["pid"])
        elif message.kind == "ended":
            self._on_ended(message.fields["pid"], message.fields["code"])

    def _ended(self) -> None:
        log_event(_logger, logging.ERROR, "the process that starts workers has ended and is started anew")
        self._channel = None
        if self._process is not None:
            # reaped in a thread: it closed its socket a moment before it ended
            asyncio.get_running_loop().run_in_executor(None, self._process.wait)
            self._process = None
