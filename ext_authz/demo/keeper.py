"""`python -m ext_authz.demo.keeper COMMAND...`: run a command that ends when whoever started it is gone.

The starter holds the other end of our standard input. We become the command, so that its process id, exit status and
signals are its own; a small watcher stays beside it and ends it when standard input reaches its end. That works
wherever pipes do, and also when the starter was killed and could not say goodbye.
"""

import os
import select
import signal
import sys
import time

_POLL_SECONDS = 0.5
_GRACE_SECONDS = 4.0  # ext-authz drains for two in the demo
_STDIN = 0


def main() -> None:
    """Split into the command and its watcher."""
    command = sys.argv[1:]
    command_pid = os.getpid()
    if os.fork() == 0:
        _watch(command_pid)
        os._exit(0)
    os.execvp(command[0], command)  # noqa: S606 - the demo's own command line, no shell


def _watch(command_pid: int) -> None:
    # the watcher must not hold the log or terminal of the command open, nor end with its group
    os.setsid()
    for descriptor in (1, 2):
        os.close(descriptor)
    while os.getppid() == command_pid:
        readable, _, _ = select.select([_STDIN], [], [], _POLL_SECONDS)
        if readable and not os.read(_STDIN, 1024):
            _end(command_pid)
            return


def _end(command_pid: int) -> None:
    """SIGTERM, then SIGKILL after a grace period; our parent's id tells whether it is still the same process."""
    deadline = time.monotonic() + _GRACE_SECONDS
    kind = signal.SIGTERM
    while os.getppid() == command_pid:
        os.kill(command_pid, kind)
        pause = deadline if kind is signal.SIGTERM else time.monotonic() + 1
        while os.getppid() == command_pid and time.monotonic() < pause:
            time.sleep(0.05)
        kind = signal.SIGKILL


if __name__ == "__main__":
    main()
