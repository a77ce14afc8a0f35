"""The process that forks workers: it has imported everything, has no threads, and does nothing else.

A fork copies only the thread that forks, and whatever the others held stays locked for ever; so it cannot be the supervisor,
which has some. A fresh interpreter for each worker would be as clean, but takes a second of a core where a fork takes a
hundredth of it, and shares no memory with the others. `multiprocessing`'s fork server would do as well; it brings a second
process, runs the main module again in each child, and hands out no signals.

It ends when the supervisor does.
"""

import contextlib
import gc
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator

from ext_authz.runtime.workers.channel import MAX_FILES, Message, MessageReader, encoded

__all__ = ["main", "serve"]

_READ_BYTES = 65_536
_LOOK_SECONDS = 0.05

# what the nursery is told to leave to the supervisor: a signal to the whole process group reaches it too
_IGNORED: tuple[int, ...] = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def serve(own: socket.socket, run: Callable[[int, int], int]) -> None:
    """Fork a worker for each message `fork`, and say when one has ended, until `own` is closed by the supervisor.

    Args:
        own: messages from and to the supervisor.
        run: is the worker: given its channel's descriptor and its number it returns an exit code.
    """
    for number in _IGNORED:
        signal.signal(number, signal.SIG_IGN)
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    os.set_blocking(woken, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    reader = MessageReader()
    children: set[int] = set()
    patience = 0.0
    # pages that are never written to by the collector stay shared
    gc.collect()
    gc.freeze()
    while True:
        readable, _, _ = select.select([own.fileno(), woken], [], [])
        if woken in readable:
            with contextlib.suppress(BlockingIOError):
                os.read(woken, _READ_BYTES)
            for pid, code in _ended():
                children.discard(pid)
                _tell(own, Message("ended", {"pid": pid, "code": code}))
        if own.fileno() in readable:
            try:
                data, files, _, _ = socket.recv_fds(own, _READ_BYTES, MAX_FILES)
            except ConnectionResetError:
                data, files = b"", []
            if not data:
                _outlive(children, patience)
                return
            for message in reader.feed(data, files):
                number, patience = int(message.fields["worker"]), float(message.fields["patience"])
                pid = os.fork()
                if pid == 0:
                    _become_worker(own, (woken, wake), run, message.files[0], number)
                children.add(pid)
                os.close(message.files[0])
                _tell(own, Message("forked", {"serial": message.fields["serial"], "pid": pid}))


def _tell(own: socket.socket, message: Message) -> None:
    # a supervisor that has gone is noticed by reading
    with contextlib.suppress(OSError):
        own.sendall(encoded(message))


def _become_worker(
    own: socket.socket, pipe: tuple[int, int], run: Callable[[int, int], int], channel: int, number: int
) -> None:
    """Leave what is the nursery's behind and never return."""
    code = 1
    try:
        signal.set_wakeup_fd(-1)
        for handled in (*_IGNORED, signal.SIGCHLD):
            signal.signal(handled, signal.SIG_DFL)
        own.close()
        for end in pipe:
            os.close(end)
        code = run(channel, number)
    finally:
        with contextlib.suppress(Exception):
            sys.stderr.flush()
        os._exit(code)


def _ended() -> Iterator[tuple[int, int]]:
    """Process id and exit code, negative for a signal, of each worker that has ended."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        yield pid, os.waitstatus_to_exitcode(status)


def _outlive(children: set[int], patience: float) -> None:
    """The supervisor is gone: workers end by themselves, and one that hangs is ended."""
    until = time.monotonic() + patience
    while children and time.monotonic() < until:
        children.difference_update(pid for pid, _ in _ended())
        time.sleep(_LOOK_SECONDS)
    for pid in children:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def main() -> None:
    """`python -m ext_authz.runtime.workers.nursery SOCKET LOCK`, two descriptors."""
    # everything a worker needs is imported here, once
    from ext_authz.runtime.workers.worker import run_worker  # noqa: PLC0415 - tests of `serve` need none of it

    descriptor, lock = (int(argument) for argument in sys.argv[1:])
    with socket.socket(fileno=descriptor) as own:
        serve(own, lambda channel, number: run_worker(channel, lock, number))


if __name__ == "__main__":
    main()
