"""What stands in place of the one process that decides: when it is ready, and what it tells."""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.server import document, route_policy, server_spec

from ext_authz.config.settings import ListenerSettings
from ext_authz.runtime.assembly import Assembly, assemble
from ext_authz.runtime.deciding import Deciding
from ext_authz.runtime.listening import Listening
from ext_authz.runtime.server import _serving
from ext_authz.runtime.workers import accepting as accepting_module
from ext_authz.runtime.workers import cores
from ext_authz.runtime.workers.accepting import Accepting
from ext_authz.runtime.workers.channel import Message, MessageReader, encoded
from ext_authz.runtime.workers.forking import Forking
from ext_authz.runtime.workers.member import Member, State
from ext_authz.runtime.workers.supervised import Supervised
from ext_authz.telemetry.line_sink import Line, LineSink


class Quiet(LineSink):
    def __init__(self) -> None:
        self.dropped = 0

    def put(self, line: Line) -> None:
        """Keep nothing."""


def assembled(folder: Path, **listener: Any) -> Assembly:
    rule = {"name": "public", "matches": [{"path": {"value": "/public"}}], "public": True}
    (folder / "policy.yaml").write_text(route_policy(rule))
    spec = server_spec(policies=["policy.yaml"], listener={"address": "127.0.0.1:0", **listener})
    (folder / "server.yaml").write_text(document("Server", "test", spec))
    return assemble(str(folder / "server.yaml"))


def joined(supervised: Supervised, number: int, state: State = State.SERVING, **parts: Any) -> Member:
    member = Member(number, number)
    member.state, member.revision, member.reasons = state, 1, ()
    for name, value in parts.items():
        setattr(member, name, value)
    supervised.in_force.members[number] = member
    return member


def test_it_is_ready_when_all_workers_are_and_stays_so_while_one_serves(tmp_path: Path) -> None:
    supervised = Supervised(assembled(tmp_path, workers=2), None, Quiet(), workers=2)
    assert supervised.readiness().reasons == ("not all workers serve",)
    first = joined(supervised, 1)
    assert supervised.readiness().reasons == ("not all workers serve",)
    second = joined(supervised, 2, reasons=("keys of issuer corp are not loaded",))
    readiness = supervised.readiness()
    assert readiness.reasons == ("keys of issuer corp are not loaded",)
    assert readiness.notes == ("1 of 2 workers serve",)
    second.reasons = ()
    assert supervised.readiness().reasons == ()
    second.revision, second.notes = 7, ("keys of issuer corp: no complete answer in time",)
    assert supervised.readiness().notes == (
        "worker 2 decides by configuration 7, not 1",
        "keys of issuer corp: no complete answer in time",
    )
    del supervised.in_force.members[2]
    assert supervised.readiness().reasons == ()
    assert supervised.readiness().notes == ("1 of 2 workers serve",)
    first.state = State.STARTING
    assert supervised.readiness().reasons == ("no worker serves",)
    assert supervised.log is None


@pytest.mark.parametrize(("workers", "usable", "expected"), [(1, 4, 0), (3, 1, 3), ("auto", 4, 4), ("auto", 1, 0)])
def test_there_are_as_many_workers_as_configured_or_as_cores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: object, usable: int, expected: int
) -> None:
    monkeypatch.setattr(cores, "usable_cores", lambda: usable)
    asyncio.run(_chosen(assembled(tmp_path, workers=workers), expected))


async def _chosen(assembly: Assembly, expected: int) -> None:
    serving = _serving(assembly, None, Quiet())
    if expected:
        assert isinstance(serving, Supervised)
        assert serving._workers == expected
    else:
        assert isinstance(serving, Deciding)
        assert serving.in_force is serving.active


def test_who_cannot_open_more_files_accepts_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accepting_module, "PAUSE_SECONDS", 0.01)

    class Listener(socket.socket):
        full = True

        def accept(self) -> tuple[socket.socket, Any]:
            if self.full:
                self.full = False
                raise OSError(24, "too many open files")
            return super().accept()

    async def scenario() -> None:
        listener = Listener()
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        listener.setblocking(False)
        came: list[socket.socket] = []
        accepting = Accepting(Listening((listener,), ""), came.append)
        with socket.create_connection(listener.getsockname()):
            async with asyncio.timeout(5):
                while not came:  # noqa: ASYNC110 - what is waited for is no event
                    await asyncio.sleep(0.005)
        came[0].close()
        accepting.close()
        accepting.close()
        accepting._accept_again(listener)

    asyncio.run(scenario())


def test_the_settings_have_one_worker_if_nothing_is_said() -> None:
    assert ListenerSettings().workers == 1


