"""A child process that cannot be left behind, and whose log is at hand when it fails."""

import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

__all__ = ["Process", "ProcessFailed"]

_STOP_SECONDS = 8.0
"""How long a process may take to end before it is killed; ext-authz drains for two in the demo."""

_TAIL_LINES = 25


class ProcessFailed(Exception):  # noqa: N818 - it says what happened to a process, as `CalledProcessError` does
    """A process ended, or did not become ready in time.

    Attributes:
        name: which one.
        log_tail: the last lines it wrote.
    """

    def __init__(self, name: str, what: str, log_tail: str) -> None:
        super().__init__(f"{name} {what}")
        self.name = name
        self.log_tail = log_tail


class Process:
    """A command run under `ext_authz.demo.keeper`, which ends it when this process is gone, however it went."""

    def __init__(
        self, name: str, command: Sequence[str], log_file: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        """Nothing is started yet; `environment` replaces the inherited one when given."""
        self.name = name
        self.log_file = log_file
        self._command = [sys.executable, "-m", "ext_authz.demo.keeper", *command]
        self._environment = environment
        self._child: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; its standard output and error go to the log file."""
        with self.log_file.open("wb") as log:
            self._child = subprocess.Popen(
                self._command,
                # held open by us alone: its end tells the keeper that we are gone
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=None if self._environment is None else dict(self._environment),
                # Ctrl-C is for us, who stop the parts in order
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """The command's own process id."""
        if self._child is None:
            raise ValueError(f"{self.name} was not started")
        return self._child.pid

    def wait_until(self, is_ready: Callable[[], bool], timeout: float, poll: float = 0.05) -> None:
        """Return when `is_ready()`; it must not raise while the process is still starting.

        Raises:
            ProcessFailed: the process ended first, or `timeout` seconds went by.
        """
        deadline = time.monotonic() + timeout
        while not is_ready():
            self.check_alive()
            if time.monotonic() > deadline:
                raise ProcessFailed(self.name, f"was not ready after {timeout:g} s", self.log_tail())
            time.sleep(poll)

    def check_alive(self) -> None:
        """Raise ProcessFailed when it has ended."""
        if self._child is not None and (status := self._child.poll()) is not None:
            raise ProcessFailed(self.name, f"ended with status {status}", self.log_tail())

    def stop(self) -> None:
        """End it, first kindly; does nothing when it is not running."""
        if self._child is None:
            return
        self._child.terminate()
        try:
            self._child.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
        if self._child.stdin is not None:
            self._child.stdin.close()
        self._child = None

    def log_tail(self, lines: int = _TAIL_LINES) -> str:
        """The last lines of its log."""
        if not self.log_file.exists():
            return ""
        return "\n".join(self.log_file.read_text(errors="replace").splitlines()[-lines:])