def test_who_starts_workers_starts_them_tells_of_their_end_and_ends_with_its_supervisor() -> None:
    """Each worker says its number on its channel, and ends as it is told."""
    program = (
        "import os, socket, sys\n"
        "from ext_authz.runtime.workers.nursery import serve\n"
        "def run(channel, number):\n"
        "    own = socket.socket(fileno=channel)\n"
        "    own.sendall(b'%d' % number)\n"
        "    return len(own.recv(10))\n"
        "serve(socket.socket(fileno=int(sys.argv[1])), run)\n"
    )
    own, its = socket.socketpair()
    process = subprocess.Popen([sys.executable, "-c", program, str(its.fileno())], pass_fds=(its.fileno(),))
    its.close()
    reader = MessageReader()
    came: list[Message] = []

    def next_message() -> Message:
        while not came:
            came.extend(reader.feed(own.recv(4_096), ()))
        return came.pop(0)

    workers: dict[int, socket.socket] = {}
    pids: dict[int, int] = {}
    for number in (1, 2, 3):
        workers[number], other = socket.socketpair()
        message = Message("fork", {"serial": number, "worker": number, "patience": 0.2}, files=(other.fileno(),))
        socket.send_fds(own, [encoded(message)], [other.fileno()])
        other.close()
        forked = next_message()
        assert (forked.kind, forked.fields["serial"]) == ("forked", number)
        pids[number] = forked.fields["pid"]
        assert workers[number].recv(10) == b"%d" % number
    # a signal to the whole group is the supervisor's business
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGINT)
    workers[1].sendall(b"seven..")
    assert next_message().fields == {"pid": pids[1], "code": 7}
    os.kill(pids[2], signal.SIGKILL)
    assert next_message().fields == {"pid": pids[2], "code": -9}
    own.close()
    # the third does not end by itself
    assert process.wait(10) == 0
    assert workers[3].recv(10) == b""
    for end in workers.values():
        end.close()


def test_closing_what_starts_workers_ends_it_whether_it_wants_or_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ext_authz.runtime.workers.forking.END_SECONDS", 0.05)

    async def scenario() -> None:
        forking = Forking(lambda *_: None, lambda *_: None)
        assert forking.pid is None
        forking.close()
        forking = Forking(lambda *_: None, lambda *_: None)
        channel = forking.fork(1, 1, 0.0, lambda _: None)
        process = forking._process
        assert process is not None
        assert forking.pid == process.pid
        process.send_signal(signal.SIGSTOP)
        forking.close()
        assert process.returncode == -signal.SIGKILL
        channel.close()

    asyncio.run(scenario())


def test_a_nursery_that_dies_is_followed_by_another() -> None:
    async def scenario() -> None:
        ended: list[tuple[int, int]] = []
        pids: list[int] = []
        forking = Forking(lambda _, pid: pids.append(pid), lambda pid, code: ended.append((pid, code)))
        gone: list[Message] = []
        first = forking.fork(1, 1, 0.0, gone.append)
        before = forking.pid
        assert before is not None

        async def until(condition: Callable[[], object]) -> None:
            async with asyncio.timeout(20):
                while not condition():  # noqa: ASYNC110 - what is waited for is no event
                    await asyncio.sleep(0.01)

        await until(lambda: pids)
        os.kill(pids[0], signal.SIGKILL)
        await until(lambda: ended and gone)
        assert ended == [(pids[0], -9)]
        assert gone[0].kind == "gone"
        os.kill(before, signal.SIGKILL)
        await until(lambda: forking.pid is None)
        second = forking.fork(2, 1, 0.0, gone.append)
        await until(lambda: len(pids) == 2)
        assert forking.pid not in {None, before}
        for channel in (first, second):
            channel.close()
        await asyncio.to_thread(forking.close)

    asyncio.run(scenario())


def test_a_whole_server_with_workers_in_this_process(tmp_path: Path) -> None:
    async def scenario() -> None:
        supervised = Supervised(assembled(tmp_path, workers=1, maximum_connections=1), None, Quiet(), workers=1)
        registry = supervised.registry()
        address = await supervised.start()
        await supervised.run()
        supervised.update_health()
        async with asyncio.timeout(30):
            while supervised.readiness().reasons:  # noqa: ASYNC110 - what is waited for is no event
                await asyncio.sleep(0.01)
        host, _, port = address.rpartition(":")
        with socket.create_connection((host, int(port))) as one:
            assert await asyncio.to_thread(one.recv, 1)
            with socket.create_connection((host, int(port))) as other, contextlib.suppress(ConnectionResetError):
                assert await asyncio.to_thread(other.recv, 1) == b""
            await supervised.refresh()
            assert registry.get_sample_value("ext_authz_worker_connections", {"worker": "1"}) == 1
        assert registry.get_sample_value("ext_authz_connections_refused_total") == 1
        assert registry.get_sample_value("ext_authz_workers") == 1
        assert (registry.get_sample_value("process_open_fds") or 0) > 0
        supervised.leave()
        supervised.end_health()
        await supervised.drain(1)
        assert not supervised.in_force.members
        supervised.abort()
        await supervised.close()

    asyncio.run(scenario())
